package cli

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/store"
)

func TestStatusText(t *testing.T) {
	now := time.Now()
	then := now.Add(-3 * time.Minute)
	for _, tc := range []struct {
		info store.Info
		want string
	}{
		{store.Info{State: "created"}, "Created"},
		{store.Info{State: "running", Started: then}, "Up 3 minutes"},
		{store.Info{State: "running", Started: then, Health: "healthy"}, "Up 3 minutes (healthy)"},
		{store.Info{State: "running", Started: then, Health: "starting"}, "Up 3 minutes (health: starting)"},
		{store.Info{State: "paused", Started: then, Health: "healthy"}, "Up 3 minutes (Paused)"},
		{store.Info{State: "exited", Ended: then, Reason: "exited", ExitCode: 2}, "Exited (2) 3 minutes ago"},
		{store.Info{State: "exited", Ended: then, Reason: "signaled", ExitCode: 137}, "Exited (137) 3 minutes ago"},
		{store.Info{State: "exited", Ended: then, Reason: "signaled", ExitCode: 137, Detail: "the machine was restarted"}, "Exited (137) 3 minutes ago: the machine was restarted"},
		{store.Info{State: "exited", Ended: now.Add(-2 * time.Hour), Reason: string(nucleus.OutOfMemory), ExitCode: 137, Detail: "out of memory: long"}, "Exited (137) 2 hours ago: out of memory"},
		{store.Info{State: "exited", Ended: then, Reason: "not started", ExitCode: 127}, "Exited (127) 3 minutes ago: not started"},
		{store.Info{State: "restarting", Ended: now.Add(-3 * time.Second), ExitCode: 1}, "Restarting (1) 3 seconds ago"},
		{store.Info{State: "broken", Problem: "broken file: x: why"}, "Broken: x: why"},
	} {
		if got := statusText(&tc.info, now); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

// some are sandboxes, the oldest first as the store lists them.
func some() []store.Info {
	at := func(i int) time.Time { return time.Unix(int64(i), 0) }
	return []store.Info{
		{ID: "aa00000000000001", Name: "old", State: "exited", ExitCode: 3, Created: at(1), Labels: map[string]string{"team": "infra", "tier": ""}},
		{ID: "ab00000000000002", Name: "web", State: "running", Created: at(2), Health: "healthy", Labels: map[string]string{"team": "infra"}},
		{ID: "bb00000000000003", Name: "webhook", State: "paused", Created: at(3), Labels: map[string]string{"team": "db"}},
		{ID: "cc00000000000004", State: "restarting", ExitCode: 3, Created: at(4)},
		{ID: "dd00000000000005", Name: "new", State: "created", Created: at(5)},
		{ID: "ee00000000000006", State: "broken"},
	}
}

func TestChoose(t *testing.T) {
	for _, tc := range []struct{ flags, want string }{
		{"", "broken restarting webhook web"},
		{"-a", "broken new restarting webhook web old"},
		{"-l", "broken"},
		{"-n 3", "broken new restarting"},
		{"-n 99", "broken new restarting webhook web old"},
		{"--filter status=exited", "old"},
		{"--filter status=exited --filter status=paused", "webhook old"},
		{"--filter name=web", "webhook web"},
		{"--filter name=old", ""},
		{"-a --filter name=old", "old"},
		{"-a --filter id=a", "web old"},
		{"-a --filter label=team", "webhook web old"},
		{"-a --filter label=team=infra", "web old"},
		{"-a --filter label=team=infra --filter label=tier", "old"},
		{"-a --filter label=tier=", "old"},
		{"--filter exited=3", "old"},
		{"--filter exited=4", ""},
		{"--filter health=healthy", "web"},
		{"-a --filter health=none --filter name=o", "webhook old"},
		{"--filter since=web", "new restarting webhook"},
		{"--filter before=web", "old"},
		{"--filter since=ab --filter before=dd", "restarting webhook"},
		{"-a -n 1 --filter name=web", "webhook"},
	} {
		c := &call{cmd: &psCommand}
		if err := c.parse(strings.Fields(tc.flags)); err != nil {
			t.Fatalf("%s: %v", tc.flags, err)
		}
		got, err := c.opts.view.choose(some())
		if err == nil {
			err = checkFilters(c.opts.view.filters)
		}
		if err != nil {
			t.Errorf("%s: %v", tc.flags, err)
		}
		var names []string
		for _, i := range got {
			name := i.Name
			if name == "" {
				name = i.State
			}
			names = append(names, name)
		}
		if strings.Join(names, " ") != tc.want {
			t.Errorf("%s: got %q, want %q", tc.flags, names, tc.want)
		}
	}
	for _, ref := range []string{"nothing", "a", ""} {
		o := viewOptions{filters: []filter{{"since", ref}}}
		if _, err := o.choose(some()); err == nil {
			t.Errorf("since=%s: got no error", ref)
		}
	}
	for _, f := range []filter{{"nmae", "x"}, {"status", "up"}, {"exited", "x"}, {"exited", "256"}, {"health", "good"}} {
		if err := checkFilters([]filter{f}); err == nil {
			t.Errorf("%v: got no error", f)
		}
	}
	for _, bad := range []string{"--filter x", "--filter =x", "--filter x=", "-n 0", "-n x", "--format "} {
		c := &call{cmd: &psCommand}
		if err := c.parse(strings.SplitN(bad, " ", 2)); err == nil {
			t.Errorf("%s: got no error", bad)
		}
	}
}

// TestPsRow: what a sandbox is made of cannot command a terminal.
func TestPsRow(t *testing.T) {
	evil := "\x1b]0;x\a\u202e\n"
	i := store.Info{
		ID: "0123456789abcdef", Name: evil, Command: []string{evil, strings.Repeat("日", 30)}, State: "running",
		Labels: map[string]string{evil: evil, "a": "b"}, Health: evil, Reason: evil, Problem: evil,
	}
	r := newPsRow(&i, time.Now(), false)
	for _, cell := range []string{r.Name, r.Command, r.Status, r.Labels, r.Health, r.Reason, r.Problem, r.Label(evil), psHeading().Label(evil)} {
		if printable(cell) != cell {
			t.Errorf("got %q", cell)
		}
	}
	if r.ID != "0123456789ab" || width(r.Command) > 30 || !strings.HasSuffix(r.Command, "日…") {
		t.Errorf("got %q, %q", r.ID, r.Command)
	}
	if r = newPsRow(&i, time.Now(), true); r.ID != i.ID || strings.Contains(r.Command, "…") {
		t.Errorf("whole: got %q, %q", r.ID, r.Command)
	}
	if got := labelText(map[string]string{"b": "2", "a": "1"}); got != "a=1,b=2" {
		t.Errorf("got %q", got)
	}
	e := store.Event{Time: time.Unix(0, 0), Type: evil, ID: evil, Name: evil, Attrs: map[string]string{"b": evil, evil: "", "a": "c", "d": "e f"}}
	if got := eventText(e); printable(got) != strings.TrimSuffix(got, "\n")+`\n` || !strings.Contains(got, ` a=c b="`) || !strings.Contains(got, ` d="e f"`) {
		t.Errorf("got %q", got)
	}
}

func TestWantsEvent(t *testing.T) {
	e := store.Event{Type: "oom", ID: "ab00000000000000", Name: "web"}
	for flags, want := range map[string]bool{
		"":                                       true,
		"--filter type=oom":                      true,
		"--filter type=end":                      false,
		"--filter type=end --filter type=oom":    true,
		"--filter sandbox=web":                   true,
		"--filter sandbox=we":                    false,
		"--filter sandbox=ab0":                   true,
		"--filter sandbox=a":                     false,
		"--filter type=end --filter sandbox=web": false,
		"--filter sandbox=db --filter type=oom":  false,
	} {
		c := &call{cmd: &eventsCommand}
		if err := c.parse(strings.Fields(flags)); err != nil {
			t.Fatal(err)
		}
		if got := c.opts.view.wantsEvent(e); got != want {
			t.Errorf("%s: got %v, want %v", flags, got, want)
		}
	}
}

// TestFilterWords: shells complete the filters that there are, and the help has them.
func TestFilterWords(t *testing.T) {
	var want []string
	for _, m := range matchers() {
		values := strings.Fields(m.values)
		if len(values) == 0 {
			values = []string{""}
		}
		for _, v := range values {
			want = append(want, m.key+"="+v)
		}
	}
	if got := strings.Fields(psFilters); !slices.Equal(got, want) {
		t.Errorf("ps: got %q, want %q", got, want)
	}
	for _, f := range strings.Fields(eventFilters) {
		if word := strings.TrimPrefix(f, "type="); !strings.Contains(eventsCommand.long, word) {
			t.Errorf("events --help does not have %s", word)
		}
	}
}

func TestStatsRows(t *testing.T) {
	half, none := 50.0, 0.0
	all := []sample{
		{display: "b", ID: "1", CPUPercent: &half, Stats: &nucleus.Stats{Memory: 512 << 20, MemoryLimit: 1 << 30, Pids: 3, ReadBytes: 5 << 20, MemoryPressure: &nucleus.Pressure{Some10: 1.25}}},
		{display: "a", ID: "2", Stats: &nucleus.Stats{Memory: 1, Pids: 9, Summed: true}},
		{display: "d", ID: "3"},
		{display: "c", ID: "4", CPUPercent: &none, Stats: &nucleus.Stats{WriteBytes: 9 << 20}},
		{display: "e", ID: "5", Problem: "it is\x1bbroken"},
	}
	for by, want := range map[string]string{"": "abcde", "name": "abcde", "cpu": "bcade", "mem": "bacde", "pids": "abcde", "io": "cbade"} {
		order(all, by)
		got := ""
		for _, s := range all {
			got += s.display
		}
		if got != want {
			t.Errorf("by %s: got %s, want %s", by, got, want)
		}
	}
	order(all, "name")
	for i, want := range []string{
		"a|-|1B / -|-|-|-|9",
		"b|50.00%|512MiB / 1.00GiB|50.00%|-/1.2/-|5.00MiB / 0B|3",
		"c|0.00%|-|-|-|0B / 9.00MiB|-",
		"d|-|-|-|-|-|-",
		`e|-|it is\x1bbroken||||`,
	} {
		if got := strings.Join(newStatsRow(all[i]).cells(), "|"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if keys := len(sortKeys); keys != len(strings.Fields(sorts)) || !slices.ContainsFunc(sortKeys[:], func(k [2]string) bool { return k[1] == "io" }) {
		t.Errorf("%d keys for the orders %s", keys, sorts)
	}
}

func TestInterspersed(t *testing.T) {
	c := &call{cmd: &logsCommand}
	if err := c.parse(strings.Fields("-t web -f --tail 3")); err != nil {
		t.Fatal(err)
	}
	if err := c.interspersed(); err != nil || !slices.Equal(c.args, []string{"web"}) || !c.opts.view.follow || !c.opts.view.stamps || c.opts.view.tail != 3 {
		t.Errorf("got %q, %+v, %v", c.args, c.opts.view, err)
	}
	c = &call{cmd: &logsCommand, args: []string{"web", "--nonsense"}}
	if err := c.interspersed(); err == nil {
		t.Error("got no error")
	}
}
