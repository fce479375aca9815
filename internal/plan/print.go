package plan

import (
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/nucleus-container/nucleus/internal/abi"
)

// String prints the plan, a step a line: where, call, object, because.
func (p *Plan) String() string {
	var b strings.Builder
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "%-6s %-17s %-62s because %s\n", s.Where, s.Do.Call(), plain(s.Do.String()), plain(s.Because))
	}
	for _, w := range p.Weakened {
		fmt.Fprintf(&b, "weaker %-17s %s\n", w.Feature, plain(w.Why))
	}
	return b.String()
}

// plain is text on one line, quoted if a terminal would do more than show it. An
// attacker would choose names in a rootfs that look like other lines of the plan.
func plain(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) || r == utf8.RuneError }) {
		return strconv.QuoteToASCII(s)
	}
	return s
}

type jsonStep struct {
	Where   Where  `json:"where"`
	Call    string `json:"call"`
	Object  string `json:"object"`
	Because string `json:"because"`
	Args    Action `json:"args"`
}

// MarshalJSON prints the plan as {"steps": [...], "weakened": [...]}.
func (p *Plan) MarshalJSON() ([]byte, error) {
	steps := make([]jsonStep, len(p.Steps))
	for i, s := range p.Steps {
		steps[i] = jsonStep{s.Where, s.Do.Call(), s.Do.String(), s.Because, s.Do}
	}
	return json.Marshal(struct {
		Steps    []jsonStep  `json:"steps"`
		Weakened []Weakening `json:"weakened"`
	}{steps, append([]Weakening{}, p.Weakened...)})
}

// bitNames names the bits of v, lowest first, separated by commas.
func bitNames(v uint64, names []bitName) string {
	var out []string
	for _, n := range names {
		if v&n.bit != 0 {
			out = append(out, n.name)
		}
	}
	return strings.Join(out, ",")
}

type bitName struct {
	bit  uint64
	name string
}

var attrNames = []bitName{
	{abi.MountAttrReadOnly, "ro"}, {abi.MountAttrNoSuid, "nosuid"}, {abi.MountAttrNoDev, "nodev"},
	{abi.MountAttrNoExec, "noexec"}, {abi.MountAttrIDMap, "idmap"},
}

// String prints the attributes as mount(8) does.
func (a Attr) String() string { return bitNames(uint64(a), attrNames) }

var mountFlagNames = []bitName{{abi.MSNoSuid, "nosuid"}, {abi.MSNoDev, "nodev"}, {abi.MSNoExec, "noexec"}}

var cloneFlagNames = []bitName{
	{abi.CloneNewUser, "user"}, {abi.CloneNewPID, "pid"}, {abi.CloneNewNS, "mount"}, {abi.CloneNewNet, "net"},
	{abi.CloneNewUTS, "uts"}, {abi.CloneNewIPC, "ipc"}, {abi.CloneNewCgroup, "cgroup"}, {abi.CloneNewTime, "time"},
}

func (ReserveIDs) Call() string     { return "ids.reserve" }
func (CgroupCreate) Call() string   { return "cgroup.create" }
func (CgroupWrite) Call() string    { return "cgroup.write" }
func (MakeInit) Call() string       { return "memfd_create" }
func (HostTree) Call() string       { return "open_tree" }
func (OwnPipes) Call() string       { return "fchown" }
func (Attest) Call() string         { return "rootfs.verify" }
func (Show) Call() string           { return "open_tree" }
func (Unmount) Call() string        { return "umount2" }
func (CloneInto) Call() string      { return "clone3" }
func (WriteMap) Call() string       { return "write" }
func (DenySetgroups) Call() string  { return "write" }
func (CgroupAdd) Call() string      { return "cgroup.add" }
func (NewSession) Call() string     { return "setsid" }
func (Stdio) Call() string          { return "dup3" }
func (CloseInherited) Call() string { return "close_range" }
func (Private) Call() string        { return "mount" }
func (OpenTree) Call() string       { return "open_tree" }
func (SetAttr) Call() string        { return "mount_setattr" }
func (MoveMount) Call() string      { return "move_mount" }
func (NewMount) Call() string       { return "fsmount" }
func (MountFS) Call() string        { return "mount" }
func (Wait) Call() string           { return "read" }
func (NewCgroupNS) Call() string    { return "unshare" }
func (PivotRoot) Call() string      { return "pivot_root" }
func (Mkdir) Call() string          { return "mkdir" }
func (MakeLink) Call() string       { return "symlink" }
func (Touch) Call() string          { return "mknod" }
func (WriteFile) Call() string      { return "write" }
func (CopyFile) Call() string       { return "write" }
func (Securebits) Call() string     { return "prctl" }
func (SetIDs) Call() string         { return "setresuid" }
func (Hostname) Call() string       { return "sethostname" }
func (LoopbackUp) Call() string     { return "ioctl" }
func (Keyring) Call() string        { return "keyctl" }
func (Rlimit) Call() string         { return "prlimit64" }
func (KeepCaps) Call() string       { return "capset" }
func (DropBounding) Call() string   { return "prctl" }
func (ClearAmbient) Call() string   { return "prctl" }
func (DropCaps) Call() string       { return "capset" }
func (NoNewPrivs) Call() string     { return "prctl" }
func (Landlock) Call() string       { return "landlock" }
func (OpenTerminal) Call() string   { return "open" }
func (Lifeline) Call() string       { return "fcntl" }
func (CgroupJoin) Call() string     { return "cgroup.join" }
func (Deadline) Call() string       { return "setitimer" }
func (JoinNamespaces) Call() string { return "setns" }
func (Umask) Call() string          { return "umask" }
func (Chdir) Call() string          { return "chdir" }
func (Listen) Call() string         { return "seccomp" }
func (Hold) Call() string           { return "read" }
func (ExecInit) Call() string       { return "execveat" }
func (Seccomp) Call() string        { return "seccomp" }
func (Exec) Call() string           { return "execve" }

func (a ReserveIDs) String() string {
	if a.Lasting {
		return fmt.Sprintf("%d ids, kept", a.Count)
	}
	return fmt.Sprintf("%d ids", a.Count)
}
func (CgroupJoin) String() string       { return "the sandbox's" }
func (a Deadline) String() string       { return a.After.String() }
func (a JoinNamespaces) String() string { return bitNames(a.Flags, cloneFlagNames) }
func (a CgroupCreate) String() string   { return strings.Join(a.Controllers, ",") }
func (a CgroupWrite) String() string    { return a.File + "=" + a.Value }
func (a MakeInit) String() string {
	what := "process 1"
	if a.Joined {
		what = "parent of the program"
	}
	if a.Detached {
		what += ", detached"
	}
	return fmt.Sprintf("%s, filter of %d instructions", what, len(a.Filter.Insns))
}
func (a HostTree) String() string {
	s := fmt.Sprintf("%s as %s rec %s", a.Source, a.As, a.Attr)
	if a.IDMap {
		s += fmt.Sprintf(",idmap %d:%d->%d:%d", a.FromUID, a.FromGID, a.ToUID, a.ToGID)
	}
	if a.Count > 1 {
		s += fmt.Sprintf(" and %d more", a.Count-1)
	}
	return s
}
func (a Attest) String() string {
	s := a.Source + " by its manifest"
	if a.Manifest != "" {
		s = a.Source + " by " + a.Manifest
	}
	if a.SHA256 != "" {
		s += " of sha256 " + a.SHA256[:min(len(a.SHA256), 12)]
	}
	return s
}
func (a Show) String() string     { return fmt.Sprintf("%s on %s rec", a.Source, a.Target) }
func (a Unmount) String() string  { return a.Path }
func (a OwnPipes) String() string { return fmt.Sprintf("pipes to %d:%d inside", a.UID, a.GID) }
func (a CloneInto) String() string {
	s := bitNames(a.Flags, cloneFlagNames)
	if a.Cgroup {
		s += " into cgroup"
	}
	if a.Copy {
		s += " with a copy of our memory"
	}
	if s == "" {
		s = "without namespaces"
	}
	return s
}
func (a WriteMap) String() string {
	outside := fmt.Sprint(a.Outside)
	if a.Reserved {
		outside = "reserved"
	}
	return fmt.Sprintf("%s %d %s %d", a.File, a.Inside, outside, a.Count)
}
func (DenySetgroups) String() string  { return "setgroups deny" }
func (a CgroupAdd) String() string    { return strings.Join(a.Controllers, ",") }
func (NewSession) String() string     { return "new session" }
func (a Stdio) String() string        { return fmt.Sprintf("descriptors 0 to %d", 2+a.Extra) }
func (CloseInherited) String() string { return "all other descriptors" }
func (Private) String() string        { return "/ rec,private" }
func (a OpenTree) String() string     { return fmt.Sprintf("%s as %s%s", a.Source, a.As, rec(a.Recursive)) }
func (a SetAttr) String() string {
	return fmt.Sprintf("%s%s %s%s", a.FD, a.Path, a.Attr, rec(a.Recursive))
}
func (a MoveMount) String() string { return fmt.Sprintf("%s on %s", a.From, a.To) }
func (a NewMount) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s as %s %s %s", a.Type, a.As, a.Attr, strings.Join(a.Options, ",")))
}
func (a MountFS) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s on %s %s %s", a.Type, a.Target, bitNames(a.Flags, mountFlagNames), a.Data))
}
func (Wait) String() string        { return "until the gate opens" }
func (NewCgroupNS) String() string { return "cgroup" }
func (a PivotRoot) String() string { return a.Path + ", old root gone" }
func (a Mkdir) String() string     { return fmt.Sprintf("%s %04o", a.Path, a.Mode) }
func (a MakeLink) String() string  { return a.Path + " -> " + a.Target }
func (a Touch) String() string     { return a.Path }
func (a WriteFile) String() string {
	return fmt.Sprintf("%s %04o (%d bytes)", a.Path, a.Mode, len(a.Data))
}
func (a CopyFile) String() string   { return a.Path + " from " + a.Source }
func (Securebits) String() string   { return "noroot,no_setuid_fixup,no_ambient, locked" }
func (a Hostname) String() string   { return a.Name }
func (LoopbackUp) String() string   { return "lo up" }
func (Keyring) String() string      { return "new session keyring" }
func (ClearAmbient) String() string { return "ambient capabilities: none" }
func (NoNewPrivs) String() string   { return "no_new_privs" }
func (OpenTerminal) String() string { return "terminal on the sandbox's devpts" }
func (Lifeline) String() string     { return "ends with its supervisor" }
func (a Umask) String() string      { return fmt.Sprintf("%04o", a.Mask) }
func (a Chdir) String() string      { return a.Dir }
func (ExecInit) String() string     { return "process 1" }
func (a SetIDs) String() string {
	s := fmt.Sprintf("%d:%d", a.UID, a.GID)
	if a.KeepGroups {
		return s + ", supplementary groups kept"
	}
	if a.See {
		return s + ", and the group that sees all processes"
	}
	return s + ", no supplementary groups"
}
func (a Rlimit) String() string {
	if a.Hard == abi.RlimInfinity {
		return a.Name + " unlimited"
	}
	return fmt.Sprintf("%s %d", a.Name, a.Hard)
}
func (a KeepCaps) String() string {
	return fmt.Sprintf("inheritable: %s; ambient: %s", a.Inheritable, a.Ambient)
}
func (a DropBounding) String() string {
	if a.Keep != 0 {
		return fmt.Sprintf("bounding set: of 0 to %d only %s", a.Last, a.Keep)
	}
	return fmt.Sprintf("bounding set: none of 0 to %d", a.Last)
}
func (a DropCaps) String() string {
	if a.Keep|a.Inheritable == 0 {
		return "permitted, effective, inheritable: none"
	}
	return fmt.Sprintf("permitted, effective: %s; inheritable: %s", a.Keep, a.Inheritable)
}
func (a Landlock) String() string {
	s := fmt.Sprintf("ABI %d, %d path rules", a.Rules.ABI, len(a.Rules.Rules))
	if len(a.Rules.Ports) > 0 {
		s += fmt.Sprintf(", %d port rules", len(a.Rules.Ports))
	}
	if a.Narrow {
		s = "narrowed: " + s
	}
	if a.Logged() {
		s += ", refusals logged"
	}
	if a.Log&abi.LandlockRestrictSelfLogSubdomainsOff != 0 {
		s += ", nested domains not logged"
	}
	return s
}
func (a Seccomp) String() string {
	return fmt.Sprintf("%s (%d instructions)", a.Name, len(a.Program.Insns))
}
func (a Listen) String() string {
	return fmt.Sprintf("%s, its refusals seen by the supervisor (%d instructions)", a.Name, len(a.Program.Insns))
}
func (a Hold) String() string {
	if len(a.Mounts) == 0 {
		return "wait until what the kernel enforces was read back"
	}
	return fmt.Sprintf("wait until the kernel has confirmed %d mounts", len(a.Mounts))
}
func (a Exec) String() string {
	if len(a.Paths) == 1 {
		return a.Paths[0]
	}
	return path.Base(a.Paths[0]) + " in PATH"
}

func rec(r bool) string {
	if r {
		return " rec"
	}
	return ""
}
