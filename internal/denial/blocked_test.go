package denial

import (
	"fmt"
	"testing"
	"time"

	"github.com/nucleus-container/nucleus/internal/plan"
	"github.com/nucleus-container/nucleus/policy/landlock"
)

// TestBlocked: what the kernel says that Landlock refused, in words.
func TestBlocked(t *testing.T) {
	p := somePlan()
	p.Steps = []plan.Step{
		{Do: plan.Landlock{Rules: landlock.Ruleset{HandleFS: landlock.All(9), Rules: []landlock.PathRule{{Path: "/", Allow: landlock.All(9) &^ landlock.IoctlDev}}}}},
		{Do: plan.Landlock{Narrow: true, Rules: landlock.Ruleset{
			HandleFS: landlock.All(9), HandleNet: landlock.AllNet(9), Rules: []landlock.PathRule{{Path: "/", Allow: landlock.Read}, {Path: "/dev", Allow: landlock.All(9)}},
		}}},
	}
	for _, row := range []struct {
		blocked Blocked
		want    string
	}{
		{Blocked{Blockers: []string{"fs.write_file"}, Path: "/data/x"}, `write /data/x: the policy's Landlock rules do not allow write-file there (EACCES); to allow: in the policy, [[landlock.rules]]: { path = "/data", access = ["write-file"] }`},
		{Blocked{Blockers: []string{"fs.write_file", "fs.truncate"}, Path: "/data/x"}, `write /data/x: the policy's Landlock rules do not allow write there (EACCES); to allow: in the policy, [[landlock.rules]]: { path = "/data", access = ["write"] }`},
		{Blocked{Blockers: []string{"fs.make_dir"}, Path: "/data"}, `make a directory in /data: the policy's Landlock rules do not allow make-dir there (EACCES); to allow: in the policy, [[landlock.rules]]: { path = "/data", access = ["make-dir"] }`},
		{Blocked{Blockers: []string{"fs.make_reg", "fs.refer"}, Path: "/a\"b"}, `make a file in /a"b: the policy's Landlock rules do not allow make-file,refer there (EACCES); to allow: in the policy, [[landlock.rules]]: { path = "/a\"b", access = ["make-file", "refer"] }`},
		{Blocked{Blockers: []string{"fs.ioctl_dev"}, Path: "/dev/x"}, "control the device /dev/x: no Landlock rule allows ioctl-device there (EACCES); no flag changes the sandbox's own rules about this place"},
		{Blocked{Blockers: []string{"fs.read_file"}, Path: "/gone"}, "read /gone: Landlock does not allow read-file there (EACCES); "},
		{Blocked{Blockers: []string{"net.connect_tcp"}, Port: 80}, `connect to the TCP port 80: the policy's Landlock rules do not allow connect-tcp for it (EACCES); to allow: in the policy, [[landlock.ports]]: { port = 80, access = ["connect-tcp"] }`},
		{Blocked{Blockers: []string{"net.bind_tcp"}, Port: -1}, `take the TCP port: the policy's Landlock rules do not allow bind-tcp for it (EACCES); to allow: in the policy, [[landlock.ports]]: { port = PORT, access = ["bind-tcp"] }`},
		{Blocked{Blockers: []string{"scope.signal"}}, "signal a process that is not in the sandbox: a Landlock domain ends at what it restricts (EPERM); no flag changes it: a sandbox reaches nothing outside of itself"},
		{Blocked{Blockers: []string{"fs.of\x1b[31mtomorrow"}}, "do what needs fs.of?[31mtomorrow: a Landlock rule refuses it (EACCES); "},
	} {
		j := New(someSpec(), p, Host{})
		row.blocked.Time, row.blocked.Count = time.Now(), 3
		j.Blocked(row.blocked)
		all := j.Denials()
		if len(all) != 1 || all[0].Inferred || all[0].Layer != Landlock || all[0].Say == "" || all[0].Count != 3 {
			t.Fatalf("%v: got %+v", row.blocked, all)
		}
		if got := fmt.Sprintf("%s; %s", &all[0], all[0].Fix()); got != "the program could not "+row.want {
			t.Errorf("%v:\ngot  %s\nwant the program could not %s", row.blocked, got, row.want)
		}
	}
}

// TestToldIsNotInferred: where the kernel tells, nothing is concluded beside it.
func TestToldIsNotInferred(t *testing.T) {
	p := somePlan()
	p.Steps = []plan.Step{{Do: plan.Landlock{Narrow: true, Rules: landlock.Ruleset{HandleFS: landlock.All(5), Rules: []landlock.PathRule{{Path: "/", Allow: landlock.Read}}}}}}
	call := Call{Name: "openat", Path: "/workspace/x", Args: [6]uint64{2: 1}, Change: true, Seen: Seen{Asked: true, Exists: true, Parent: true, Real: "/workspace/x"}, Needs: [2]Need{{Path: "/workspace/x", Access: landlock.WriteFile}}}
	for _, told := range []bool{false, true} {
		j := New(someSpec(), p, Host{})
		if told {
			j.LandlockTells()
		}
		j.Call(call)
		if got := len(j.Denials()); (got == 0) != told {
			t.Errorf("told: %t: got %d denials", told, got)
		}
	}
}
