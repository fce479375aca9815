package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// stage is a directory with everything that an environment needs: the source
// tree in src, test binaries in tests, programs in bin, and the manifest.
type stage string

func (s stage) path(elem ...string) string {
	return filepath.Join(append([]string{string(s)}, elem...)...)
}

// manifest says what to run.
type manifest struct {
	Tests   []test
	New     []test        // those for the machine with the newer kernel
	Run     string        // -test.run
	Timeout time.Duration // of one binary where Slow is 1
}

func (s stage) manifest() (m manifest, err error) {
	data, err := os.ReadFile(s.path("manifest.json"))
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(data, &m)
}

// of returns what an environment runs.
func (m manifest) of(env string) []test {
	if env == guestNew {
		return m.New
	}
	return m.Tests
}

// test is one package with tests.
type test struct {
	Pkg    string // from the module's root
	Binary string // from the stage
	Run    string `json:",omitempty"` // -test.run in place of the manifest's
}

// build checks the tree, then stages the sources, programs and test binaries. A
// package that does not build is a failure in the report, not the end.
func build(ctx context.Context, st stage, c config, all *report) error {
	checks(ctx, all)
	if err := copyTree(".", st.path("src")); err != nil {
		return fmt.Errorf("copy the tree: %w", err)
	}
	for _, dir := range []string{"bin", "tests"} {
		if err := os.MkdirAll(st.path(dir), 0o755); err != nil {
			return err
		}
	}
	if err := buildPrograms(ctx, st, all); err != nil {
		return err
	}
	// Tests that call the go command find the dependencies in the tree: the
	// ordinary user cannot read root's module cache.
	if err := goCommand(ctx, nil, "mod", "vendor", "-o", st.path("src/vendor")); err != nil {
		progress("build: no vendor directory: %v", err)
	}
	pkgs, err := listTests(ctx, c.patterns)
	if err != nil {
		return err
	}
	m := manifest{Run: c.run, Timeout: c.timeout}
	for _, pkg := range pkgs {
		name := "tests/" + binaryName(pkg)
		began := time.Now()
		if err := goCommand(ctx, nil, "test", "-c", "-o", st.path(name), "./"+pkg); err != nil {
			all.add(result{Env: "build", Pkg: pkg, Exit: 1, Output: err.Error()})
			continue
		}
		progress("build: %-22s %5.1fs", pkg, time.Since(began).Seconds())
		m.Tests = append(m.Tests, test{Pkg: pkg, Binary: name})
	}
	if c.guest {
		has := func(t test) (bool, error) { return st.hasNewKernelTest(ctx, t) }
		if m.New, err = forNewKernel(m.Tests, m.Run, has); err != nil {
			return err
		}
	}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return os.WriteFile(st.path("manifest.json"), data, 0o644)
}

// checks adds a failure for each way in which the tree is not in order.
func checks(ctx context.Context, all *report) {
	arm := []string{"GOARCH=arm64"}
	for _, c := range []struct {
		name string
		run  func() error
	}{
		{"gofmt", func() error { return checkFormat(ctx) }},
		{"go vet", func() error { return goCommand(ctx, nil, "vet", "./...") }},
		{"go build", func() error { return goCommand(ctx, nil, "build", "-buildvcs=false", "./...") }},
		{"go build, arm64", func() error { return goCommand(ctx, arm, "build", "-buildvcs=false", "./...") }},
		{"go vet, arm64", func() error { return goCommand(ctx, arm, "vet", "./...") }},
	} {
		began := time.Now()
		err := c.run()
		progress("check: %-22s %5.1fs %s", c.name, time.Since(began).Seconds(), word(err))
		if err != nil {
			all.add(result{Env: "build", Pkg: c.name, Exit: 1, Output: err.Error()})
		}
	}
}

func word(err error) string {
	if err != nil {
		return "FAIL"
	}
	return "ok"
}

func checkFormat(ctx context.Context) error {
	var files []string
	err := walkTree(".", func(path string, d fs.DirEntry) error {
		if filepath.Ext(path) == ".go" && !strings.Contains(path, "testdata/") {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "gofmt", append([]string{"-l"}, files...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("gofmt: %w\n%s", err, out)
	}
	if len(out) > 0 {
		return fmt.Errorf("not formatted:\n%s", out)
	}
	return nil
}

// buildPrograms builds every program under cmd, and this one for -exec.
func buildPrograms(ctx context.Context, st stage, all *report) error {
	mains := []string{"./internal/suite"}
	entries, err := os.ReadDir("cmd")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		mains = append(mains, "./cmd/"+e.Name())
	}
	for _, pkg := range mains {
		out := st.path("bin", filepath.Base(pkg))
		if err := goCommand(ctx, nil, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, pkg); err != nil {
			if pkg == mains[0] {
				return err
			}
			all.add(result{Env: "build", Pkg: pkg, Exit: 1, Output: err.Error()})
		}
	}
	return nil
}

// listTests returns the packages that have tests, in order of name.
func listTests(ctx context.Context, patterns []string) ([]string, error) {
	if len(patterns) == 0 {
		patterns = []string{"./..."}
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-e", "-f",
		"{{if or .TestGoFiles .XTestGoFiles}}{{.Dir}}{{end}}"}, patterns...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	var pkgs []string
	for _, dir := range strings.Fields(string(out)) {
		pkg, err := filepath.Rel(root, dir)
		if err != nil {
			return nil, err
		}
		pkgs = append(pkgs, pkg)
	}
	slices.Sort(pkgs)
	return pkgs, nil
}

// binaryName is one file name per package; the root of the module has no name.
func binaryName(pkg string) string {
	if pkg == "." {
		return "root.test"
	}
	return strings.ReplaceAll(pkg, "/", "_") + ".test"
}

// goCommand runs the go command; the error has its output.
func goCommand(ctx context.Context, env []string, arg ...string) error {
	cmd := exec.CommandContext(ctx, "go", arg...)
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(arg, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// walkTree visits the files of the repository that are not built or cached.
func walkTree(root string, visit func(path string, d fs.DirEntry) error) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // an editor's temporary file
			}
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{".git", ".cache", "bin", "vendor"}, rel) {
				return fs.SkipDir
			}
			return nil
		}
		return visit(rel, d)
	})
}

func copyTree(from, to string) error {
	return walkTree(from, func(path string, d fs.DirEntry) error {
		src, dst := filepath.Join(from, path), filepath.Join(to, path)
		if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(src)
			if err != nil {
				return err
			}
			return os.Symlink(target, dst)
		}
		info, err := d.Info()
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		data, err := os.ReadFile(src)
		if err != nil {
			return err
		}
		return os.WriteFile(dst, data, 0o644|info.Mode()&0o111)
	})
}
