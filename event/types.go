package event

// The types of events. The comment of each is its description in docs/EVENTS.md,
// by way of Types; the tag doc describes a field.
type (
	// Created begins a sandbox's life.
	Created struct {
		Command   Command `json:"command" doc:"what will run"`
		Env       Names   `json:"env" doc:"names of the environment variables that were given; never a value"`
		Workspace string  `json:"workspace,omitempty" doc:"the host directory that is shared read-write"`
		Detached  bool    `json:"detached,omitempty" doc:"it outlives the program that started it"`
		Mode      string  `json:"mode" doc:"agent, strict-agent or production: what must hold for it to start"`
		Rootfs    string  `json:"rootfs,omitempty" doc:"the host directory that is its root, read-only"`
		Attested  bool    `json:"attested,omitempty" doc:"that is compared with its manifest before anything starts"`
	}
	// PolicyLoaded names a file that the policy was read from.
	PolicyLoaded struct {
		Policy string `json:"policy" doc:"policy, seccomp, caps, landlock or profile"`
		Path   string `json:"path" doc:"where it was read from, or the name of a built-in profile"`
		SHA256 string `json:"sha256" doc:"of the file's content, as it was used"`
		Pinned bool   `json:"pinned" doc:"the caller had said this digest beforehand"`
	}
	// NotStarted ends the life of a sandbox whose program never ran.
	NotStarted struct {
		Stage string `json:"stage,omitempty" doc:"validate, probe, resolve, mode, plan, enter or supervise"`
		Step  string `json:"step,omitempty" doc:"the kernel call that failed, and its object"`
		Error string `json:"error" doc:"what went wrong"`
	}
	// Namespaces tells which namespaces the sandbox has for itself.
	Namespaces struct {
		Own      map[string]string `json:"own" doc:"type to identity, as /proc/PID/ns has it"`
		Shared   []string          `json:"shared,omitempty" doc:"types that it shares with the host"`
		Evidence Evidence          `json:"evidence" doc:"where this is known from"`
	}
	// Identity tells who the sandbox is for the host.
	Identity struct {
		UID      string   `json:"uid" doc:"real, effective, saved and file system user id on the host"`
		GID      string   `json:"gid" doc:"the same for the group"`
		UIDMap   string   `json:"uid_map" doc:"inside, outside, count"`
		Evidence Evidence `json:"evidence" doc:"where this is known from"`
	}
	// Cgroup tells which limits are written in the sandbox's control group.
	Cgroup struct {
		Limits   map[string]string `json:"limits" doc:"file to value, as the kernel gives it back"`
		Evidence Evidence          `json:"evidence" doc:"where this is known from"`
	}
	// RootSwitched tells that the host's file tree is gone.
	RootSwitched struct {
		FS       string   `json:"fs" doc:"type of the new root"`
		ReadOnly bool     `json:"read_only" doc:"nobody inside can change it"`
		Evidence Evidence `json:"evidence" doc:"where this is known from"`
	}
	// Mounted tells of one mount of the sandbox.
	Mounted struct {
		Target   string   `json:"target" doc:"where, inside"`
		FS       string   `json:"fs" doc:"type of the file system"`
		Options  string   `json:"options" doc:"of the mount, as the kernel has them"`
		Evidence Evidence `json:"evidence" doc:"where this is known from"`
	}
	// MountAudit compares all mounts, submounts too, with the plan.
	MountAudit struct {
		Passed   bool     `json:"passed" doc:"false: the program was not started"`
		Mounts   int      `json:"mounts" doc:"how many were looked at"`
		Writable []string `json:"writable" doc:"where something can be written"`
		Wrong    []string `json:"wrong,omitempty" doc:"what the kernel does not confirm, about mounts or anything else of the plan"`
		Evidence Evidence `json:"evidence" doc:"where this is known from"`
	}
	// Network tells what of a network there is.
	Network struct {
		Devices  []string `json:"devices" doc:"network devices in the sandbox's network namespace"`
		Evidence Evidence `json:"evidence" doc:"where this is known from"`
	}
	// Capabilities tells what is in the five sets.
	Capabilities struct {
		Inheritable string   `json:"inheritable" doc:"the set in hexadecimal"`
		Permitted   string   `json:"permitted" doc:"the same"`
		Effective   string   `json:"effective" doc:"the same"`
		Bounding    string   `json:"bounding" doc:"the same"`
		Ambient     string   `json:"ambient" doc:"the same"`
		Evidence    Evidence `json:"evidence" doc:"where this is known from"`
	}
	// NoNewPrivs tells that executing a program cannot gain privileges.
	NoNewPrivs struct {
		Set      bool     `json:"set" doc:"the flag, as the kernel has it"`
		Evidence Evidence `json:"evidence" doc:"where this is known from"`
	}
	// Landlock tells which rules about files the kernel took.
	Landlock struct {
		ABI      int      `json:"abi" doc:"version of the kernel's interface that was used"`
		Rules    int      `json:"rules" doc:"rules about paths"`
		Evidence Evidence `json:"evidence" doc:"where this is known from"`
	}
	// Seccomp tells which filter of system calls is in force on the program.
	Seccomp struct {
		Policy       string   `json:"policy" doc:"the policy's name"`
		SHA256       string   `json:"sha256" doc:"of the compiled filter: its instructions as the kernel takes them, in little-endian order"`
		Instructions int      `json:"instructions" doc:"of the filter"`
		Mode         int      `json:"mode,omitempty" doc:"2: filter mode, as read back"`
		Filters      int      `json:"filters,omitempty" doc:"how many filters are in force, as read back"`
		Evidence     Evidence `json:"evidence" doc:"where this is known from; accepted: the program had ended before it could be asked, but process 1 reports no start without the filter"`
	}
	// Weakened tells of something that this machine could not enforce, or that the caller gave up.
	Weakened struct {
		Feature string `json:"feature" doc:"what"`
		Why     string `json:"why" doc:"why"`
	}
	// Started tells that the program was executed.
	Started struct {
		Pid     int     `json:"pid" doc:"of process 1, on the host"`
		Seconds float64 `json:"seconds" doc:"how long the start took"`
	}
	// Ready tells that the program said it was ready, or answered.
	Ready struct{}
	// Health tells that the answer to the health check changed.
	Health struct {
		State  string `json:"state" doc:"healthy or unhealthy"`
		Detail string `json:"detail,omitempty" doc:"the last answer"`
	}
	// HookFailed tells of a hook that failed.
	HookFailed struct {
		Phase string `json:"phase" doc:"of the life"`
		Error string `json:"error" doc:"what went wrong"`
	}
	// ExecStarted tells that another program was run in the sandbox.
	ExecStarted struct {
		Command Command `json:"command" doc:"what runs"`
	}
	// ExecEnded tells how that program ended. A detached one tells nobody.
	ExecEnded struct {
		Program string  `json:"program" doc:"which"`
		Reason  string  `json:"reason" doc:"exited, signaled, out of memory or deadline exceeded"`
		Code    int     `json:"code" doc:"the exit code, or 128 and the signal"`
		Seconds float64 `json:"seconds" doc:"how long it lived"`
	}
	// SignalForwarded tells of a signal that was passed on to the program.
	SignalForwarded struct {
		Signal string `json:"signal" doc:"such as TERM"`
	}
	// SignalSent tells of a signal by nucleus kill or its like.
	SignalSent struct {
		Signal string `json:"signal" doc:"such as KILL"`
		Reason string `json:"reason,omitempty" doc:"such as unhealthy"`
	}
	// StopRequested tells that the program was asked to end.
	StopRequested struct {
		Reason string `json:"reason,omitempty" doc:"who asked, if it was not a person"`
	}
	// Paused tells that every process stands still.
	Paused struct{}
	// Unpaused tells that they go on.
	Unpaused struct{}
	// Updated tells that limits were changed.
	Updated struct{}
	// Renamed tells that it has another name; the record has the new one.
	Renamed struct {
		Old string `json:"old" doc:"what it was called"`
	}
	// Copied tells of files that nucleus cp brought in or out.
	Copied struct {
		Direction string `json:"direction" doc:"in or out"`
		Path      string `json:"path" doc:"inside the sandbox"`
	}
	// Restarting tells that the program will be started again.
	Restarting struct {
		After string `json:"after,omitempty" doc:"the pause before"`
	}
	// Denial tells of something that the policy refused.
	Denial struct {
		Source   string `json:"source" doc:"the layer that refused it: seccomp, landlock, mount, missing, capability, memory, pids, network or time"`
		What     string `json:"what" doc:"what was tried, and on what"`
		Last     string `json:"last,omitempty" doc:"when it was tried last, RFC 3339; all denials are told at the end"`
		Process  string `json:"process,omitempty" doc:"name of the process that tried"`
		Pid      int    `json:"pid,omitempty" doc:"its number on the host"`
		Errno    string `json:"errno,omitempty" doc:"what it was told"`
		Rule     string `json:"rule,omitempty" doc:"what refused it"`
		Allow    string `json:"allow,omitempty" doc:"the flag or policy line that would allow it"`
		Count    int    `json:"count,omitempty" doc:"how often, if more than once"`
		Say      string `json:"say,omitempty" doc:"a sentence for a model inside"`
		Inferred bool   `json:"inferred,omitempty" doc:"the kernel cannot tell: it follows from what it says of the object, or of the end"`
	}
	// OutOfMemory tells that the kernel ended a process at the memory limit.
	OutOfMemory struct {
		Kills uint64 `json:"kills,omitempty" doc:"processes that were killed"`
	}
	// TimedOut tells that the timeout ended it.
	TimedOut struct {
		Timeout string `json:"timeout" doc:"the limit"`
	}
	// Ended ends a run.
	Ended struct {
		Reason  string  `json:"reason" doc:"exited, signaled, out of memory or deadline exceeded"`
		Code    int     `json:"code" doc:"the exit code, or 128 and the signal that ended the program; nucleus run exits with 124 instead when that was the timeout"`
		Signal  string  `json:"signal,omitempty" doc:"the signal that ended the program"`
		Detail  string  `json:"detail,omitempty" doc:"more about the reason"`
		Seconds float64 `json:"seconds" doc:"how long it lived; 0: unknown"`
		Usage   *Usage  `json:"usage,omitempty" doc:"what it used; absent: nobody was there to measure"`
	}
	// Usage is what a sandbox used, all its processes together.
	Usage struct {
		UserSeconds   float64 `json:"user_seconds" doc:"processor time in programs"`
		SystemSeconds float64 `json:"system_seconds" doc:"processor time in the kernel"`
		MaxRSS        int64   `json:"max_rss" doc:"bytes of the largest process"`
		MemoryPeak    uint64  `json:"memory_peak,omitempty" doc:"bytes of the control group at most; read before the group is removed"`
		OOMKills      uint64  `json:"oom_kills,omitempty" doc:"processes that the memory limit killed"`
		PidsDenied    uint64  `json:"pids_denied,omitempty" doc:"forks that the limit on tasks refused"`
		ReadBytes     uint64  `json:"read_bytes,omitempty" doc:"from block devices"`
		WriteBytes    uint64  `json:"write_bytes,omitempty" doc:"to block devices"`
	}
	// Removed tells that the sandbox is forgotten.
	Removed struct{}
	// LogTorn is written by whoever finds that a record before it is not whole.
	LogTorn struct {
		Bytes  int    `json:"bytes" doc:"length of what was found"`
		SHA256 string `json:"sha256" doc:"of what was found"`
	}
	// LogHead names the audit log's last record: kept elsewhere, it shows a log that was cut or replaced.
	LogHead struct {
		Path string `json:"path" doc:"of the log"`
		Seq  uint64 `json:"head_seq" doc:"number of its last record"`
		Hash string `json:"head" doc:"hash of its last record"`
	}
	// Dropped tells that a stream's reader was too slow.
	Dropped struct {
		Events uint64 `json:"events" doc:"how many were not written"`
	}
)
