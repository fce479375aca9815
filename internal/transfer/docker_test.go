package transfer_test

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/nucleus-container/nucleus/internal/transfer"
)

// semantics is where copies go, as `docker cp` has it. "here" is the destination.
var semantics = []struct {
	name     string
	from     string // what there is to copy, as the function files has it
	there    string // what the destination has
	src, dst string
	want     string // of the destination, or "!" and a part of the error
}{
	{"file to a new name", "f=1", "", "f", "g", "g=1"},
	{"file over a file", "f=1", "g=old", "f", "g", "g=1"},
	{"file into a directory", "f=1", "d/", "f", "d", "d/ d/f=1"},
	{"file into a directory with a slash", "f=1", "d/", "f", "d/", "d/ d/f=1"},
	{"file into a directory with a dot", "f=1", "d/", "f", "d/.", "d/ d/f=1"},
	{"file into this directory", "a/f=1", "", "a/f", ".", "f=1"},
	{"file to a new name with a slash", "f=1", "", "f", "new/", "!does not exist"},
	{"file below what is not there", "f=1", "", "f", "new/f", "!no such file"},
	{"file below a file", "f=1", "g=2", "f", "g/f", "!not a directory"},
	{"file to a file with a slash", "f=1", "g=2", "f", "g/", "!not a directory"},
	{"file over a directory", "f=1", "d/f/", "f", "d", "!a directory is there"},
	{"file with a slash", "f=1", "", "f/", "g", "!not a directory"},
	{"file with a dot", "f=1", "", "f/.", "g", "!not a directory"},
	{"nothing", "f=1", "", "none", "g", "!no such file"},
	{"nothing in a directory", "f=1", "", "none/f", "g", "!no such file"},
	{"directory to a new name", "d/f=1", "", "d", "e", "e/ e/f=1"},
	{"directory to a new name with a slash", "d/f=1", "", "d", "e/", "e/ e/f=1"},
	{"directory with a slash to a new name", "d/f=1", "", "d/", "e", "e/ e/f=1"},
	{"content to a new name", "d/f=1", "", "d/.", "e", "e/ e/f=1"},
	{"directory into a directory", "d/f=1", "e/x=0", "d", "e", "e/ e/d/ e/d/f=1 e/x=0"},
	{"directory with a slash into a directory", "d/f=1", "e/x=0", "d/", "e", "e/ e/d/ e/d/f=1 e/x=0"},
	{"content into a directory", "d/f=1", "e/x=0", "d/.", "e", "e/ e/f=1 e/x=0"},
	{"content over content", "d/f=1 d/s/t=2", "e/f=0 e/s/u=3", "d/.", "e", "e/ e/f=1 e/s/ e/s/t=2 e/s/u=3"},
	{"directory over a file", "d/f=1", "e=1", "d", "e", "!is not a directory"},
	{"directory over a file inside", "d/f=1", "e/d=1", "d", "e", "!not a directory"},
	{"directory below what is not there", "d/f=1", "", "d", "new/e", "!no such file"},
	{"empty directory", "d/", "", "d", "e", "e/"},
	{"this", "f=1 d/g=2", "e/", ".", "e", "e/ e/d/ e/d/g=2 e/f=1"},
	{"a link", "l>f f=1", "", "l", "g", "g>f"},
	{"a link to nowhere", "l>/none", "", "l", "g", "g>/none"},
	{"a link over a file", "l>f", "g=1", "l", "g", "g>f"},
	{"a link to a directory", "l>d d/f=1", "", "l", "g", "g>d"},
	{"a link to a directory, followed", "l>d d/f=1", "", "l/", "g", "g/ g/f=1"},
	{"content of a link", "l>d d/f=1", "", "l/.", "g", "g/ g/f=1"},
	{"through a link", "l>d d/f=1", "", "l/f", "g", "g=1"},
	{"into a link to a directory", "f=1", "l>d d/", "f", "l", "d/ d/f=1 l>d"},
	{"over a link to a file", "f=1", "l>g g=2", "f", "l", "g=2 l=1"},
	{"over a link to nowhere", "f=1", "l>none", "f", "l", "l=1"},
	{"up and down", "d/f=1 e/g=2", "", "d/../e/g", "h", "h=2"},
	{"links and all", "d/a=1 d/l>a d/s/m>../a d/s/n>/x", "", "d", "e", "e/ e/a=1 e/l>a e/s/ e/s/m>../a e/s/n>/x"},
	{"without a path", "f=1", "", "", "g", "!path is empty"},
	{"without a destination", "f=1", "", "f", "", "!destination is empty"},
	{"an odd name", "a\tb\x1b[31m=1", "", "a\tb\x1b[31m", ".", "a\tb\x1b[31m=1"},
}

func TestWhereCopiesGo(t *testing.T) {
	ctx := context.Background()
	for _, tc := range semantics {
		t.Run(tc.name, func(t *testing.T) {
			for _, way := range []string{"out", "in"} {
				from, to := dir(t), dir(t)
				files(t, from, strings.Split(tc.from, " ")...)
				files(t, to, strings.Split(tc.there, " ")...)
				var err error
				var res transfer.Result
				if way == "out" {
					t.Chdir(to)
					res, err = transfer.Out(ctx, opened(t, from), tc.src, tc.dst, own())
				} else {
					t.Chdir(from)
					res, err = transfer.In(ctx, tc.src, opened(t, to), tc.dst, own())
				}
				if text, bad := strings.CutPrefix(tc.want, "!"); bad {
					if err == nil || !strings.Contains(err.Error(), text) {
						t.Errorf("%s: got %v, want an error with %q", way, err, text)
					}
					if strings.ContainsAny(err.Error(), "\n\x1b") {
						t.Errorf("%s: the message is %q", way, err)
					}
					continue
				}
				if err != nil || res.Failed > 0 {
					t.Errorf("%s: %v, %+v", way, err, res)
				}
				if got := tree(t, to); got != tc.want {
					t.Errorf("%s: got  %s\nwant %s", way, got, tc.want)
				}
			}
		})
	}
}

// TestAbsolutePaths: they begin at the sandbox's root, and above that is nothing.
func TestAbsolutePaths(t *testing.T) {
	from := dir(t)
	files(t, from, "d/f=1", "l>/d")
	root := opened(t, from)
	for _, src := range []string{"/d/f", "//d//f", "../../../d/f", "/../d/f", "/l/f", "l/../../d/f", "d/./f"} {
		to := dir(t)
		if _, err := transfer.Out(context.Background(), root, src, to, own()); err != nil {
			t.Errorf("%s: %v", src, err)
		} else if got := tree(t, to); got != "f=1" {
			t.Errorf("%s: got %s", src, got)
		}
	}
	for _, src := range []string{"/", "..", ".", "/.", "../.."} {
		to := dir(t)
		if _, err := transfer.Out(context.Background(), root, src, to, own()); err != nil {
			t.Errorf("%s: %v", src, err)
		} else if got := tree(t, to); got != "d/ d/f=1 l>/d" {
			t.Errorf("%s: got %s", src, got)
		}
	}
}

// TestSpecialDestinations: root that copies to /dev/null must not replace it.
func TestSpecialDestinations(t *testing.T) {
	from, to := dir(t), dir(t)
	files(t, from, "f=1")
	mkfifo(t, to+"/p")
	if err := os.Symlink("/dev/null", to+"/null"); err != nil {
		t.Fatal(err)
	}
	for _, dst := range []string{to + "/p", to + "/null", "/dev/null"} {
		if _, err := transfer.Out(context.Background(), opened(t, from), "f", dst, own()); err == nil || !strings.Contains(err.Error(), "not a file") {
			t.Errorf("%s: got %v", dst, err)
		}
	}
}

// TestProcOfHost: the host's own files without a size are read.
func TestProcOfHost(t *testing.T) {
	to := dir(t)
	if _, err := transfer.In(context.Background(), "/proc/self/comm", opened(t, to), "comm", own()); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(to + "/comm"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}
