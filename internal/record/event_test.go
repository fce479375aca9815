package record

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

func ids(events []Event) (all []string) {
	for _, e := range events {
		all = append(all, e.ID)
	}
	return all
}

func TestEvents(t *testing.T) {
	d := testDir(t)
	if got, err := d.Events(time.Time{}, time.Time{}); got != nil || err != nil {
		t.Errorf("got %v, %v, want none", got, err)
	}
	base := time.Date(2030, 1, 2, 3, 4, 5, 678, time.UTC)
	at := func(s int) time.Time { return base.Add(time.Duration(s) * time.Second) }
	for _, e := range []Event{
		{Time: at(1), Type: "start", ID: "1", Name: "web", Attrs: map[string]string{"a": "b\nc"}},
		{Time: at(3), Type: "die", ID: "3"},
		{Time: at(2), Type: "start", ID: "2"}, // noticed late
	} {
		must(t, d.Log(e))
	}
	all, err := d.Events(time.Time{}, time.Time{})
	must(t, err)
	if want := (Event{at(1), "start", "1", "web", map[string]string{"a": "b\nc"}}); len(all) != 3 || !reflect.DeepEqual(all[0], want) {
		t.Fatalf("got %+v, want three, the first %+v", all, want)
	}
	for _, c := range []struct {
		since, until int
		want         string
	}{{1, 3, "123"}, {2, 3, "23"}, {2, 2, "2"}, {4, 9, ""}, {0, 1, "1"}} {
		got, err := d.Events(at(c.since), at(c.until))
		if s := strings.Join(ids(got), ""); s != c.want || err != nil {
			t.Errorf("%d to %d: got %q, %v, want %q", c.since, c.until, s, err, c.want)
		}
	}
	before := time.Now()
	must(t, d.Log(Event{Type: "now"}))
	if got, err := d.Events(before, time.Now()); len(got) != 1 || err != nil {
		t.Errorf("got %+v, %v, want the event without a time to be now", got, err)
	}
	if d.Log(Event{Type: "big", Attrs: map[string]string{"a": strings.Repeat("b", maxEvent)}}) == nil {
		t.Error("an event was logged that is too long to be read")
	}
}

func TestTornEvents(t *testing.T) {
	d := testDir(t)
	write := func(s string) {
		t.Helper()
		f, _, err := openEvents(d.eventsPath())
		must(t, err)
		_, err = f.WriteString(s)
		must(t, errors.Join(err, f.Close()))
	}
	must(t, d.Log(Event{Type: "a", ID: "1"}))
	write(`{"time":"2030-01-02T03:04:05Z","type":"tor`)
	if got, err := d.Events(time.Time{}, time.Time{}); strings.Join(ids(got), "") != "1" || err != nil {
		t.Errorf("got %+v, %v, want 1", got, err)
	}
	must(t, d.Log(Event{Type: "a", ID: "2"}))
	write("\n\nnull\n[]\n{}\nx\n" + `{"time":"2030-01-02T03:04:05Z","type":"` + strings.Repeat("x", 3*maxEvent) + "\"}\n")
	must(t, d.Log(Event{Type: "a", ID: "3"}))
	if got, err := d.Events(time.Time{}, time.Time{}); strings.Join(ids(got), "") != "123" || err != nil {
		t.Errorf("got %d events, %v, want 1, 2, 3", len(got), err)
	}
}

func TestRotation(t *testing.T) {
	d := testDir(t)
	d.maxEvents = 1000
	for i := range 100 {
		must(t, d.Log(Event{Type: "a", ID: fmt.Sprint(i)}))
		got, err := d.Events(time.Time{}, time.Time{})
		must(t, err)
		if len(got) == 0 || got[len(got)-1].ID != fmt.Sprint(i) || len(got) < min(i+1, 10) || len(got) > 60 {
			t.Fatalf("after %d: got %q", i, ids(got))
		}
	}
	for _, path := range []string{d.eventsPath(), d.oldEventsPath()} {
		if st, err := os.Stat(path); err != nil || st.Size() > 1100 || st.Mode() != 0o600 {
			t.Errorf("%s: got %v, %v, want a private file of at most 1100 bytes", path, st, err)
		}
	}
}

// TestRotationTogether has several log, and one read, when the file is full: one
// of them renames it, and nobody looks in between.
func TestRotationTogether(t *testing.T) {
	const rounds, full, more = 300, 20, 6
	for range rounds {
		d := testDir(t)
		d.maxEvents = 1 << 40
		for range full {
			must(t, d.Log(Event{Type: "a", ID: "before"}))
		}
		d.maxEvents = 500
		start := make(chan struct{})
		var wait sync.WaitGroup
		for range more {
			wait.Go(func() {
				<-start
				if err := d.Log(Event{Type: "a", ID: "more"}); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Go(func() {
			<-start
			for range more {
				if got, err := d.Events(time.Time{}, time.Time{}); len(got) < full || err != nil {
					t.Errorf("got %d events, %v, want %d and more", len(got), err, full)
				}
			}
		})
		close(start)
		wait.Wait()
		if got, err := d.Events(time.Time{}, time.Time{}); len(got) != full+more || err != nil {
			t.Fatalf("got %d events, %v, want %d", len(got), err, full+more)
		}
	}
}

// TestFollow logs across rotations, of which some come twice in a row.
func TestFollow(t *testing.T) {
	for _, first := range []int{0, 1, 30} { // events before Follow
		d := testDir(t)
		d.maxEvents, d.poll = 2000, time.Millisecond
		log := func(i int) { must(t, d.Log(Event{Type: "a", ID: fmt.Sprint(i)})) }
		for i := range first {
			log(i)
		}
		past, err := d.Events(time.Time{}, time.Time{})
		must(t, err)
		next := first - len(past) // older ones were forgotten
		seen := make(chan struct{}, 1000)
		done := errors.New("done")
		got := make(chan error, 1)
		go func() {
			got <- d.Follow(t.Context(), time.Time{}, func(e Event) error {
				if e.ID == "end" {
					return done
				}
				if e.ID != fmt.Sprint(next) {
					return fmt.Errorf("got event %s, want %d", e.ID, next)
				}
				next++
				seen <- struct{}{}
				return nil
			})
		}()
		for range past {
			<-seen
		}
		for i := first; i < first+600; {
			for range 40 { // a file has some 32
				log(i)
				i++
			}
			for range 40 {
				wait(t, seen, got)
			}
		}
		must(t, d.Log(Event{Type: "a", ID: "end"}))
		if err := <-got; !errors.Is(err, done) || next != first+600 {
			t.Errorf("from %d: got %v, next %d, want all", first, err, next)
		}
	}
}

// wait waits for one event.
func wait(t *testing.T, seen chan struct{}, failed chan error) {
	t.Helper()
	select {
	case <-seen:
	case err := <-failed:
		t.Fatal(err)
	}
}

func TestFollowSince(t *testing.T) {
	d := testDir(t)
	d.poll = time.Millisecond
	now := time.Now()
	must(t, d.Log(Event{Type: "a", ID: "old", Time: now.Add(-time.Hour)}))
	must(t, d.Log(Event{Type: "a", ID: "second", Time: now.Add(2)}))
	must(t, d.Log(Event{Type: "a", ID: "first", Time: now.Add(1)}))
	ctx, cancel := context.WithCancel(t.Context())
	var got []string
	err := d.Follow(ctx, now, func(e Event) error {
		got = append(got, e.ID)
		switch e.ID {
		case "second": // what is noticed late is told too
			return d.Log(Event{Type: "a", ID: "late", Time: now.Add(-time.Hour)})
		case "late":
			cancel()
		}
		return nil
	})
	wantErr(t, err, context.Canceled)
	if s := strings.Join(got, " "); s != "first second late" {
		t.Errorf("got %q, want first second late", s)
	}
}
