package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus/spec"
)

// flagsOf is the inverse of the flags of `nucleus run`: those that describe a
// sandbox and its service again, without --detach.
func flagsOf(box spec.Sandbox, service spec.Service, labels map[string]string) ([]string, error) {
	w := &flagWriter{}
	w.box(box)
	w.limits(box.Limits)
	w.service(service)
	w.check("health", service.Health)
	w.check("readiness", service.Ready)
	w.hooks(service.Hooks)
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		w.add("label", key+"="+labels[key])
	}
	return w.args, w.err
}

// flagWriter collects arguments.
type flagWriter struct {
	args []string
	err  error
}

func (w *flagWriter) add(name, value string) { w.args = append(w.args, "--"+name, value) }

// text adds a flag whose zero value is its default.
func (w *flagWriter) text(name, value string) {
	if value != "" {
		w.add(name, value)
	}
}

func (w *flagWriter) on(name string, on bool) {
	if on {
		w.args = append(w.args, "--"+name)
	}
}

func (w *flagWriter) size(name string, b spec.Bytes) {
	if b != 0 {
		w.add(name, b.String())
	}
}

func (w *flagWriter) number(name string, n uint64) {
	if n != 0 {
		w.add(name, strconv.FormatUint(n, 10))
	}
}

func (w *flagWriter) duration(name string, d time.Duration) {
	if d != 0 {
		w.add(name, d.String())
	}
}

func withExec(s string, exec bool) string {
	if exec {
		return s + ",exec"
	}
	return s
}

func (w *flagWriter) box(b spec.Sandbox) {
	w.text("name", b.Name)
	w.text("hostname", b.Hostname)
	w.on("no-toolchain", !b.Toolchain && b.Rootfs == nil)
	if r := b.Rootfs; r != nil {
		w.text("rootfs", r.Source)
		w.on("verify-rootfs-attestation", r.Attested)
		w.text("rootfs-manifest", r.Manifest)
		w.text("rootfs-sha256", r.SHA256)
	}
	if b.Context != nil {
		w.add("context", withExec(b.Context.Source, b.Context.Exec))
	}
	if b.Workspace != nil {
		w.add("workspace", withExec(b.Workspace.Source, b.Workspace.Exec))
	}
	for _, v := range b.Volumes {
		mode := ":ro"
		if v.Writable {
			mode = ":rw"
		}
		if strings.Contains(v.Source+v.Target, ":") {
			w.fail("a volume with a colon in its path (%s) cannot be given by a flag", v.Source)
		}
		w.add("volume", withExec(v.Source+":"+v.Target+mode, v.Exec))
	}
	for _, t := range b.Tmpfs {
		place := t.Target
		if t.Size != 0 {
			place += ":" + t.Size.String()
		}
		w.add("tmpfs", withExec(place, t.Exec))
	}
	w.size("scratch", b.Scratch)
	if b.User != (spec.User{}) {
		w.add("user", w.identity(b.User))
	}
	w.text("userns", string(b.Userns))
	w.on("time-namespace", b.TimeNamespace)
	w.text("workdir", b.Workdir)
	for _, kv := range b.Env {
		w.add("env", kv)
	}
	w.policy(b)
	w.on("tty", b.Terminal)
	w.duration("timeout", b.Timeout)
	w.text("allow-degraded", strings.Join(b.Degrade, ","))
	w.text("service-mode", string(b.Mode))
	w.text("require-kernel-lockdown", string(b.Lockdown))
	w.text("trust-level", string(b.Trust))
}

// identity is a user as the flag has it: by name if that still means the same.
func (w *flagWriter) identity(u spec.User) string {
	if u.Name != "" {
		if now, err := identity(u.Name, ""); err == nil && now == u {
			return u.Name
		}
	}
	return fmt.Sprintf("%d:%d", u.UID, u.GID)
}

func (w *flagWriter) limits(l spec.Limits) {
	w.size("memory", l.Memory)
	w.size("memory-swap", l.MemorySwap)
	if l.MilliCPUs != 0 {
		w.add("cpus", fmt.Sprintf("%d.%03d", l.MilliCPUs/1000, l.MilliCPUs%1000))
	}
	w.number("cpu-weight", l.CPUWeight)
	if l.Pids < 0 {
		w.add("pids", "unlimited")
	} else {
		w.number("pids", uint64(l.Pids))
	}
	for _, io := range l.IO {
		words := []string{fmt.Sprintf("%d:%d", io.Major, io.Minor)}
		for _, kv := range []struct {
			key string
			n   uint64
		}{{"rbps", io.ReadBPS}, {"wbps", io.WriteBPS}, {"riops", io.ReadIOPS}, {"wiops", io.WriteIOPS}} {
			if kv.n != 0 {
				words = append(words, fmt.Sprintf("%s=%d", kv.key, kv.n))
			}
		}
		w.add("io-limit", strings.Join(words, " "))
	}
	w.size("memlock", l.Memlock)
}

func (w *flagWriter) service(s spec.Service) {
	if r := s.Restart; r.Policy != spec.RestartNo {
		value := string(r.Policy)
		if r.Max != 0 {
			value += ":" + strconv.Itoa(r.Max)
		}
		w.add("restart", value)
	}
	w.text("stop-signal", s.StopSignal)
	w.duration("stop-timeout", s.StopTimeout)
	w.on("rm", s.Remove)
	w.duration("idle-timeout", s.IdleTimeout)
	w.text("on-unhealthy", string(s.OnUnhealthy))
	w.on("sd-notify", s.Notify)
	w.size("log-size", s.Log.Size)
	w.number("log-files", uint64(s.Log.Files))
	if s.Log.Off {
		w.add("log-driver", "none")
	}
	w.text("audit-log", s.Audit.Log)
	w.on("redact-args", s.Audit.HideArgs)
	w.on("systemd", s.Systemd)
	if s.Log.Inherit && !s.Systemd {
		w.fail("that output goes to whoever looks after the sandbox cannot be given by a flag")
	}
}

func (w *flagWriter) check(name string, c *spec.Check) {
	if c == nil {
		return
	}
	if len(c.Command) > 0 {
		b, err := json.Marshal(c.Command)
		if err != nil {
			w.err = err
		}
		w.add(name+"-cmd", string(b))
	}
	w.text(name+"-http", c.HTTP)
	w.text(name+"-tcp", c.TCP)
	w.duration(name+"-interval", c.Interval)
	w.duration(name+"-timeout", c.Timeout)
	w.number(name+"-retries", uint64(c.Retries))
	if c.StartPeriod != 0 && name != "health" {
		w.fail("a start period of readiness cannot be given by a flag")
		return
	}
	w.duration(name+"-start-period", c.StartPeriod)
}

func (w *flagWriter) hooks(h spec.Hooks) {
	for _, phase := range []struct {
		flag  string
		hooks []spec.Hook
	}{{"hook-create-runtime", h.CreateRuntime}, {"hook-poststart", h.Poststart}, {"hook-poststop", h.Poststop}} {
		for _, hook := range phase.hooks {
			if len(hook.Args) > 0 || len(hook.Env) > 0 || hook.Timeout != 0 {
				w.fail("the hook %s has arguments, variables or a timeout, which only --hooks FILE can give", hook.Path)
			}
			w.add(phase.flag, hook.Path)
		}
	}
}

func (w *flagWriter) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}
