package nucleus_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/policy"
	"github.com/nucleus-container/nucleus/policy/profiles"
	"github.com/nucleus-container/nucleus/spec"
)

// profileJobs are what the profiles' programs do every day.
var profileJobs = []struct {
	profile, program, script string
}{
	{"none", "sha256sum", "exec sha256sum /etc/passwd"},
	{"python", "python3", `exec python3 -c '
import subprocess, threading, socket, tempfile, multiprocessing, asyncio, sqlite3, os, time, mmap
t = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(4)]
[x.start() for x in t]; [x.join() for x in t]
assert subprocess.check_output(["sh", "-c", "echo hi"]) == b"hi\n"
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(); c = socket.create_connection(s.getsockname()); c.close()
with tempfile.TemporaryDirectory() as d:
    p = os.path.join(d, "f"); open(p, "w").write("x"); os.utime(p); os.chmod(p, 0o600); os.rename(p, p + "2")
    db = sqlite3.connect(os.path.join(d, "db")); db.execute("create table t(x)"); db.commit()
async def main(): await asyncio.create_subprocess_exec("true")
asyncio.run(main())
mmap.mmap(-1, 4096).close()
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool: assert pool.map(abs, [-1, -2]) == [1, 2]
'`},
	{"git", "git", `set -e; export HOME=/tmp GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
cd /tmp; git init -q a; cd a; echo x > f; git add f; git commit -qm one; git gc -q; git branch b; git tag t
cd ..; git clone -q a c; cd c; echo y >> f; git commit -qam two; git rebase -q HEAD~1; git log --oneline | cat; git fsck; git push -q origin HEAD:refs/heads/new`},
	{"node", "node", `exec node -e '
const { execSync } = require("child_process"), fs = require("fs"), net = require("net"), { Worker } = require("worker_threads");
if (execSync("echo hi") != "hi\n") process.exit(3);
fs.mkdtempSync("/tmp/x"); fs.writeFileSync("/tmp/f", "x"); fs.watch("/tmp").close();
const s = net.createServer().listen(0, "127.0.0.1", () => net.connect(s.address().port, "127.0.0.1", function () { this.destroy(); s.close(); }));
new Worker("1+1", { eval: true });
'`},
	{"go", "go", `set -e; export HOME=/tmp GOCACHE=/tmp/c GOFLAGS=-mod=mod GOTOOLCHAIN=local CGO_ENABLED=0 TMPDIR=/x; mkdir -p /tmp/h; cd /tmp/h
cat > go.mod <<E
module h
go 1.20
E
cat > main.go <<E
package main
func main() { println("hi") }
E
go build -o /x/h . && /x/h`},
}

// TestProfilesRunTheirPrograms: a profile is narrow, and its programs work.
func TestProfilesRunTheirPrograms(t *testing.T) {
	for _, job := range profileJobs {
		t.Run(job.profile, func(t *testing.T) {
			sandboxtest.Need(t, sandboxtest.Userns, sandboxtest.Program(job.program))
			if job.program == "go" {
				sandboxtest.Need(t, sandboxtest.Long)
			}
			p, err := profiles.Get(job.profile)
			if err != nil {
				t.Fatal(err)
			}
			run := func(pol *policy.Policy) (string, error) {
				s := &spec.Sandbox{Toolchain: true, Policy: pol, Scratch: spec.GiB, Timeout: 9 * patience(), Env: []string{"PATH=/usr/local/go/bin:/usr/bin:/bin"},
					Tmpfs: []spec.Tmpfs{{Target: "/x", Size: spec.GiB, Exec: true}}}
				var out bytes.Buffer
				c := (&attempt{TB: t}).command(s, "sh", "-c", job.script)
				c.Stdout, c.Stderr = &out, &out
				err := c.Run()
				return out.String(), err
			}
			if out, err := run(&policy.Policy{Seccomp: &p.Seccomp}); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// TestPostgresProfile makes a database, and asks it.
func TestPostgresProfile(t *testing.T) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		sandboxtest.Need(t, sandboxtest.Program("initdb"))
	}
	sandboxtest.Need(t, sandboxtest.Userns, sandboxtest.Long)
	p, err := profiles.Get("postgres")
	if err != nil {
		t.Fatal(err)
	}
	s := &spec.Sandbox{Toolchain: true, Policy: &policy.Policy{Seccomp: &p.Seccomp}, Scratch: spec.GiB, User: spec.User{UID: 1000, GID: 1000}}
	var out bytes.Buffer
	c := (&attempt{TB: t}).command(s, "sh", "-c", fmt.Sprintf(`set -e; PATH=%s:$PATH; initdb -D /tmp/d -A trust >/dev/null
pg_ctl -D /tmp/d -w -o "-k /tmp -c listen_addresses=''" start >/dev/null
psql -h /tmp -d postgres -At -c "create table t as select generate_series(1,1000) x" -c "vacuum t" -c "select sum(x) from t"
pg_ctl -D /tmp/d -w stop >/dev/null`, filepath.Dir(found[0])))
	c.Stdout, c.Stderr = &out, &out
	if err := c.Run(); err != nil || !strings.Contains(out.String(), "500500") {
		t.Errorf("%v\n%s", err, out.String())
	}
	if _, err := os.Stat("/tmp/d"); err == nil {
		t.Error("the database is on the host")
	}
}

// TestRustProfile builds a program with cargo, which lies in a home directory.
func TestRustProfile(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns, sandboxtest.Program("rustc"), sandboxtest.Long)
	root, err := exec.Command("rustc", "--print", "sysroot").Output()
	if err != nil {
		t.Fatal(err)
	}
	p, err := profiles.Get("rust")
	if err != nil {
		t.Fatal(err)
	}
	s := &spec.Sandbox{Toolchain: true, Policy: &policy.Policy{Seccomp: &p.Seccomp}, Scratch: spec.GiB, Env: []string{"PATH=/opt/rust/bin:/usr/bin:/bin"},
		Volumes: []spec.Volume{{Source: strings.TrimSpace(string(root)), Target: "/opt/rust", Exec: true}}, Tmpfs: []spec.Tmpfs{{Target: "/x", Size: spec.GiB, Exec: true}}}
	out, err := (&attempt{TB: t}).command(s, "sh", "-c", "cd /x && cargo init -q --vcs none --name h . && cargo build -q --offline && ./target/debug/h").Output()
	if err != nil || string(out) != "Hello, world!\n" {
		t.Errorf("got %q, %v", out, err)
	}
}
