package cli_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
)

// job is something that people do in a sandbox. prepare fills its workspace, once;
// reset undoes what a run did and makes the next one do as much.
type job struct {
	name    string
	program string
	long    bool
	flags   []string
	command string // for sh -c, in /workspace; it fails if the work was not done
	prepare func(t *testing.T, dir string)
	reset   func(t *testing.T, dir string, round int)
}

var jobs = []job{
	{name: "python", program: "python3", command: `exec python3 -c '
import json, os, subprocess, tempfile, threading
with tempfile.NamedTemporaryFile("w+") as f:
    json.dump({"a": 1}, f); f.flush(); assert json.load(open(f.name)) == {"a": 1}
with tempfile.TemporaryDirectory() as d: os.rename(os.makedirs(d + "/x/y") or d + "/x/y", d + "/z")
assert subprocess.run(["cat"], input=b"x", capture_output=True).stdout == b"x"
t = [threading.Thread(target=lambda: open("/workspace/in").read()) for _ in range(20)]
[x.start() for x in t]; [x.join() for x in t]
open("/workspace/out", "w").write("done")'`,
		prepare: func(t *testing.T, dir string) { write(t, dir, "in", "x") },
		reset:   func(t *testing.T, dir string, _ int) { _ = os.Remove(filepath.Join(dir, "out")) },
	},
	{name: "git", program: "git", command: "git clone -q /workspace/origin.git /workspace/copy && test -s /workspace/copy/d3/f3",
		prepare: func(t *testing.T, dir string) {
			for i := range 40 {
				write(t, dir, fmt.Sprintf("src/d%d/f%d", i%5, i), strings.Repeat("line\n", i+1))
			}
			do(t, filepath.Join(dir, "src"), "git init -q . && git add -A && git -c user.name=x -c user.email=x@example.org commit -qm x && git clone -q --bare . ../origin.git")
		},
		reset: func(t *testing.T, dir string, _ int) { remove(t, filepath.Join(dir, "copy")) },
	},
	{name: "go", program: "go", long: true, flags: []string{"--scratch", "1G", "-e", "HOME=/tmp", "-e", "GOCACHE=/workspace/cache", "-e", "GOTOOLCHAIN=local", "-e", "CGO_ENABLED=0", "-e", "GOFLAGS=-mod=mod",
		"-e", "PATH=/usr/local/go/bin:/usr/bin:/bin"},
		command: "cd m && go build -o /workspace/out . && test -s /workspace/out",
		prepare: func(t *testing.T, dir string) {
			write(t, dir, "m/go.mod", "module example.org/m\n\ngo 1.21\n")
			write(t, dir, "m/part/part.go", "package part\n\nfunc Two() int { return 2 }\n")
		},
		reset: func(t *testing.T, dir string, round int) {
			write(t, dir, "m/main.go", fmt.Sprintf("package main\n\nimport (\n\t\"fmt\"\n\n\t\"example.org/m/part\"\n)\n\nfunc main() { fmt.Println(part.Two(), %d) }\n", round))
			_ = os.Remove(filepath.Join(dir, "out"))
		},
	},
	{name: "npm", program: "npm", long: true, flags: []string{"--scratch", "1G", "-e", "HOME=/tmp"},
		command: "cd app && npm ci --offline --no-audit --no-fund --cache /workspace/cache && node -e 'if (require(\"dep\")() !== 42) process.exit(1)'",
		prepare: func(t *testing.T, dir string) {
			write(t, dir, "dep/package.json", `{"name":"dep","version":"1.0.0","main":"index.js"}`)
			write(t, dir, "dep/index.js", "module.exports = () => 42\n")
			for i := range 50 {
				write(t, dir, fmt.Sprintf("dep/lib/f%d.js", i), "exports.x = 1\n")
			}
			write(t, dir, "app/package.json", `{"name":"app","version":"1.0.0","dependencies":{"dep":"file:../dep-1.0.0.tgz"}}`)
			do(t, dir, "cd dep && npm pack --silent --pack-destination .. --cache "+dir+"/cache && cd ../app && npm install --offline --silent --cache "+dir+"/cache && test -f package-lock.json")
		},
		reset: func(t *testing.T, dir string, _ int) { remove(t, filepath.Join(dir, "app/node_modules")) },
	},
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

func do(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "HOME="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// rounds is how often each job is learned and run again.
func rounds() int {
	if n, err := strconv.Atoi(os.Getenv("NUCLEUS_TEST_LEARN")); err == nil {
		return n
	}
	return 1
}

// TestLearnedPolicyFits: a job is watched, a policy is made of the record, and the
// same job passes under it; one that does something else does not.
func TestLearnedPolicyFits(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns, sandboxtest.Landlock)
	for _, j := range jobs {
		t.Run(j.name, func(t *testing.T) {
			sandboxtest.Need(t, sandboxtest.Program(j.program))
			if j.long {
				sandboxtest.Need(t, sandboxtest.Long)
			}
			dir := t.TempDir()
			j.prepare(t, dir)
			j.reset(t, dir, -1)
			j.run(t, dir) // what is made once, such as caches
			for round := range rounds() {
				j.learn(t, dir, round)
			}
		})
	}
}

// run runs the job with more flags.
func (j *job) run(t *testing.T, dir string, more ...string) {
	t.Helper()
	args := append([]string{"run", "--workspace", dir}, j.flags...)
	args = append(append(args, more...), "--", "sh", "-c", j.command)
	if out, err := exec.Command(nucleus(t), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", j.name, more, err, out)
	}
}

func (j *job) learn(t *testing.T, dir string, round int) {
	out := t.TempDir()
	record, policy := filepath.Join(out, "record.toml"), filepath.Join(out, "policy.toml")
	j.reset(t, dir, 2*round)
	j.run(t, dir, "--learn", record)
	if text, err := exec.Command(nucleus(t), "policy", "generate", record, "-o", policy).CombinedOutput(); err != nil {
		t.Fatalf("generate: %v\n%s", err, text)
	}
	j.reset(t, dir, 2*round+1)
	args := append([]string{"run", "--workspace", dir, "--policy", policy}, j.flags...)
	if text, err := exec.Command(nucleus(t), append(args, "--", "sh", "-c", j.command)...).CombinedOutput(); err != nil {
		data, _ := os.ReadFile(policy)
		t.Fatalf("round %d: under the learned policy: %v\n%s\n%s", round, err, text, data)
	}
	// What the job did not do is refused: a program, a file and a system call of its own.
	for _, other := range []string{"/usr/bin/id", "echo x >/home/x", "ls /sys"} {
		text, err := exec.Command(nucleus(t), append(args, "--", "sh", "-c", other)...).CombinedOutput()
		if err == nil {
			t.Errorf("round %d: %s passes under the policy of another job: %s", round, other, text)
		}
	}
	data, err := os.ReadFile(policy)
	if err != nil || bytes.Contains(data, []byte("/tmp/tmp")) || bytes.Contains(data, []byte("go-build")) {
		t.Errorf("round %d: a temporary name is in the policy (%v):\n%s", round, err, data)
	}
}
