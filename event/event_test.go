package event_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/event"
)

var testTime = time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("x", 3600))

func TestLine(t *testing.T) {
	r, err := event.New(testTime, event.Sandbox{ID: "ab", Name: "web"}, event.NotStarted{Error: "<no & yes>"})
	if err != nil {
		t.Fatal(err)
	}
	r.Seq = 7
	line, err := r.Line()
	const want = `{"v":1,"seq":7,"time":"2026-01-02T02:04:05.000000006Z","sandbox":{"id":"ab","name":"web"},"type":"sandbox_not_started","data":{"error":"<no & yes>"}}`
	if err != nil || string(line) != want {
		t.Errorf("got %s, %v\nwant %s", line, err, want)
	}
}

// TestNamesHoldNoValue: a value that somebody put there by mistake is not written.
func TestNamesHoldNoValue(t *testing.T) {
	for _, names := range []event.Names{event.NamesOf([]string{"TOKEN=hunter2", "EMPTY="}), {"TOKEN=hunter2", "EMPTY="}} {
		b, err := json.Marshal(event.Created{Env: names})
		if err != nil || strings.Contains(string(b), "hunter2") || !strings.Contains(string(b), `["TOKEN","EMPTY"]`) {
			t.Errorf("got %s, %v", b, err)
		}
	}
}

func TestCommand(t *testing.T) {
	long := strings.Repeat("x", 9000)
	for _, tc := range []struct {
		name   string
		argv   []string
		hidden bool
		want   event.Command
	}{
		{"plain", []string{"a", "b", ""}, false, event.Command{Program: "a", Args: []string{"b", ""}}},
		{"hidden", []string{"a", "secret", "c"}, true, event.Command{Program: "a", Omitted: 2}},
		{"other bytes", []string{"a", "b\xffé"}, false, event.Command{Program: "a", Args: []string{`b\xffé`}}},
		{"too long", []string{"a", "b", long, "c"}, false, event.Command{Program: "a", Args: []string{"b"}, Omitted: 2}},
		{"none", nil, false, event.Command{}},
	} {
		if got := event.CommandOf(tc.argv, tc.hidden); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.want)
		}
	}
}
