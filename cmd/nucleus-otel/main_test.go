package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/slim/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/event"
	"github.com/nucleus-container/nucleus/internal/audit"
	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

// TestMain is the program itself, if a test starts it so.
func TestMain(m *testing.M) {
	if os.Getenv("NUCLEUS_OTEL_ITSELF") != "" {
		os.Exit(run(os.Args[1:]))
	}
	sandboxtest.Main(m)
}

// collector collects the names of spans.
type collector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*tracepb.Span
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var d tracepb.TracesData
		if err == nil && r.URL.Path == "/v1/traces" {
			err = proto.Unmarshal(body, &d)
		}
		if err != nil {
			t.Error(err)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, rs := range d.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				c.spans = append(c.spans, ss.Spans...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) names() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, s := range c.spans {
		out = append(out, s.Name)
	}
	return strings.Join(out, ",")
}

func itself(t *testing.T, endpoint string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), "NUCLEUS_OTEL_ITSELF=1", "OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	return cmd, &said
}

// sandbox runs a program and tells of it.
func sandbox(t *testing.T, tell func(event.Body) error) {
	t.Helper()
	cmd := nucleus.Command(&spec.Sandbox{Toolchain: true}, "sh", "-c", "exit 3")
	cmd.Events = tell
	if err := cmd.Run(); err == nil || cmd.Outcome == nil || cmd.Outcome.Code != 3 {
		t.Fatalf("got %v", err)
	}
}

const allSpans = "sandbox sh,start,enter,verify,exec,program"

// TestPipe: a sandbox's events go through a pipe to a collector.
func TestPipe(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	c := newCollector(t)
	cmd, said := itself(t, c.URL)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	teller := &audit.Teller{Sandbox: event.Sandbox{ID: "0123456789abcdef"}, Streams: []*audit.Stream{audit.NewStream(in)}}
	sandbox(t, teller.Tell)
	if err := teller.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || said.Len() > 0 {
		t.Errorf("got %v, %s", err, said)
	}
	if got := c.names(); got != allSpans {
		t.Errorf("got spans %s, want %s", got, allSpans)
	}
	if s := c.spans[0]; s.Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR || len(s.Events) < 8 {
		t.Errorf("got %v", s)
	}
}

// TestFollowLog: an audit log that grows goes to a collector, until a signal ends it.
func TestFollowLog(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns)
	c := newCollector(t)
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	log, err := audit.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd, said := itself(t, c.URL, "--follow", path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		sandbox(t, (&audit.Teller{Sandbox: event.Sandbox{ID: string(rune('a' + i))}, Log: log}).Tell)
	}
	for deadline := time.Now().Add(20 * time.Second); c.names() != allSpans+","+allSpans && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
	}
	if got := c.names(); got != allSpans+","+allSpans {
		t.Errorf("got spans %s", got)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || said.Len() > 0 {
		t.Errorf("got %v, %s", err, said)
	}
}

// TestLossIsSaid: without a collector it says what did not arrive, and exits with 1.
func TestLossIsSaid(t *testing.T) {
	c := newCollector(t)
	c.Close()
	path := filepath.Join(t.TempDir(), "events")
	if err := os.WriteFile(path, []byte(`{"v":1,"seq":1,"time":"2026-01-02T03:04:05Z","sandbox":{"id":"a"},"type":"sandbox_created","data":{}}`+"\nno event\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, said := itself(t, c.URL, "--file", path, "--flush-timeout", "100ms")
	err := cmd.Run()
	if cmd.ProcessState.ExitCode() != exitLost {
		t.Errorf("got %v", err)
	}
	for _, want := range []string{"1 lines were no events", "failed 2", "connection refused"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("it does not say %q: %s", want, said)
		}
	}
}

func TestBadInput(t *testing.T) {
	for _, args := range [][]string{{"--nope"}, {"file"}, {"--fd", "2"}, {"--fd"}, {"--follow"}, {"--fd=3", "--file=x"}, {"--file", "x", "--follow", "x"}, {"--flush-timeout", "0"}} {
		cmd, said := itself(t, "http://127.0.0.1:1", args...)
		_ = cmd.Run()
		if cmd.ProcessState.ExitCode() != exitUsage || strings.Count(said.String(), "\n") != 1 {
			t.Errorf("%q: got %v, %q; want one line and exit code 2", args, cmd.ProcessState, said)
		}
	}
	cmd, said := itself(t, "nonsense", "--file", "/dev/null")
	_ = cmd.Run()
	if cmd.ProcessState.ExitCode() != exitUsage || strings.Count(said.String(), "OTEL_EXPORTER_OTLP_ENDPOINT") != 1 {
		t.Errorf("got %v, %q; want the variable named once", cmd.ProcessState, said)
	}
	cmd, said = itself(t, "http://127.0.0.1:1", "extra")
	_ = cmd.Run()
	if strings.Contains(said.String(), "no flag") || !strings.Contains(said.String(), `unexpected argument "extra"`) {
		t.Errorf("an argument: got %q", said)
	}
}

// TestVersion: who builds it without the linker's word for it is told so.
func TestVersion(t *testing.T) {
	cmd, said := itself(t, "http://127.0.0.1:1", "--version")
	if err := cmd.Run(); err != nil || said.String() != "nucleus-otel (devel)\n" {
		t.Errorf("got %v, %q", err, said)
	}
}

// TestHelpIsComplete: help and manual page name every flag that is understood.
func TestHelpIsComplete(t *testing.T) {
	for _, text := range []string{help(), strings.ReplaceAll(manPage(), `\-`, "-")} {
		for _, flag := range []string{"--follow", "--file", "--fd", "--flush-timeout", "--quiet", "--version", "--help", "OTEL_EXPORTER_OTLP_HEADERS"} {
			if !strings.Contains(text, flag) {
				t.Errorf("%s is not explained", flag)
			}
		}
	}
}
