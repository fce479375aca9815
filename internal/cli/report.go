package cli

import (
	"encoding/json"
	"errors"
	"os"

	"github.com/nucleus-container/nucleus"
)

// report says on standard error what the kernel enforces on the program.
func report(form string, p *nucleus.Process) {
	r, err := p.Report()
	if errors.Is(err, os.ErrProcessDone) {
		say("nucleus: --report: the program ended before the kernel could be asked about it\n")
		return
	}
	if err != nil {
		say("nucleus: --report: %v\n", err)
		return
	}
	if form != "json" {
		say("%s", r)
		return
	}
	b, err := json.Marshal(r)
	if err != nil {
		say("nucleus: --report: %v\n", err)
		return
	}
	say("%s\n", b)
}
