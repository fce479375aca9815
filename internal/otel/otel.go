// Package otel turns events of sandboxes into OpenTelemetry traces and metrics,
// and sends them to a collector by OTLP over HTTP.
//
//	cfg, err := otel.FromEnv(os.Getenv)
//	x := otel.Start(cfg)
//	otel.Read(os.Stdin, x.Take)
//	sent := x.Close(ctx)
//
// Taking an event never waits: what cannot be sent in time is dropped from a
// bounded queue, and counted. Only the program nucleus-otel is made of it; the
// messages are written by hand (wire.go), which costs 24 modules less than
// OpenTelemetry's own exporters.
package otel

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/nucleus-container/nucleus/event"
)

const (
	maxQueue = 4096 // spans that wait
	maxBatch = 512  // spans in a request
)

// Sent is what became of the spans.
type Sent struct {
	Spans    int // that the collector has taken
	Dropped  int // because the queue was full
	Failed   int // because the collector could not be reached, or refused
	Rejected int // by a collector that took the rest
	Reports  int // of metrics
	Missed   int // reports of metrics that failed; the next one makes good for it
}

// Complete reports whether everything has arrived.
func (s Sent) Complete() bool {
	return s.Dropped+s.Failed+s.Rejected == 0 && (s.Missed == 0 || s.Reports > 0)
}

// Exporter sends what events say.
type Exporter struct {
	cfg    Config
	lives  Lives
	meters *Meters

	mu    sync.Mutex
	queue []Span
	sent  Sent

	wake    chan struct{}
	closing chan struct{}
	done    chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc
}

// Start begins to send.
func Start(c Config) *Exporter {
	if c.Log == nil {
		c.Log = func(string, ...any) {}
	}
	x := &Exporter{cfg: c, meters: NewMeters(time.Now()), wake: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{})}
	x.ctx, x.cancel = context.WithCancel(context.Background())
	go x.run()
	return x
}

// Take takes an event. It is called by one goroutine.
func (x *Exporter) Take(r event.Record) {
	x.meters.Take(r)
	x.put(x.lives.Take(r))
}

func (x *Exporter) put(spans []Span) {
	if len(spans) == 0 || x.cfg.Traces.url == "" {
		return
	}
	x.mu.Lock()
	room := max(0, maxQueue-len(x.queue))
	if room < len(spans) {
		x.sent.Dropped += len(spans) - room
		spans = spans[:room]
	}
	x.queue = append(x.queue, spans...)
	x.mu.Unlock()
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// Close sends what is left, until ctx is done, and says what became of it all.
func (x *Exporter) Close(ctx context.Context) Sent {
	x.put(x.lives.Rest(time.Now()))
	close(x.closing)
	stop := context.AfterFunc(ctx, x.cancel)
	<-x.done
	stop()
	x.cancel()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.sent.Failed += len(x.queue) + x.lives.Forgotten
	x.queue = nil
	return x.sent
}

// run sends: spans when there are some, and metrics every so often.
func (x *Exporter) run() {
	defer close(x.done)
	tick := time.NewTicker(x.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case <-x.wake:
			x.spans()
		case <-tick.C:
			x.metrics()
		case <-x.closing:
			x.spans()
			x.metrics()
			return
		}
	}
}

// spans sends what waits.
func (x *Exporter) spans() {
	for x.ctx.Err() == nil {
		x.mu.Lock()
		batch := x.queue[:min(len(x.queue), maxBatch)]
		x.queue = x.queue[len(batch):]
		x.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		answer, err := x.send(x.cfg.Traces, encodeSpans(x.cfg.resource(), x.cfg.scope(), batch))
		lost, why := rejected(answer)
		x.mu.Lock()
		if err != nil {
			x.sent.Failed += len(batch)
		} else {
			lost = max(0, min(lost, int64(len(batch))))
			x.sent.Rejected += int(lost)
			x.sent.Spans += len(batch) - int(lost)
		}
		x.mu.Unlock()
		switch {
		case err != nil:
			x.cfg.Log("%d spans were not sent: %v", len(batch), err)
		case lost > 0:
			x.cfg.Log("the collector rejected %d of %d spans: %q", lost, len(batch), why)
		}
	}
}

func (x *Exporter) metrics() {
	if x.cfg.Metrics.url == "" || x.ctx.Err() != nil {
		return
	}
	_, err := x.send(x.cfg.Metrics, x.meters.encode(x.cfg.resource(), x.cfg.scope(), time.Now()))
	x.mu.Lock()
	if err != nil {
		x.sent.Missed++
	} else {
		x.sent.Reports++
	}
	x.mu.Unlock()
	if err != nil {
		x.cfg.Log("metrics were not sent: %v", err)
	}
}

// errLater is a failure that may pass.
type errLater struct {
	after time.Duration // as the collector asks; 0: it does not
	why   string
}

func (e *errLater) Error() string { return e.why }

// send posts a message, and again after a failure that may pass.
func (x *Exporter) send(s signal, body []byte) (answer []byte, err error) {
	if s.gzip {
		if body, err = compress(body); err != nil {
			return nil, err
		}
	}
	pause := x.cfg.Backoff
	for attempt := 1; ; attempt++ {
		answer, err = x.post(s, body)
		var later *errLater
		if err == nil || !errors.As(err, &later) || attempt >= x.cfg.Attempts {
			return answer, err
		}
		wait := pause/2 + rand.N(pause) // many wait: not all at once
		if later.after > 0 {
			wait = min(later.after, 30*time.Second)
		}
		select {
		case <-time.After(wait):
		case <-x.ctx.Done():
			return nil, fmt.Errorf("%w; there is no time to try again", err)
		}
		pause = min(2*pause, 30*time.Second)
	}
}

func compress(body []byte) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(body)
	err = errors.Join(err, z.Close())
	return b.Bytes(), err
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 64 << 10

func (x *Exporter) post(s signal, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(x.ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "nucleus-otel/"+x.cfg.Version)
	for k, v := range s.headers {
		req.Header.Set(k, v.Reveal())
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	if s.gzip {
		req.Header.Set("Content-Encoding", "gzip")
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, &errLater{why: err.Error()}
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch code := resp.StatusCode; {
	case code/100 == 2 && err != nil:
		return nil, nil // it was taken, and what it says about that is lost
	case code/100 == 2:
		return answer, nil
	case code == http.StatusTooManyRequests, code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After")) // a date is not understood: our own pause then
		return nil, &errLater{time.Duration(max(0, seconds)) * time.Second, "the collector answers " + resp.Status}
	}
	return nil, fmt.Errorf("the collector answers %s", resp.Status)
}
