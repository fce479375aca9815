package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/spec"
)

const program = "/bin/true"

// command is a row that starts a program, with the least that can be between.
func command(name string, argv ...string) *row {
	r := &row{name: name, command: "`" + shorten(strings.Join(argv, " ")) + "`"}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		r.skip = argv[0] + " is not installed"
		return r
	}
	r.run = func() error {
		p, err := os.StartProcess(path, argv, &os.ProcAttr{Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stderr, os.Stderr}})
		if err != nil {
			return err
		}
		st, err := p.Wait()
		if err == nil && !st.Success() {
			err = fmt.Errorf("%v", st)
		}
		return err
	}
	return r
}

func shorten(s string) string {
	if len(s) > 120 {
		return s[:117] + "..."
	}
	return s
}

func shellRows(dir, bin string) ([]*row, error) {
	same, err := bubblewrap(true)
	if err != nil {
		return nil, err
	}
	fewer, err := bubblewrap(false)
	if err != nil {
		return nil, err
	}
	rows := []*row{
		command("no sandbox", program),
		command("bubblewrap, the same mounts (no cgroup, seccomp, Landlock)", same...),
		command("bubblewrap, without those that cover parts of /proc", fewer...),
		command("**nucleus**, everything on", bin, "run", "--", program),
	}
	limited := command("**nucleus**, and memory, cpu and pids limits in control groups", bin, "run", "--memory", "512M", "--cpus", "1", "--pids", "256", "--", program)
	if limited.run() != nil {
		limited.skip = "no control group can be made here"
	}
	rows = append(rows, limited)
	for _, name := range []string{"crun", "runc"} {
		rows = append(rows, ociRow(dir, name))
	}
	return rows, nil
}

// bubblewrap returns the command that makes the mounts that nucleus makes, with
// or without those that cover parts of /proc.
func bubblewrap(covers bool) ([]string, error) {
	p, err := nucleus.Command(&spec.Sandbox{Toolchain: true}, program).Plan()
	if err != nil {
		return nil, err
	}
	b, err := p.MarshalJSON()
	if err != nil {
		return nil, err
	}
	var doc struct {
		Steps []struct {
			Call string
			Args struct{ Source, Target, Path, As string }
		}
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	argv, late := []string{"bwrap", "--unshare-all"}, []string{}
	for _, s := range doc.Steps {
		as, what := s.Args.As, s.Args.Path
		if i := strings.IndexByte(as, ' '); i > 0 {
			as, what = as[:i], as[i+1:]
		}
		switch {
		case as == "mask" && s.Args.Source == "/dev/null":
			late = append(late, "--ro-bind", "/dev/null", what)
		case as == "mask":
			late = append(late, "--tmpfs", what, "--remount-ro", what)
		case as == "ro":
			late = append(late, "--ro-bind", what, what)
		case as == "scratch":
			late = append(late, "--tmpfs", what)
		case s.Call == "open_tree" && !strings.HasPrefix(s.Args.Source, "/dev/"):
			argv = append(argv, "--ro-bind", s.Args.Source, s.Args.Source)
		case s.Call == "symlink" && !strings.HasPrefix(s.Args.Path, "/dev/"):
			argv = append(argv, "--symlink", s.Args.Target, s.Args.Path)
		}
	}
	argv = append(argv, "--proc", "/proc", "--dev", "/dev")
	if !covers {
		late = []string{"--tmpfs", "/tmp", "--tmpfs", "/dev/shm", "--tmpfs", "/root"}
	}
	return append(append(argv, late...), "--remount-ro", "/", program), nil
}

// ociRow runs a container of an OCI runtime with the toolchain as its root.
func ociRow(dir, name string) *row {
	bundle := filepath.Join(dir, name)
	r := command(name+" run, its own defaults, host /usr", name, "--root", filepath.Join(dir, name+"-state"), "run", "--bundle", bundle, "nucleus-bench-"+name)
	if r.skip != "" {
		return r
	}
	if os.Getuid() != 0 {
		r.skip = "measured as root only"
		return r
	}
	if err := ociBundle(bundle, name); err != nil {
		r.skip = err.Error()
		return r
	}
	if err := r.run(); err != nil {
		r.skip = "it does not start here: " + err.Error()
	}
	return r
}

// ociBundle writes the runtime's own default config with our program and mounts.
func ociBundle(bundle, name string) error {
	root := filepath.Join(bundle, "rootfs")
	for _, d := range []string{"usr", "proc", "dev", "tmp", "etc", "sys"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	for _, l := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+l, filepath.Join(root, l)); err != nil && !os.IsExist(err) {
			return err
		}
	}
	cmd := exec.Command(name, "spec")
	cmd.Dir = bundle
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s spec: %s", name, out)
	}
	file := filepath.Join(bundle, "config.json")
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil {
		return err
	}
	process := doc["process"].(map[string]any)
	process["args"], process["terminal"] = []string{program}, false
	delete(process, "rlimits") // raising one needs a capability that not every root has
	doc["mounts"] = append(doc["mounts"].([]any), map[string]any{
		"destination": "/usr", "source": "/usr", "type": "none", "options": []string{"rbind", "ro", "nosuid", "nodev"},
	})
	if b, err = json.Marshal(doc); err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}

// versionRows compare an empty program of the same language.
func versionRows(dir, bin string) ([]*row, error) {
	src := filepath.Join(dir, "empty.go")
	if err := os.WriteFile(src, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		return nil, err
	}
	empty := filepath.Join(dir, "empty")
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", empty, src)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build an empty program: %w: %s", err, out)
	}
	return []*row{command("empty static Go program", empty), command("**nucleus version**", bin, "version")}, nil
}
