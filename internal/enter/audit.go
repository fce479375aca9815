package enter

import (
	"errors"
	"strings"

	"github.com/nucleus-container/nucleus/internal/host"
	"github.com/nucleus-container/nucleus/internal/plan"
)

// audit compares what the child, which waits, sees mounted with what the plan
// says. It is our child and has not been waited for, so the pid is still its. It
// has given up its capabilities: nothing can be mounted any more.
func (r *run) audit() error {
	for i, s := range r.req.Plan.Steps {
		hold, ok := s.Do.(plan.Hold)
		if !ok || len(hold.Mounts) == 0 {
			continue
		}
		found, err := host.ReadMounts(r.box.Pid)
		if err == nil {
			if wrong := plan.AuditMounts(hold.Mounts, found, true); len(wrong) > 0 {
				err = errors.New("the kernel does not confirm the mounts: " + strings.Join(wrong, "; "))
			}
		}
		if err != nil {
			return r.failed(i, "", err)
		}
	}
	return nil
}
