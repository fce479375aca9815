package nucleus_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/sandboxtest"
	"github.com/nucleus-container/nucleus/spec"
)

// tool returns the path of a program that a sandbox with the toolchain can see.
func tool(t *testing.T, name string) string {
	t.Helper()
	dirs := append([]string{"/usr/local/bin", "/usr/bin", "/usr/sbin", "/bin", "/usr/local/go/bin"}, filepath.SplitList(os.Getenv("PATH"))...)
	if more, err := filepath.Glob("/usr/lib/postgresql/*/bin"); err == nil {
		dirs = append(dirs, more...)
	}
	for _, dir := range dirs {
		path, err := exec.LookPath(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		if real, err := filepath.EvalSymlinks(path); err == nil && strings.HasPrefix(real, "/usr/") && strings.HasPrefix(path, "/usr/") {
			return path
		}
	}
	sandboxtest.Need(t, sandboxtest.Program("/usr/bin/"+name))
	return name
}

// programs are what people run. All of them work in the default sandbox, with a
// place to execute from where they make programs.
var programs = []struct {
	name   string
	tools  []string // that must be there; the first runs
	arg    []string
	host   []string // what the host must be able to do with it: some have it in part
	script string   // standard input
	want   string   // in the output
	long   bool
}{
	{"python", []string{"python3"}, []string{"-"}, []string{"-c", "import multiprocessing, sqlite3, ssl, asyncio, ctypes"}, `
import subprocess, threading, multiprocessing, sqlite3, ssl, tempfile, os, signal, socket, select, time, json, pwd, fcntl, mmap, asyncio, ctypes, concurrent.futures
assert subprocess.run(["sh", "-c", "echo sub"], capture_output=True, text=True).stdout == "sub\n"
r = []
ts = [threading.Thread(target=r.append, args=(i,)) for i in range(8)]
[t.start() for t in ts]; [t.join() for t in ts]
assert sorted(r) == list(range(8))
def f(x): return x * x
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(3) as p: assert p.map(f, range(5)) == [0, 1, 4, 9, 16]
    q = multiprocessing.get_context("fork").Queue(); q.put(1); assert q.get() == 1
    l = multiprocessing.Lock(); l.acquire(); l.release()
    with tempfile.TemporaryDirectory() as d:
        c = sqlite3.connect(d + "/x.db"); c.execute("pragma journal_mode=wal"); c.execute("create table t(a)"); c.execute("insert into t values (1)"); c.commit()
        assert c.execute("select count(*) from t").fetchone() == (1,); c.close()
        m = mmap.mmap(-1, 4096); m.write(b"x"); os.symlink("a", d + "/l"); os.mkfifo(d + "/p"); os.link(d + "/x.db", d + "/y.db"); os.chmod(d + "/x.db", 0o600)
        with open(d + "/lock", "w") as g: fcntl.flock(g, fcntl.LOCK_EX); fcntl.lockf(g, fcntl.LOCK_EX)
    ssl.create_default_context()
    assert pwd.getpwuid(os.getuid()).pw_dir == os.environ["HOME"]
    s = socket.create_server(("127.0.0.1", 0)); a = socket.create_connection(s.getsockname()); b, _ = s.accept(); a.send(b"x"); assert b.recv(1) == b"x"
    socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    assert socket.getaddrinfo("localhost", 80)
    async def main():
        p = await asyncio.create_subprocess_exec("true"); assert await p.wait() == 0
    asyncio.run(main())
    signal.signal(signal.SIGALRM, lambda *a: None); signal.setitimer(signal.ITIMER_REAL, 0.01); signal.pause()
    os.sched_getaffinity(0); os.nice(1); os.getrandom(4); os.memfd_create("x"); os.pidfd_open(os.getpid()); os.posix_fadvise; os.statvfs("/")
    e = select.epoll(); e.close(); os.eventfd(0); time.clock_gettime(time.CLOCK_BOOTTIME)
    print("py" + "thon ok")
`, "python ok", false},
	{"node", []string{"node"}, []string{"-"}, nil, `
const {Worker} = require("worker_threads"), cp = require("child_process"), fs = require("fs"), http = require("http"), os = require("os"), crypto = require("crypto"), zlib = require("zlib");
const w = new Worker("require('worker_threads').parentPort.postMessage(6*7)", {eval: true});
w.on("message", m => { if (m !== 42) process.exit(1);
  if (cp.execFileSync("sh", ["-c", "echo sub"]).toString() !== "sub\n") process.exit(2);
  const d = fs.mkdtempSync(os.tmpdir() + "/x"); const watch = fs.watch(d, () => {}); fs.writeFileSync(d + "/f", crypto.randomBytes(100000)); zlib.gzipSync(fs.readFileSync(d + "/f"));
  os.userInfo(); os.networkInterfaces(); os.cpus(); os.loadavg();
  const s = http.createServer((q, r) => r.end("hi")).listen(0, "127.0.0.1", () => http.get({port: s.address().port}, r => r.on("data", b => { console.log("node " + b); watch.close(); s.close(); w.terminate(); process.exit(0); })));
});
`, "node hi", false},
	{"c", []string{"sh", "gcc", "as", "ld"}, []string{"-e"}, nil, `
cd /x; printf '#include <stdio.h>\n#include <pthread.h>\nvoid*f(void*a){return a;}int main(){pthread_t t;pthread_create(&t,0,f,0);pthread_join(t,0);puts("compiled");}' >a.c
gcc -O1 -o a a.c -pthread && ./a
`, "compiled", false},
	{"c++ and make", []string{"sh", "g++", "make"}, []string{"-e"}, nil, `
cd /x; printf '#include <iostream>\n#include <thread>\nint main(){std::thread t([]{});t.join();try{throw 1;}catch(int){std::cout<<"made\\n";}}' >a.cc
printf 'all: a\n\t./a\na: a.cc\n\tg++ -o $@ $< -pthread\n' >Makefile; make -j2
`, "made\n", false},
	{"java", []string{"sh", "java", "javac"}, []string{"-e"}, nil, `
java -version 2>&1 | head -1; cd /x
printf 'public class A { public static void main(String[] a) throws Exception { Thread t = new Thread(() -> System.out.println("java in " + Runtime.version().feature())); t.start(); t.join(); new ProcessBuilder("true").start().waitFor(); javax.net.ssl.SSLContext.getDefault(); java.util.TimeZone.getDefault(); } }' >A.java
javac A.java && java -cp . A
`, "java in", true},
	{"go", []string{"sh", "go"}, []string{"-e"}, nil, `
cd /x; export GOCACHE=/x/cache GOTMPDIR=/x GOTOOLCHAIN=local GOFLAGS=-p=2 CGO_ENABLED=0 GOPATH=/x/go; mkdir -p src; cd src
printf 'module m\ngo 1.20\n' >go.mod; printf 'package main\nfunc main() { c := make(chan int); go func() { c <- 1 }(); <-c; println("built") }' >a.go
GO build -o /x/m . && /x/m 2>&1
`, "built", true},
	{"rust", []string{"sh", "rustc"}, []string{"-e"}, nil, `
cd /x; printf 'fn main(){std::thread::spawn(||println!("rusty")).join().unwrap();}' >a.rs; rustc a.rs && ./a
`, "rusty", true},
	{"git", []string{"sh", "git"}, []string{"-e"}, nil, `
cd /x; git init -q -b main r; cd r; git config user.name n; git config user.email e@x; for i in 1 2 3; do echo $i >f$i; done; git add .; git commit -qm one
git checkout -q -b b; echo 4 >f4; git add f4; git commit -qm two; git checkout -q main; git merge -q b; git gc -q; git worktree add -q ../w b; git clone -q . ../c; git -C ../c log --oneline | wc -l; git fsck; git stash list; git status --short
`, "2\n", false},
	{"shell tools", []string{"bash", "tar", "find", "xargs", "gzip", "sed", "awk"}, []string{"-e"}, nil, `
cd /x; mkdir -p a/b; seq 1000 >a/b/n; ln -s n a/b/l; mkfifo a/p; touch -d 2001-01-01 a/b/n; chmod 640 a/b/n; setfattr -n user.x -v y a/b/n 2>/dev/null || :
tar czf t.tgz a; mkdir o; tar xzpf t.tgz -C o; cp -a a c; find o -type f -print0 | xargs -0 -P2 -n1 wc -l; rm -rf c; diff -r a/b o/a/b
df /x >/dev/null; stat -f / >/dev/null; id -un; whoami; getent passwd root >/dev/null; date; date -d @0 +%Z; tty || :; nproc; uptime -p >/dev/null 2>&1 || :; ps ax >/dev/null
(timeout 0.2 sleep 5 || test $? = 124); flock t.tgz true; nice true; nohup true 2>/dev/null; mktemp; exec 3<>/dev/tcp/127.0.0.1/1 || :; cat <(echo sub) >/dev/null; echo y >/dev/null; echo x >/dev/stderr; cat </dev/null; head -c 8 /dev/urandom | wc -c
trap 'echo trapped' USR1; kill -USR1 $$; wait; coproc cat; ulimit -n 64; umask 077; sort -R a/b/n | sort -n | tail -1; dd if=/dev/zero of=z bs=1M count=2 oflag=direct 2>/dev/null || dd if=/dev/zero of=z bs=1M count=2 2>/dev/null; sync z; truncate -s 0 z; echo shell is fine
`, "shell is fine", false},
	{"perl", []string{"perl"}, []string{"-"}, []string{"-MTime::HiRes", "-MFile::Temp", "-MIO::Select", "-e1"}, `
use strict; use POSIX; use Socket; use IO::Select; use File::Temp; use Time::HiRes qw(usleep);
my $p = fork(); if (!$p) { exit 3 } waitpid($p, 0); die if $? >> 8 != 3; socketpair(my $r, my $w, AF_UNIX, SOCK_STREAM, 0) or die; my @l = getpwuid($<); die unless $l[7] eq $ENV{HOME};
my $f = File::Temp->new; print $f "x"; print "perl ", join(",", sort { $a <=> $b } (3,1,2)), "\n";
`, "perl 1,2,3", false},
	{"openssl and keys", []string{"sh", "openssl", "ssh-keygen"}, []string{"-e"}, nil, `
cd /x; openssl req -x509 -newkey rsa:2048 -nodes -keyout k -out c -days 1 -subj /CN=x 2>/dev/null; openssl verify -CAfile c c; ssh-keygen -q -t ed25519 -N '' -f id; ls id.pub; ls /etc/ssl/certs | wc -l
`, "id.pub", false},
	{"sqlite", []string{"sqlite3"}, []string{"/x/db"}, nil, `pragma journal_mode=wal; create table t(a); insert into t values(41); select a+1 from t;`, "42", false},
}

// TestPrograms runs them as root and as a user of the sandbox.
func TestPrograms(t *testing.T) {
	needSandbox(t)
	for _, p := range programs {
		for _, user := range []spec.User{{}, {UID: 1000, GID: 1000}} {
			name := p.name + " as root"
			if user.UID != 0 {
				name = p.name + " as a user"
			}
			t.Run(name, func(t *testing.T) {
				if p.long {
					sandboxtest.Need(t, sandboxtest.Long)
				}
				paths := map[string]string{}
				for _, name := range p.tools {
					paths[name] = tool(t, name)
				}
				if p.host != nil && exec.Command(paths[p.tools[0]], p.host...).Run() != nil {
					sandboxtest.Need(t, sandboxtest.Program(p.tools[0]+"-with-its-library"))
				}
				if p.long && user.UID != 0 {
					return // once is long enough
				}
				s := &spec.Sandbox{Toolchain: true, User: user, Workdir: "/x", Timeout: 6 * patience(), Tmpfs: []spec.Tmpfs{{Target: "/x", Size: spec.GiB, Exec: true}}}
				c := (&attempt{TB: t}).command(s, paths[p.tools[0]], p.arg...)
				c.Stdin = strings.NewReader(strings.ReplaceAll(p.script, "\nGO build", "\n"+paths["go"]+" build"))
				out, err := c.CombinedOutput()
				if err != nil || !strings.Contains(string(out), p.want) {
					t.Errorf("got %v, want %q in\n%s", err, p.want, out)
				}
			})
		}
	}
}

// TestJobControl: a shell in a terminal stops, continues and ends its jobs.
func TestJobControl(t *testing.T) {
	needSandbox(t)
	bash := tool(t, "bash")
	s := &spec.Sandbox{Toolchain: true, Terminal: true}
	c := (&attempt{TB: t}).command(s, bash, "--norc", "-i", "-c",
		`sleep 100 & sleep 101 & kill -STOP %1; sleep 0.2; jobs; kill %2; kill -CONT %1; kill %1; wait; set -o | grep monitor; stty -a | head -1; fg %9; echo the end`)
	var out strings.Builder
	c.Stdout = &out
	err := c.Run()
	for _, want := range []string{"Stopped", "Running", "monitor        \ton", "speed 38400", "no such job", "the end"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got %v, want %q in\n%s", err, want, out.String())
		}
	}
	for _, bad := range []string{"no job control", "cannot set terminal process group", "Inappropriate ioctl"} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("the shell says %q:\n%s", bad, out.String())
		}
	}
}

// TestPostgres makes a database, starts its server and asks it something.
func TestPostgres(t *testing.T) {
	sandboxtest.Need(t, sandboxtest.Userns, sandboxtest.Long)
	initdb, psql := tool(t, "initdb"), tool(t, "psql")
	bin, err := filepath.EvalSymlinks(initdb)
	if err != nil {
		t.Fatal(err)
	}
	s := &spec.Sandbox{
		Toolchain: true, User: spec.User{UID: 1000, GID: 1000}, Timeout: 6 * patience(), Workdir: "/pg",
		Env: []string{"PATH=" + filepath.Dir(bin) + ":/usr/bin:/bin"}, Tmpfs: []spec.Tmpfs{{Target: "/pg", Size: spec.GiB}},
	}
	c := (&attempt{TB: t}).command(s, "sh", "-ec", `
		initdb -D /pg/data -A trust --no-sync >/pg/initdb.log 2>&1 || { cat /pg/initdb.log; exit 1; }
		pg_ctl -D /pg/data -o "-k /tmp -c max_connections=20" -w -l /pg/log start >/dev/null || { cat /pg/log; exit 1; }
		`+psql+` -h /tmp -d postgres -Atc "create table t as select generate_series(1,1000) a" -c "select 'sum '||sum(a) from t"
		`+psql+` -h 127.0.0.1 -d postgres -Atc "select 'tcp'"
		pg_ctl -D /pg/data -m fast stop >/dev/null; grep -E "FATAL|PANIC|ERROR|Operation not permitted" /pg/log || :`)
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "sum 500500") || !strings.Contains(string(out), "tcp") || strings.Contains(string(out), "not permitted") {
		t.Errorf("got %v\n%s", err, out)
	}
}
