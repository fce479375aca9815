package observe

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/nucleus-container/nucleus/internal/kernel"
	"github.com/nucleus-container/nucleus/policy/landlock"
)

// TestRights: what calls need over the files that they name, for a policy that is
// learned, and at once, for an explanation.
func TestRights(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"sub", "other"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "old"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := kernel.Open(dir, kernel.PathOnly|kernel.Directory, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	const (
		make      = landlock.MakeReg
		temporary = openTemporary | syscall.O_DIRECTORY
		create    = syscall.O_CREAT | syscall.O_TRUNC | syscall.O_WRONLY
		fifo      = syscall.S_IFIFO | 0o666
	)
	open := func(name string, flags uint64) Call {
		return Call{Name: "openat", raw: name, Args: [6]uint64{2: flags}, flags: flags}
	}
	for _, row := range []struct {
		name                 string
		call                 Call
		learned, now, second landlock.Access
	}{
		{"ls", open("/sub", syscall.O_DIRECTORY), landlock.ReadDir, landlock.ReadDir, 0},
		{"cat", open("/old", 0), landlock.ReadFile, landlock.ReadFile, 0},
		{"> what is there", open("/old", create), landlock.Write, landlock.Write, 0},
		{"> what is not", open("/new", create), landlock.Write | make, landlock.WriteFile | make, 0},
		{">>", open("/old", syscall.O_WRONLY|syscall.O_CREAT|syscall.O_APPEND), landlock.Write, landlock.WriteFile, 0},
		{"r+", open("/old", syscall.O_RDWR), landlock.Write | landlock.ReadFile, landlock.WriteFile | landlock.ReadFile, 0},
		{"no name", open("/sub", temporary|syscall.O_WRONLY), landlock.Write, landlock.WriteFile, 0},
		{"no name, read as well", open("/sub", temporary|syscall.O_RDWR), landlock.Write | landlock.ReadFile, landlock.WriteFile | landlock.ReadFile, 0},
		{"cutting", Call{Name: "truncate", raw: "/old"}, landlock.Truncate, landlock.Truncate, 0},
		{"rmdir", Call{Name: "unlinkat", raw: "/sub", Args: [6]uint64{2: removeDir}}, landlock.RemoveDir, landlock.RemoveDir, 0},
		{"rm", Call{Name: "unlink", raw: "/old"}, landlock.RemoveFile, landlock.RemoveFile, 0},
		{"mkfifo", Call{Name: "mknodat", raw: "/f", Args: [6]uint64{2: fifo}}, landlock.MakeFifo, landlock.MakeFifo, 0},
		{"ln -s", Call{Name: "symlinkat", raw: "/s"}, landlock.MakeSym, landlock.MakeSym, 0},
		{"mv", Call{Name: "rename", raw: "/old", raw2: "/new"}, landlock.RemoveFile, landlock.RemoveFile, make},
		{"mv elsewhere", Call{Name: "rename", raw: "/old", raw2: "/sub/new"}, landlock.RemoveFile | landlock.Refer, landlock.RemoveFile | landlock.Refer, make | landlock.Refer},
		{"ln elsewhere", Call{Name: "linkat", raw: "/old", raw2: "/sub/new"}, landlock.Refer, landlock.Refer, make | landlock.Refer},
		{"mkdir of what is there", Call{Name: "mkdir", raw: "/sub"}, 0, 0, 0},
		{"execution", Call{Name: "execve", raw: "/old"}, landlock.Execute | landlock.ReadFile, landlock.Execute | landlock.ReadFile, 0},
	} {
		v := &view{root}
		learned, now := row.call, row.call
		v.rights(&learned)
		v.needs(&now)
		if learned.Access != row.learned || now.Access != row.now || now.Access2 != row.second {
			t.Errorf("%s: got %s, %s and %s, want %s, %s and %s", row.name, learned.Access, now.Access, now.Access2, row.learned, row.now, row.second)
		}
	}
}
