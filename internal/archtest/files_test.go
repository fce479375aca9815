package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// file is one Go file of the module.
type file struct {
	name string // from the module's root
	pkg  string // its directory
	test bool
	src  string
	fset *token.FileSet
	tree *ast.File
}

// tree is what the walk found: Go files, and names of assembly and C files.
type tree struct {
	files []*file
	other []string
}

// parseAll reads the module once. It reads files in this process, not through a
// child "go list", so that the test cache notices when one of them changes.
var parseAll = sync.OnceValues(func() (tree, error) {
	var all tree
	root := os.DirFS("../..")
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != "." && (skipped[d.Name()] || strings.HasPrefix(d.Name(), ".")) {
				return fs.SkipDir
			}
			return nil
		}
		switch path.Ext(name) {
		case ".s", ".S", ".c", ".h":
			all.other = append(all.other, name)
		case ".go":
			src, err := fs.ReadFile(root, name)
			if err != nil {
				return err
			}
			f, err := parse(name, string(src))
			if err != nil {
				return err
			}
			all.files = append(all.files, f)
		}
		return nil
	})
	return all, err
})

// skipped are directories that hold no code of ours.
var skipped = map[string]bool{"testdata": true, "vendor": true, "bin": true}

func parse(name, src string) (*file, error) {
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, name, src, parser.ParseComments)
	return &file{
		name: name, pkg: path.Dir(name), test: strings.HasSuffix(name, "_test.go"),
		src: src, fset: fset, tree: parsed,
	}, err
}

// check applies rule to every file and reports what it returns.
func check(t *testing.T, rule func(*file) []string) {
	t.Helper()
	all, err := parseAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(all.files) == 0 {
		t.Fatal("the module has no Go files: wrong directory")
	}
	for _, f := range all.files {
		for _, wrong := range rule(f) {
			t.Errorf("%s: %s", f.name, wrong)
		}
	}
}

func (f *file) imports() []string {
	var all []string
	for _, spec := range f.tree.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if err == nil {
			all = append(all, imp)
		}
	}
	return all
}

// localName returns the name that f knows the import under, or "".
func (f *file) localName(imp string) string {
	for _, spec := range f.tree.Imports {
		if spec.Path.Value != strconv.Quote(imp) {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path.Base(imp)
	}
	return ""
}

// uses returns the names that f selects from the import, in order.
func (f *file) uses(imp string) []string {
	local := f.localName(imp)
	if local == "" {
		return nil
	}
	var names []string
	ast.Inspect(f.tree, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && isName(sel.X, local) {
			names = append(names, sel.Sel.Name)
		}
		return true
	})
	return names
}

// calls returns the names from the import that f calls, in order.
func (f *file) calls(imp string) []string {
	local := f.localName(imp)
	if local == "" {
		return nil
	}
	var names []string
	ast.Inspect(f.tree, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok && isName(sel.X, local) {
				names = append(names, sel.Sel.Name)
			}
		}
		return true
	})
	return names
}

func (f *file) line(p token.Pos) int { return f.fset.Position(p).Line }

// isName reports whether e is the identifier name and no local variable of that name.
func isName(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name && id.Obj == nil
}
