package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
	"testing"
)

// A rule looks at one file and says what is wrong with it.
type rule struct {
	name  string
	check func(*file) []string
	// broken is a file that the rule must refuse: a rule that cannot fail is no rule.
	broken, source string
}

var rules = []rule{
	{"unsafe", checkUnsafe, "internal/kernel/a.go", `package a; import _ "unsafe"`},
	{"linkname", checkLinkname, "spec/a.go", "package a\n//go:linkname x y\n"},
	{"init", checkInit, "internal/cli/a.go", "package a; func init() {}"},
	{"exit", checkLibrary, "internal/enter/a.go", `package a; import "os"; func f() { os.Exit(1) }`},
	{"panic", checkLibrary, "spec/a.go", `package a; func f() { panic(1) }`},
	{"log", checkLibrary, "internal/host/a.go", `package a; import "log"; func f() { log.Print() }`},
	{"slog", checkLibrary, "a.go", `package a; import "log/slog"; func f() { slog.Default() }`},
	{"file length", checkLength, "spec/a.go", "package a\n" + strings.Repeat("\n", maxFile)},
	{"function length", checkLength, "spec/a.go", "package a\nfunc f() {" + strings.Repeat("\n", maxFunc) + "}"},
	{"skip", checkSkip, "spec/a_test.go", `package a; func TestX(t *testing.T) { t.Skip("no") }`},
	{"raw syscall", checkRaw, "internal/host/a.go", `package a; import "syscall"; var _ = syscall.RawSyscall6`},
	{"raw unix", checkRaw, "internal/host/a.go", `package a; import "golang.org/x/sys/unix"; var _ = unix.SyscallNoError`},
}

func TestRules(t *testing.T) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			f, err := parse(r.broken, r.source)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.check(f)) == 0 {
				t.Errorf("the rule accepts %s: %s", r.broken, r.source)
			}
			check(t, r.check)
		})
	}
}

// unsafeHomes are the packages with files named *_unsafe.go. pid1 and logger are
// two because they hand out the bytes of their own code, which lie in the
// program's text.
var unsafeHomes = []string{"internal/child", "internal/kernel", "internal/pid1", "internal/logger"}

// checkUnsafe leaves tests alone: they compare sizes and offsets of structures.
func checkUnsafe(f *file) []string {
	if f.test || !slices.Contains(f.imports(), "unsafe") {
		return nil
	}
	if slices.Contains(unsafeHomes, f.pkg) && strings.HasSuffix(f.name, "_unsafe.go") {
		return nil
	}
	return []string{"imports unsafe outside *_unsafe.go of " + strings.Join(unsafeHomes, ", ")}
}

func checkLinkname(f *file) (wrong []string) {
	for _, group := range f.tree.Comments {
		for _, c := range group.List {
			if strings.HasPrefix(c.Text, "//go:linkname") {
				wrong = append(wrong, fmt.Sprintf("line %d: go:linkname breaks with the next Go", f.line(c.Pos())))
			}
		}
	}
	return wrong
}

func checkInit(f *file) (wrong []string) {
	for _, d := range f.tree.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if ok && fn.Recv == nil && fn.Name.Name == "init" && !strings.HasPrefix(f.pkg, "cmd/") {
			wrong = append(wrong, fmt.Sprintf("line %d: func init runs in every program that imports this", f.line(fn.Pos())))
		}
	}
	return wrong
}

// checkLibrary refuses what a library must leave to the program around it.
func checkLibrary(f *file) (wrong []string) {
	if f.test || !slices.Contains(library, f.pkg) {
		return nil
	}
	if slices.Contains(f.uses("os"), "Exit") {
		wrong = append(wrong, "os.Exit ends somebody else's program")
	}
	if slices.Contains(f.imports(), "log") {
		wrong = append(wrong, "log writes to somebody else's stderr")
	}
	for _, name := range f.uses("log/slog") {
		if name == "Default" || name == "SetDefault" {
			wrong = append(wrong, "slog."+name+" is the program's, not ours")
		}
	}
	ast.Inspect(f.tree, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && isName(call.Fun, "panic") {
			wrong = append(wrong, fmt.Sprintf("line %d: panic ends somebody else's program", f.line(call.Pos())))
		}
		return true
	})
	return wrong
}

// What fits: a file in one sitting, a function on one screen.
const (
	maxFile = 600
	maxFunc = 60
)

// checkLength does not count the lines of tables inside a function.
func checkLength(f *file) (wrong []string) {
	if f.test || ast.IsGenerated(f.tree) {
		return nil
	}
	if n := strings.Count(f.src, "\n"); n > maxFile {
		wrong = append(wrong, fmt.Sprintf("%d lines, at most %d", n, maxFile))
	}
	for _, d := range f.tree.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		if n := f.line(fn.End()) - f.line(fn.Pos()) + 1 - tableLines(f, fn.Body); n > maxFunc {
			wrong = append(wrong, fmt.Sprintf("func %s has %d lines, at most %d", fn.Name.Name, n, maxFunc))
		}
	}
	return wrong
}

func tableLines(f *file, body ast.Node) (lines int) {
	ast.Inspect(body, func(n ast.Node) bool {
		lit, ok := n.(*ast.CompositeLit)
		if ok {
			lines += f.line(lit.End()) - f.line(lit.Pos())
		}
		return !ok
	})
	return lines
}

// checkSkip sends every skip through sandboxtest.Need, whose reasons are counted.
func checkSkip(f *file) (wrong []string) {
	if f.pkg == "internal/sandboxtest" {
		return nil
	}
	ast.Inspect(f.tree, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok || !slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
			return true
		}
		if id, ok := sel.X.(*ast.Ident); ok && slices.Contains([]string{"t", "b", "f", "tb"}, id.Name) {
			wrong = append(wrong, fmt.Sprintf("line %d: skip through sandboxtest.Need", f.line(sel.Pos())))
		}
		return true
	})
	return wrong
}

// rawHomes may make system calls by number. sandboxtest asks the kernel for
// features without the code under test in between, and suite adopts the processes
// that tests lose; neither is installed.
var rawHomes = []string{"internal/kernel", "internal/child", "internal/sandboxtest", "internal/suite"}

func checkRaw(f *file) (wrong []string) {
	if f.test || slices.Contains(rawHomes, f.pkg) {
		return nil
	}
	for _, imp := range []string{"syscall", "golang.org/x/sys/unix"} {
		for _, name := range f.uses(imp) {
			if strings.HasPrefix(name, "RawSyscall") || name == "AllThreadsSyscall" || strings.HasPrefix(name, "Syscall") {
				wrong = append(wrong, path.Base(imp)+"."+name+": add a typed wrapper to internal/kernel")
			}
		}
	}
	return wrong
}

// asmHomes are the packages with assembly: what runs between clone and exec, and
// the programs of one page that stay beside a sandbox, its process 1 and its log
// writer. They may hold nothing of ours in memory, so they have no Go runtime.
var asmHomes = []string{"internal/child", "internal/pid1", "internal/logger"}

func TestAssembly(t *testing.T) {
	all, err := parseAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all.other {
		pkg := path.Dir(name)
		if path.Ext(name) != ".s" || !slices.Contains(asmHomes, pkg) {
			t.Errorf("%s: assembly stands in %s only, C nowhere", name, strings.Join(asmHomes, ", "))
		}
	}
}

func TestPackageComments(t *testing.T) {
	all, err := parseAll()
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, f := range all.files {
		if !f.test {
			doc := f.tree.Doc.Text()
			good := strings.HasPrefix(doc, "Package "+f.tree.Name.Name+" ") ||
				f.tree.Name.Name == "main" && strings.HasPrefix(doc, "Command ")
			documented[f.pkg] = documented[f.pkg] || good
		}
	}
	for pkg, ok := range documented {
		if !ok {
			t.Errorf("%s: no package comment that begins with its name", pkg)
		}
	}
}

// TestVariablesStayAsTheyAre finds assignments to package-level variables. It
// does not follow pointers to them.
func TestVariablesStayAsTheyAre(t *testing.T) {
	all, err := parseAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range assignedVariables(all.files) {
		t.Error(wrong)
	}
	broken, err := parse("a/a.go", "package a; var x, y []int; func f() { x = nil }; func g() { x := y; x = y; _ = x }")
	if err != nil {
		t.Fatal(err)
	}
	if got := assignedVariables([]*file{broken}); len(got) != 1 {
		t.Errorf("got %q, want the one assignment in f", got)
	}
}

func assignedVariables(files []*file) (wrong []string) {
	variables := map[string]bool{} // "pkg name"
	for _, f := range files {
		for _, id := range packageVariables(f) {
			variables[f.pkg+" "+id.Name] = true
		}
	}
	for _, f := range files {
		if f.test {
			continue
		}
		top := map[*ast.Object]bool{nil: true} // nil: declared in another file
		for _, id := range packageVariables(f) {
			top[id.Obj] = true
		}
		for _, e := range assigned(f.tree) {
			if id := rootName(e); id != nil && top[id.Obj] && variables[f.pkg+" "+id.Name] {
				wrong = append(wrong, fmt.Sprintf("%s: line %d: %s is a package-level variable and is assigned after init",
					f.name, f.line(id.Pos()), id.Name))
			}
		}
	}
	return wrong
}

func packageVariables(f *file) (names []*ast.Ident) {
	for _, d := range f.tree.Decls {
		if gen, ok := d.(*ast.GenDecl); ok && gen.Tok == token.VAR && !f.test {
			for _, s := range gen.Specs {
				names = append(names, s.(*ast.ValueSpec).Names...)
			}
		}
	}
	return names
}

// assigned returns the left sides of every assignment in functions of tree.
func assigned(tree *ast.File) (left []ast.Expr) {
	ast.Inspect(tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				left = append(left, n.Lhs...)
			}
		case *ast.IncDecStmt:
			left = append(left, n.X)
		case *ast.RangeStmt:
			if n.Tok == token.ASSIGN {
				left = append(left, n.Key, n.Value)
			}
		}
		return true
	})
	return left
}

func rootName(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}
