package cli

import (
	"encoding/json"

	"github.com/nucleus-container/nucleus"
)

// report says on standard error what the kernel enforces on the program.
func report(form string, p *nucleus.Process) {
	r, err := p.Report()
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
