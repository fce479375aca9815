package learn

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/nucleus-container/nucleus/policy/caps"
)

// capCalls are calls that need a capability whatever their arguments.
var capCalls = [...]struct {
	cap   caps.Cap
	calls string
}{
	{caps.SysAdmin, "mount umount2 pivot_root sethostname setdomainname setns unshare swapon swapoff quotactl quotactl_fd fsopen fsmount move_mount mount_setattr"},
	{caps.SysChroot, "chroot"},
	{caps.SysTime, "settimeofday clock_settime adjtimex clock_adjtime"},
	{caps.SysModule, "init_module finit_module delete_module"},
	{caps.SysBoot, "reboot kexec_load kexec_file_load"},
	{caps.SysRawio, "iopl ioperm"},
	{caps.SysPacct, "acct"},
	{caps.SysTTYConfig, "vhangup"},
	{caps.Syslog, "syslog"},
	{caps.BPF, "bpf"},
	{caps.Perfmon, "perf_event_open"},
	{caps.DACReadSearch, "open_by_handle_at"},
	{caps.Setgid, "setgroups"},
}

// nobody is the id that means no change, to calls that change owners.
const nobody = 1<<32 - 1

// infer notes the capability that a call needs if it is to succeed.
func (r *Record) infer(c *Call, e Evidence) {
	need := func(which caps.Cap) { r.needs(Cap{which, c.Name, e}) }
	for _, row := range capCalls {
		if slices.Contains(strings.Fields(row.calls), c.Name) {
			need(row.cap)
		}
	}
	word := func(i int) uint64 {
		if i < len(c.Words) {
			return c.Words[i]
		}
		return 0
	}
	others := func(own uint32, from, to int) bool {
		for i := from; i < to; i++ {
			if v := word(i); v != nobody && v != uint64(own) {
				return true
			}
		}
		return false
	}
	switch c.Name {
	case "chown", "fchown", "lchown", "fchownat":
		if others(r.UID, 0, 1) || others(r.GID, 1, 2) {
			need(caps.Chown)
		}
	case "setuid", "setfsuid", "setreuid", "setresuid":
		if others(r.UID, 0, idsOf(c.Name)) {
			need(caps.Setuid)
		}
	case "setgid", "setfsgid", "setregid", "setresgid":
		if others(r.GID, 0, idsOf(c.Name)) {
			need(caps.Setgid)
		}
	case "mknod", "mknodat":
		if kind := word(0); kind == 0x2000 || kind == 0x6000 { // character, block
			need(caps.Mknod)
		}
	case "socket":
		const packet, raw = 17, 3
		if word(0) == packet || word(1) == raw {
			need(caps.NetRaw)
		}
	case "bind":
		if a, err := netip.ParseAddrPort(c.Addr); err == nil && a.Port() > 0 && a.Port() < 1024 {
			need(caps.NetBindService)
		}
	}
}

// idsOf is how many ids a call takes.
func idsOf(name string) int {
	switch {
	case strings.HasPrefix(name, "setres"):
		return 3
	case strings.HasPrefix(name, "setre"):
		return 2
	}
	return 1
}

func (r *Record) needs(c Cap) {
	if i, isNew := r.at(len(r.Caps), "cap", c.Cap.String(), c.Call); !isNew {
		r.Caps[i].add(c.Evidence)
		return
	}
	r.Caps = append(r.Caps, c)
}
