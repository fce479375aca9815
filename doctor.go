package nucleus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nucleus-container/nucleus/internal/host"
	"github.com/nucleus-container/nucleus/spec"
)

// Diagnosis is what a machine has to offer to sandboxes, and what it lacks.
type Diagnosis struct {
	// Works says that a sandbox was started, and ended as it should.
	Works bool `json:"works"`
	// Findings are in the order in which a person would ask.
	Findings []Finding `json:"findings"`
	// Host is what plans are made with.
	Host *Host `json:"host"`
}

// Finding is one fact that matters. Status is "ok", "weaker" (sandboxes start,
// with less, or a limit is refused), "missing" (they do not start) or "info".
// Fix is the command that changes it, where there is one.
type Finding struct {
	Name    string `json:"name"`
	Status  string `json:"status"`
	Value   string `json:"value"`
	Enables string `json:"enables"`
	Fix     string `json:"fix,omitempty"`
}

// Diagnose examines this machine and starts a sandbox on it. Nothing is changed
// and nothing is left behind.
func Diagnose(ctx context.Context) (*Diagnosis, error) {
	h, err := probe(&spec.Sandbox{Toolchain: true}, false)
	if err != nil {
		return nil, err
	}
	if h.facts.Cgroup, err = host.Cgroup(); err != nil {
		return nil, &Error{Stage: StageProbe, Step: -1, Op: "ask", Object: "the kernel", Err: err}
	}
	d := &Diagnosis{Host: h}
	for _, x := range host.Examine(&h.facts) {
		d.Findings = append(d.Findings, Finding{x.Name, string(x.Status), x.Value, x.Enables, x.Fix})
	}
	start := tryStart(ctx, "start", "nucleus run", &spec.Sandbox{Toolchain: true})
	d.Works = start.Status == string(host.OK)
	d.Findings = append(d.Findings, start)
	if dir, err := os.Getwd(); err == nil {
		share := tryStart(ctx, "workspace", "--workspace . (this directory)", &spec.Sandbox{Toolchain: true, Workspace: &spec.Bind{Source: dir}})
		if share.Status == string(host.Missing) && d.Works {
			share.Status = string(host.Weaker)
		}
		d.Findings = append(d.Findings, share)
	}
	return d, nil
}

// tryStart starts and ends a sandbox.
func tryStart(ctx context.Context, name, enables string, s *spec.Sandbox) Finding {
	f := Finding{Name: name, Status: string(host.OK), Enables: enables}
	began := time.Now()
	err := CommandContext(ctx, s, "true").Run()
	if err == nil {
		f.Value = fmt.Sprintf("a sandbox was started and ended in %.1f ms", float64(time.Since(began).Microseconds())/1000)
		return f
	}
	f.Status, f.Value = string(host.Missing), err.Error()
	var e *Error
	if errors.As(err, &e) {
		f.Fix = e.Hint
	}
	return f
}
