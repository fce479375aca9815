package denial

import (
	"cmp"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/landlock"
)

// Blocked is what Landlock refused, in the words of the kernel's audit log.
type Blocked struct {
	Blockers []string // fs.write_file, net.connect_tcp, scope.signal, ptrace, ...
	Path     string   // of the file; of the directory for what is made or removed
	Port     int      // of a network right; -1: none
	Pid      int      // 0: not told
	Process  string
	Time     time.Time
	Count    int
}

// LandlockTells says that the kernel reports what Landlock refuses, all of it:
// nothing about it need be inferred.
func (j *Judge) LandlockTells() { j.told = true }

// A right is how people say what needs one of Landlock's rights.
type right struct {
	name   string // the kernel's
	what   string
	access landlock.Access
	net    landlock.NetAccess
}

func rights() []right {
	return []right{
		{"fs.execute", "execute", landlock.Execute, 0},
		{"fs.write_file", "write", landlock.WriteFile, 0},
		{"fs.truncate", "cut", landlock.Truncate, 0},
		{"fs.read_file", "read", landlock.ReadFile, 0},
		{"fs.read_dir", "list", landlock.ReadDir, 0},
		{"fs.make_reg", "make a file in", landlock.MakeReg, 0},
		{"fs.make_dir", "make a directory in", landlock.MakeDir, 0},
		{"fs.make_sym", "make a symbolic link in", landlock.MakeSym, 0},
		{"fs.make_sock", "make a socket in", landlock.MakeSock, 0},
		{"fs.make_fifo", "make a named pipe in", landlock.MakeFifo, 0},
		{"fs.make_char", "make a device in", landlock.MakeChar, 0},
		{"fs.make_block", "make a device in", landlock.MakeBlock, 0},
		{"fs.remove_file", "remove a file from", landlock.RemoveFile, 0},
		{"fs.remove_dir", "remove a directory from", landlock.RemoveDir, 0},
		{"fs.refer", "move something into or out of", landlock.Refer, 0},
		{"fs.ioctl_dev", "control the device", landlock.IoctlDev, 0},
		{"fs.resolve_unix", "connect to the socket", landlock.ResolveUnix, 0},
		{"fs.change_topology", "mount or unmount", 0, 0},
		{"net.bind_tcp", "take the TCP port", 0, landlock.BindTCP},
		{"net.connect_tcp", "connect to the TCP port", 0, landlock.ConnectTCP},
		{"net.bind_udp", "take the UDP port", 0, landlock.BindUDP},
		{"net.connect_send_udp", "send to the UDP port", 0, landlock.ConnectSendUDP},
		{"scope.signal", "signal a process that is not in the sandbox", 0, 0},
		{"scope.abstract_unix_socket", "connect to an abstract socket that is not in the sandbox", 0, 0},
		{"ptrace", "look into a process that it did not start", 0, 0},
	}
}

// Blocked judges what the kernel says that Landlock refused.
func (j *Judge) Blocked(b Blocked) {
	d := Denial{Time: b.Time, Process: b.Process, Pid: b.Pid, Count: b.Count, Layer: Landlock, Errno: "EACCES", Object: b.Path}
	var need landlock.Access
	var net landlock.NetAccess
	for _, r := range rights() {
		for _, name := range b.Blockers {
			if name == r.name {
				need, net = need|r.access, net|r.net
				if d.What == "" {
					d.What = r.what
				}
			}
		}
	}
	switch {
	case d.What == "": // a newer kernel's
		d.What, d.Rule = "do what needs "+Clean(strings.Join(b.Blockers, ", ")), "a Landlock rule refuses it"
	case net != 0:
		d.Object = ""
		if b.Port >= 0 {
			d.Object = strconv.Itoa(b.Port)
		}
		j.lacksPort(&d, net, d.Object)
	case need != 0:
		j.blockedFile(&d, need, b.Path)
	default:
		d.Errno, d.Rule = "EPERM", "a Landlock domain ends at what it restricts"
		d.Otherwise = "no flag changes it: a sandbox reaches nothing outside of itself"
	}
	d.Say = "The sandbox's policy forbids this here; use another place that the guide " + plan.GuidePath + " names."
	if need == 0 {
		d.Say = "The sandbox's policy forbids this; the guide " + plan.GuidePath + " says what is possible."
	}
	j.add(d)
}

// lacksPort says that the policy's rules do not allow something with a port.
func (j *Judge) lacksPort(d *Denial, net landlock.NetAccess, port string) {
	d.Rule = "the policy's Landlock rules do not allow " + net.String() + " for it"
	d.Allow = j.table("ports") + ": { port = " + cmp.Or(port, "PORT") + ", access = " + list(net.String()) + " }"
}

// port explains a port that a Landlock rule forbids, which is asked before all else.
func (j *Judge) port(d Denial, net landlock.NetAccess, at netip.AddrPort) (Denial, bool) {
	for _, l := range j.layers {
		allows := func(r landlock.PortRule) bool { return r.Port == at.Port() && r.Allow&net != 0 }
		if j.told || l.Rules.HandleNet&net == 0 || slices.ContainsFunc(l.Rules.Ports, allows) {
			continue
		}
		d.Layer, d.Inferred, d.Errno, d.Object = Landlock, true, "EACCES", at.String()
		d.What = "connect to"
		if net&landlock.BindTCP != 0 {
			d.What = "listen on"
		}
		j.lacksPort(&d, net, strconv.Itoa(int(at.Port())))
		d.Say = "The sandbox's policy forbids this; the guide " + plan.GuidePath + " says what is possible."
		return d, true
	}
	return d, false
}

// blockedFile says which layer's rules lack a right over a path.
func (j *Judge) blockedFile(d *Denial, need landlock.Access, at string) {
	for _, l := range j.layers {
		if missing := need & l.Rules.HandleFS &^ allowed(l.Rules, at); missing != 0 {
			below := at // of what is made or removed the kernel names the directory
			if missing&landlock.FileRights != 0 {
				below = path.Dir(at)
			}
			j.lacks(d, l, lack{missing, below})
			return
		}
	}
	d.Rule = "Landlock does not allow " + need.String() + " there" // to what no name leads any more
}

// Need is what a call needs over one of its paths, as Landlock counts it.
type Need struct {
	Path   string // where it leads to; empty: nothing is needed
	Dir    bool   // a directory is there
	Access landlock.Access
}

// A lack is what no rule allows, which one for a directory would.
type lack struct {
	missing landlock.Access
	below   string
}

// lack is what a layer's rules do not allow of a need.
func (n Need) lack(l landlock.Ruleset) lack {
	const own = landlock.FileRights | landlock.ReadDir // over it; the others are over the directory that it is in
	dir := path.Dir(n.Path)
	missing := n.Access & l.HandleFS & (own&^allowed(l, n.Path) | ^own&^allowed(l, dir))
	if n.Dir && missing&^own == 0 {
		dir = n.Path
	}
	return lack{missing, dir}
}

// ruled explains what only a Landlock rule forbids: the mount would allow it.
func (j *Judge) ruled(d Denial, c Call) (Denial, bool) {
	for _, l := range j.layers {
		var all []lack
		for _, n := range c.Needs {
			k := n.lack(l.Rules)
			switch {
			case k.missing == 0 || n.Path == "" || j.told:
			case len(all) > 0 && all[0].below == k.below:
				all[0].missing |= k.missing
			default:
				all = append(all, k)
			}
		}
		if len(all) == 0 {
			continue
		}
		d.Layer, d.Errno, d.Inferred = Landlock, "EACCES", true
		j.lacks(&d, l, all...)
		d.Say = "The sandbox's policy forbids this here; use another place that the guide " + plan.GuidePath + " names."
		return d, true
	}
	return d, false
}

// lacks says that a layer's rules do not allow something.
func (j *Judge) lacks(d *Denial, l plan.Landlock, all ...lack) {
	var what, rules []string
	for _, k := range all {
		in := " there"
		if len(all) > 1 {
			in = " in " + Clean(k.below)
		}
		what = append(what, k.missing.String()+in)
		if Clean(k.below) == k.below { // what needs no escape is the same in TOML
			rules = append(rules, "{ path = "+strconv.Quote(k.below)+", access = "+list(k.missing.String())+" }")
		}
	}
	if !l.Narrow {
		d.Rule = "no Landlock rule allows " + strings.Join(what, " and ")
		d.Otherwise = "no flag changes the sandbox's own rules about this place"
		return
	}
	// The policy's own rules are stacked on those of the mounts.
	d.Rule = "the policy's Landlock rules do not allow " + strings.Join(what, " and ")
	if len(rules) == len(all) {
		d.Allow = j.table("rules") + ": " + strings.Join(rules, " and ")
	}
}

// table names a table of the rules in the file that has them.
func (j *Judge) table(name string) string {
	var sources []policy.Source
	if j.spec.Policy != nil {
		sources = j.spec.Policy.Sources
	}
	for _, s := range sources {
		if s.Kind == policy.KindLandlock {
			return "in " + Clean(s.Path) + ", [[" + name + "]]"
		}
	}
	return "in the policy, [[landlock." + name + "]]"
}

// list writes words as TOML does.
func list(words string) string {
	return `["` + strings.ReplaceAll(words, ",", `", "`) + `"]`
}
