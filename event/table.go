package event

// Type describes one type of event.
type Type struct {
	Kind string
	Doc  string
	From string // who writes it, for people
	Body Body   // a zero value, for its fields
}

// Types are all types of events, in the order of a life.
func Types() []Type {
	const (
		both   = "nucleus run, and detached sandboxes"
		run    = "nucleus run without --detach"
		store  = "sandboxes that other commands can find: detached ones"
		log    = "the audit log itself"
		stream = "the stream itself"
	)
	return []Type{
		{"sandbox_created", "A sandbox's life begins: it has been described and planned.", both, Created{}},
		{"policy_loaded", "A policy file or a built-in profile is part of the policy.", both, PolicyLoaded{}},
		{"namespaces_created", "The namespaces that the sandbox has for itself.", both, Namespaces{}},
		{"identity_mapped", "Who the sandbox's processes are for the host.", both, Identity{}},
		{"cgroup_created", "The limits in the sandbox's control group. Absent without one.", both, Cgroup{}},
		{"root_switched", "The host's file tree is gone; this is the new root.", both, RootSwitched{}},
		{"filesystem_mounted", "One mount of the sandbox. There is an event for each, submounts too.", both, Mounted{}},
		{"mount_audit", "Everything that the kernel says was compared with the plan, before the program could run.", both, MountAudit{}},
		{"network_isolated", "The network devices that the sandbox has.", both, Network{}},
		{"capabilities_dropped", "What is in the five sets of capabilities.", both, Capabilities{}},
		{"no_new_privs_set", "Executing a program cannot gain privileges.", both, NoNewPrivs{}},
		{"landlock_applied", "The kernel took rules about files. Absent without Landlock; then there is a weakened.", both, Landlock{}},
		{"weakened", "Something could not be enforced on this machine, or was given up on request.", both, Weakened{}},
		{"sandbox_not_started", "The program never ran, and nothing is left.", both, NotStarted{}},
		{"seccomp_applied", "The filter of system calls on the program.", both, Seccomp{}},
		{"sandbox_started", "The program was executed.", both, Started{}},
		{"sandbox_ready", "The program is ready, as it said or as it answered.", store, Ready{}},
		{"health_changed", "The health check has another answer.", store, Health{}},
		{"hook_failed", "A hook failed.", store, HookFailed{}},
		{"exec_started", "Another program was run in the sandbox.", store, ExecStarted{}},
		{"exec_ended", "Such a program has ended.", store, ExecEnded{}},
		{"signal_forwarded", "A signal was passed on to the program.", run, SignalForwarded{}},
		{"signal_sent", "Somebody sent the program a signal.", store, SignalSent{}},
		{"stop_requested", "The program was asked to end.", store, StopRequested{}},
		{"sandbox_paused", "Every process stands still.", store, Paused{}},
		{"sandbox_unpaused", "The processes go on.", store, Unpaused{}},
		{"sandbox_updated", "Limits were changed.", store, Updated{}},
		{"sandbox_renamed", "The sandbox has another name.", store, Renamed{}},
		{"files_copied", "Files are copied in or out.", store, Copied{}},
		{"sandbox_restarting", "The program will be started again.", store, Restarting{}},
		{"denial", "The policy refused something.", both, Denial{}},
		{"out_of_memory", "The memory limit was reached and the kernel ended a process.", both, OutOfMemory{}},
		{"timed_out", "The timeout ended the sandbox.", both, TimedOut{}},
		{"sandbox_ended", "The run is over, with all its processes.", both, Ended{}},
		{"sandbox_removed", "The sandbox is forgotten.", store, Removed{}},
		{"log_torn", "In an audit log: the line before is not a whole record. Its writer was killed, or somebody cut it.", log, LogTorn{}},
		{"audit_head", "On a stream: the audit log's last record after the run.", stream, LogHead{}},
		{"events_dropped", "On a stream: the reader was too slow, and so many events before this one are missing.", stream, Dropped{}},
	}
}

// Kind is sandbox_created.
func (Created) Kind() string { return "sandbox_created" }

// Kind is policy_loaded.
func (PolicyLoaded) Kind() string { return "policy_loaded" }

// Kind is namespaces_created.
func (Namespaces) Kind() string { return "namespaces_created" }

// Kind is identity_mapped.
func (Identity) Kind() string { return "identity_mapped" }

// Kind is cgroup_created.
func (Cgroup) Kind() string { return "cgroup_created" }

// Kind is root_switched.
func (RootSwitched) Kind() string { return "root_switched" }

// Kind is filesystem_mounted.
func (Mounted) Kind() string { return "filesystem_mounted" }

// Kind is mount_audit.
func (MountAudit) Kind() string { return "mount_audit" }

// Kind is network_isolated.
func (Network) Kind() string { return "network_isolated" }

// Kind is capabilities_dropped.
func (Capabilities) Kind() string { return "capabilities_dropped" }

// Kind is no_new_privs_set.
func (NoNewPrivs) Kind() string { return "no_new_privs_set" }

// Kind is landlock_applied.
func (Landlock) Kind() string { return "landlock_applied" }

// Kind is weakened.
func (Weakened) Kind() string { return "weakened" }

// Kind is sandbox_not_started.
func (NotStarted) Kind() string { return "sandbox_not_started" }

// Kind is seccomp_applied.
func (Seccomp) Kind() string { return "seccomp_applied" }

// Kind is sandbox_started.
func (Started) Kind() string { return "sandbox_started" }

// Kind is sandbox_ready.
func (Ready) Kind() string { return "sandbox_ready" }

// Kind is health_changed.
func (Health) Kind() string { return "health_changed" }

// Kind is hook_failed.
func (HookFailed) Kind() string { return "hook_failed" }

// Kind is exec_started.
func (ExecStarted) Kind() string { return "exec_started" }

// Kind is exec_ended.
func (ExecEnded) Kind() string { return "exec_ended" }

// Kind is signal_forwarded.
func (SignalForwarded) Kind() string { return "signal_forwarded" }

// Kind is signal_sent.
func (SignalSent) Kind() string { return "signal_sent" }

// Kind is stop_requested.
func (StopRequested) Kind() string { return "stop_requested" }

// Kind is sandbox_paused.
func (Paused) Kind() string { return "sandbox_paused" }

// Kind is sandbox_unpaused.
func (Unpaused) Kind() string { return "sandbox_unpaused" }

// Kind is sandbox_updated.
func (Updated) Kind() string { return "sandbox_updated" }

// Kind is sandbox_renamed.
func (Renamed) Kind() string { return "sandbox_renamed" }

// Kind is files_copied.
func (Copied) Kind() string { return "files_copied" }

// Kind is sandbox_restarting.
func (Restarting) Kind() string { return "sandbox_restarting" }

// Kind is denial.
func (Denial) Kind() string { return "denial" }

// Kind is out_of_memory.
func (OutOfMemory) Kind() string { return "out_of_memory" }

// Kind is timed_out.
func (TimedOut) Kind() string { return "timed_out" }

// Kind is sandbox_ended.
func (Ended) Kind() string { return "sandbox_ended" }

// Kind is sandbox_removed.
func (Removed) Kind() string { return "sandbox_removed" }

// Kind is log_torn.
func (LogTorn) Kind() string { return "log_torn" }

// Kind is audit_head.
func (LogHead) Kind() string { return "audit_head" }

// Kind is events_dropped.
func (Dropped) Kind() string { return "events_dropped" }
