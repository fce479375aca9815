package caps

import "fmt"

// dangers says what each dangerous capability gives away. Inside a user namespace
// most of these reach only the namespace's own objects, and still open kernel code
// that is otherwise closed; with the host's user namespace they are the host's.
var dangers = [...]struct {
	cap Cap
	why string
}{
	{DACOverride, "reads and writes every file whose owner the sandbox can name, whatever its mode"},
	{DACReadSearch, "reads every such file and opens files by handle, outside the root too (open_by_handle_at)"},
	{Fowner, "changes modes and attributes of files of other owners"},
	{Setgid, "takes any group of the user namespace"},
	{Setuid, "takes any user of the user namespace"},
	{LinuxImmutable, "lifts the immutable and append-only flags that protect logs"},
	{NetAdmin, "configures networks and reaches nf_tables and traffic control (CVE-2024-1086)"},
	{NetRaw, "forges packets and reaches packet sockets (CVE-2020-14386)"},
	{SysModule, "loads code into the kernel"},
	{SysRawio, "writes to I/O ports and devices below the file system"},
	{SysPtrace, "reads and writes the memory of processes of other users"},
	{SysPacct, "switches process accounting"},
	{SysAdmin, "mounts, and a hundred other things"},
	{SysBoot, "reboots, and loads another kernel"},
	{Mknod, "makes device nodes, each a way to a driver"},
	{Setfcap, "gives capabilities to files"},
	{MACOverride, "goes past mandatory access control"},
	{MACAdmin, "changes mandatory access control"},
	{Syslog, "reads the kernel's log and its addresses"},
	{Perfmon, "counts and samples events of the whole kernel"},
	{BPF, "loads programs into the kernel"},
	{CheckpointRestore, "chooses pids and follows other processes' map_files"},
}

// Dangerous returns the capabilities with which a process can leave a sandbox or
// reach kernel code that has often been exploited. A careful caller refuses them
// or asks for them by name.
func Dangerous() Set {
	var s Set
	for _, d := range dangers {
		s = s.With(d.cap)
	}
	return s
}

// Explain says in a sentence what keeping c gives away.
func Explain(c Cap) string {
	for _, d := range dangers {
		if d.cap == c {
			return fmt.Sprintf("%s is dangerous: it %s", c, d.why)
		}
	}
	return fmt.Sprintf("%s is not on the list of dangerous capabilities", c)
}
