package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus/spec"
)

// shellCommand reads a command as docker does: words for a shell, or a JSON
// array of arguments.
func shellCommand(v string) ([]string, error) {
	if strings.TrimSpace(v) == "" {
		return nil, errors.New("the command is empty")
	}
	var argv []string
	err := json.Unmarshal([]byte(v), &argv)
	switch {
	case err == nil && (len(argv) == 0 || argv[0] == ""):
		return nil, fmt.Errorf("%s names no program", quote(v))
	case err == nil:
		return argv, nil
	case strings.HasPrefix(strings.ReplaceAll(v, " ", ""), `["`): // [ alone is a program too
		return nil, fmt.Errorf("%s is not a JSON array of strings: %w", quote(v), err)
	}
	return []string{"/bin/sh", "-c", v}, nil
}

func addHook(to *[]spec.Hook, path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%s is not an absolute path", quote(path))
	}
	*to = append(*to, spec.Hook{Path: path})
	return nil
}

// ociHooks is the object "hooks" of the OCI runtime specification, config.md.
type ociHooks struct {
	Prestart        []ociHook `json:"prestart"`
	CreateRuntime   []ociHook `json:"createRuntime"`
	CreateContainer []ociHook `json:"createContainer"`
	StartContainer  []ociHook `json:"startContainer"`
	Poststart       []ociHook `json:"poststart"`
	Poststop        []ociHook `json:"poststop"`
}

type ociHook struct {
	Path    string   `json:"path"`
	Args    []string `json:"args"`
	Env     []string `json:"env"`
	Timeout *int64   `json:"timeout"` // seconds
}

// hooksFile reads --hooks.
func hooksFile(o *options, path string) error {
	if path == "" {
		return errors.New("the value is empty")
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // it was only read
	const most = 1 << 20
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return err
	}
	if len(data) > most {
		return fmt.Errorf("%s has more than %d bytes", quote(path), most)
	}
	h, err := parseHooks(data)
	if err == nil {
		err = h.add(&o.life.service.Hooks)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", quote(path), err)
	}
	return nil
}

// parseHooks takes the object itself, in which nothing may be misspelt, or a
// whole configuration, in which there is much that is not ours.
func parseHooks(data []byte) (h ociHooks, err error) {
	var whole struct {
		Hooks json.RawMessage `json:"hooks"`
	}
	if err := json.Unmarshal(data, &whole); err != nil {
		return h, err
	}
	if whole.Hooks != nil {
		data = whole.Hooks
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return h, d.Decode(&h)
}

// add takes the hooks over.
func (h ociHooks) add(to *spec.Hooks) error {
	if len(h.CreateContainer) > 0 || len(h.StartContainer) > 0 {
		return errors.New("hooks that run inside of the sandbox (createContainer, startContainer) do not exist here")
	}
	for _, phase := range [...]struct {
		from []ociHook
		to   *[]spec.Hook
	}{{h.Prestart, &to.CreateRuntime}, {h.CreateRuntime, &to.CreateRuntime}, {h.Poststart, &to.Poststart}, {h.Poststop, &to.Poststop}} {
		for _, hook := range phase.from {
			if err := hook.add(phase.to); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h ociHook) add(to *[]spec.Hook) error {
	const longest = 1 << 32 // seconds
	if err := addHook(to, h.Path); err != nil {
		return err
	}
	last := &(*to)[len(*to)-1]
	last.Args, last.Env = h.Args, h.Env
	if h.Timeout == nil {
		return nil
	}
	if *h.Timeout < 1 || *h.Timeout > longest {
		return fmt.Errorf("hook %s: a timeout of %d seconds", quote(h.Path), *h.Timeout)
	}
	last.Timeout = time.Duration(*h.Timeout) * time.Second
	return nil
}
