package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus/event"
	"github.com/nucleus-container/nucleus/spec"
)

// Version is the version of the files that this program reads and writes. Files
// of any other are left alone.
const Version = 1

// Config is what was asked for.
type Config struct {
	Version int               `json:"version"`
	ID      string            `json:"id"`
	Name    string            `json:"name,omitempty"`
	Created time.Time         `json:"created,omitzero"`
	Sandbox spec.Sandbox      `json:"sandbox"`
	Command []string          `json:"command,omitempty"`
	Service spec.Service      `json:"service"`
	LogDir  string            `json:"log_dir,omitempty"` // absolute; empty: there is none
	Labels  map[string]string `json:"labels,omitempty"`
}

// Display is what people call it: its name, or the beginning of its id.
func (c *Config) Display() string {
	if c.Name != "" {
		return c.Name
	}
	return Short(c.ID)
}

// State is how far a sandbox's life had come when its record was written.
type State string

// The states. A created sandbox without a process is a start that never happened.
const (
	StateCreated State = "created"
	StateRunning State = "running"
	StateEnded   State = "ended"
)

// Outcome is how a run ended.
type Outcome struct {
	Reason string `json:"reason"`
	Code   int    `json:"code"`
	Signal int    `json:"signal,omitempty"`
	Detail string `json:"detail,omitempty"`
	Hint   string `json:"hint,omitempty"` // what to do, if it was not started
	// Usage is what the run used, if its control group could tell.
	Usage *event.Usage `json:"usage,omitempty"`
}

// Proc is a process: its number, and its start time in clock ticks after boot
// (field 22 of /proc/PID/stat), which tell it from a later one of that number.
type Proc struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// Record is what happened, as far as it was noticed.
type Record struct {
	Version      int             `json:"version"`
	State        State           `json:"state"`
	Boot         string          `json:"boot"`               // the boot that this is about
	Identity     json.RawMessage `json:"identity,omitempty"` // nucleus.Identity
	Pid          int             `json:"pid,omitempty"`
	StartTicks   uint64          `json:"start_ticks,omitempty"`
	Run          int             `json:"run,omitempty"` // starts so far
	Restarts     int             `json:"restarts,omitempty"`
	Started      time.Time       `json:"started,omitzero"`
	Ended        time.Time       `json:"ended,omitzero"`
	Outcome      *Outcome        `json:"outcome,omitempty"`
	Stopped      bool            `json:"stopped,omitempty"` // the user asked for the end
	Paused       bool            `json:"paused,omitempty"`
	Keeper       *Proc           `json:"keeper,omitempty"`
	Logger       *Proc           `json:"logger,omitempty"`
	Health       string          `json:"health,omitempty"`
	HealthDetail string          `json:"health_detail,omitempty"`
	Ready        bool            `json:"ready,omitempty"`
	Status       string          `json:"status,omitempty"` // STATUS= of sd_notify
	Unit         string          `json:"unit,omitempty"`   // systemd unit
}

const (
	idLen    = 16
	shortLen = 12
	maxFile  = 4 << 20 // of a configuration or record; the kernel takes 2 MiB of arguments
)

// Short is the part of an id that is shown.
func Short(id string) string { return id[:min(len(id), shortLen)] }

func validID(s string) bool { return len(s) == idLen && isHex(s) }

func isHex(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') })
}

// checkName accepts what is a sandbox's name elsewhere too. Such a name is also
// safe as a file's: it has no slash and does not begin with a dot.
func checkName(name string) error {
	if name == "" {
		return &spec.Problem{Field: "name", Why: "it is empty"}
	}
	return (&spec.Sandbox{Name: name}).Validate()
}

// decodeConfig reads the configuration of sandbox id.
func decodeConfig(id, path string, b []byte) (*Config, error) {
	var c Config
	err := decode(path, b, &c, &c.Version)
	switch {
	case err != nil:
		return nil, err
	case c.ID != id:
		return nil, broken(path, fmt.Errorf("it is about sandbox %q", c.ID))
	case c.Name != "" && checkName(c.Name) != nil:
		return nil, broken(path, checkName(c.Name))
	case c.LogDir != "" && (!filepath.IsAbs(c.LogDir) || filepath.Clean(c.LogDir) != c.LogDir):
		return nil, broken(path, fmt.Errorf("log_dir %q is not a clean absolute path", c.LogDir))
	}
	return &c, nil
}

func decodeRecord(path string, b []byte) (*Record, error) {
	var r Record
	if err := decode(path, b, &r, &r.Version); err != nil {
		return nil, err
	}
	switch r.State {
	case StateCreated, StateRunning, StateEnded:
		return &r, nil
	}
	return nil, broken(path, fmt.Errorf("state %q", r.State))
}

// decode decodes b into v, whose version is then at version. A file of another
// version may not even fit into v: the version decides first.
func decode(path string, b []byte, v any, version *int) error {
	err := json.Unmarshal(b, v)
	if err == nil && *version == Version {
		return nil
	}
	found, verr := versionOf(path, b)
	if verr != nil {
		return verr
	}
	if found != Version {
		return fail(ErrVersion, "%s has version %d, this nucleus reads version %d: use the nucleus that wrote it", path, found, Version)
	}
	if err == nil {
		err = errors.New("it states its version twice")
	}
	return broken(path, err)
}

func versionOf(path string, b []byte) (int, error) {
	var v struct {
		Version *int `json:"version"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return 0, broken(path, err)
	}
	if v.Version == nil {
		return 0, broken(path, errors.New("it has no version"))
	}
	return *v.Version, nil
}

func encode(path string, v any) ([]byte, error) {
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	out.SetEscapeHTML(false) // people read it too
	err := out.Encode(v)
	if err == nil && b.Len() > maxFile {
		err = fmt.Errorf("%d bytes are more than %d", b.Len(), maxFile)
	}
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return b.Bytes(), nil
}

// encodeConfig refuses what JSON cannot hold: arguments and paths may be any
// bytes, and a sandbox that is started again must get the same ones.
func encodeConfig(id, path string, c *Config) ([]byte, error) {
	b, err := encode(path, c)
	if err != nil {
		return nil, err
	}
	if lossy(b) {
		return nil, fmt.Errorf("write %s: the command or another part of the configuration is not UTF-8", path)
	}
	_, err = decodeConfig(id, path, b)
	return b, err
}

// lossy reports whether encoding/json put its replacement for bytes that are
// not UTF-8 into b. A U+FFFD that was there before is not escaped.
func lossy(b []byte) bool {
	for {
		_, rest, found := bytes.Cut(b, []byte(`\`))
		switch {
		case !found:
			return false
		case bytes.HasPrefix(rest, []byte("ufffd")):
			return true
		}
		b = rest[1:] // whatever was escaped, a backslash too
	}
}
