package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/unit"
	"github.com/nucleus-container/nucleus/spec"
)

// generateCommands are the commands in this file.
var generateCommands = []*command{&generateCommand}

var generateCommand = command{
	name:  "generate",
	args:  "systemd SANDBOX|FILE",
	words: "systemd",
	short: "Write a systemd unit that runs a sandbox",
	long: `Prints a unit of systemd that runs a sandbox like the given one, hardened as far
as making sandboxes allows: for the system's manager as root, for your own
otherwise. The sandbox is one that nucleus knows, or a file with what nucleus
inspect prints of one. The unit contains the whole command line, to be read and
changed; restarting is systemd's.` + references,
	examples: [][2]string{
		{"nucleus generate systemd web > /etc/systemd/system/web.service", "as root"},
		{"nucleus generate systemd web > ~/.config/systemd/user/web.service", "as yourself"},
		{"nucleus inspect web > web.json; nucleus generate systemd web.json", "from a file"},
	},
	flags: [][]flag{helpFlags},
	run:   generate,
}

// generate is `nucleus generate`.
func generate(c *call) int {
	if len(c.args) != 2 || c.args[0] != "systemd" {
		return fail(c.cmd, usageError("it is `nucleus generate systemd SANDBOX|FILE`; systemd is all that is known"))
	}
	i, err := described(c.args[1])
	if err != nil {
		return failVerb(c.cmd, err)
	}
	text, err := unitOf(i)
	if err != nil {
		return failVerb(c.cmd, err)
	}
	_, _ = io.WriteString(os.Stdout, text) // nowhere is left to say that this failed
	return exitOK
}

// description is what a unit is made from: a part of what inspect prints.
type description struct {
	Name    string            `json:"name"`
	Command []string          `json:"command"`
	Sandbox spec.Sandbox      `json:"sandbox"`
	Service spec.Service      `json:"service"`
	Labels  map[string]string `json:"labels"`
}

// described reads the description of a sandbox: a file's if there is one of that
// name with a slash or .json in it, else that of a sandbox that is known.
func described(ref string) (d description, err error) {
	if !strings.Contains(ref, "/") && !strings.HasSuffix(ref, ".json") {
		s, err := openStore()
		if err != nil {
			return d, err
		}
		b, err := s.Sandbox(ref)
		if err != nil {
			return d, err
		}
		i, err := b.Info(context.Background())
		return description{Name: i.Name, Command: i.Command, Sandbox: i.Sandbox, Service: i.Service, Labels: i.Labels}, err
	}
	const most = 1 << 20
	f, err := os.Open(ref)
	if err != nil {
		return d, usageError(err.Error())
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return d, err
	}
	list := []description{{}}
	if b = bytes.TrimSpace(b); len(b) > 0 && b[0] == '[' { // what inspect prints
		list = nil
		err = json.Unmarshal(b, &list)
	} else {
		err = json.Unmarshal(b, &list[0])
	}
	if err != nil {
		return d, usageError(fmt.Sprintf("%s is not what nucleus inspect prints: %v", quote(ref), err))
	}
	if len(list) != 1 {
		return d, usageError(fmt.Sprintf("%s describes %d sandboxes, want one", quote(ref), len(list)))
	}
	d = list[0]
	if len(d.Command) == 0 || d.Command[0] == "" {
		return d, usageError(quote(ref) + " names no program")
	}
	return d, nucleus.Invalid(errors.Join(d.Sandbox.Validate(), d.Service.Validate()))
}

// unitOf writes the unit.
func unitOf(d description) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if d.Sandbox.Terminal {
		return "", errors.New("a sandbox with a terminal is not for systemd to run")
	}
	if d.Service.IdleTimeout != 0 {
		return "", errors.New("--idle-timeout needs --detach, and a unit has none: systemd waits for the program; leave it out")
	}
	service := d.Service
	if service.OnUnhealthy == spec.UnhealthyRestart {
		service.OnUnhealthy = spec.UnhealthyKill // who starts it again is systemd
	}
	service.Restart, service.Remove, service.Systemd, service.Log = spec.Restart{}, false, false, spec.Log{} // systemd's business here
	d.Sandbox.Name = d.Name
	flags, err := flagsOf(d.Sandbox, service, d.Labels)
	if err != nil {
		return "", err
	}
	args := slices.Concat([]string{"run"}, flags, []string{"--"}, d.Command)
	o := unit.Options{Name: d.Name, Program: self, Args: args, User: os.Geteuid() != 0, Service: d.Service}
	o.Service.Notify = d.Service.Notify || d.Service.Ready != nil
	for _, v := range d.Sandbox.Volumes {
		if v.Writable && systemDir(v.Source) {
			o.Writable = append(o.Writable, v.Source)
		}
	}
	if w := d.Sandbox.Workspace; w != nil && systemDir(w.Source) {
		o.Writable = append(o.Writable, w.Source)
	}
	return unit.Service(o)
}

// systemDir reports whether a path is below what ProtectSystem=full protects.
func systemDir(path string) bool {
	for _, dir := range []string{"/usr/", "/boot/", "/efi/", "/etc/"} {
		if strings.HasPrefix(path, dir) {
			return true
		}
	}
	return false
}
