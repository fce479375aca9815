package store

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/nucleus-container/nucleus"
)

// Denied is what one run was refused. It is kept for the last run of a user that
// was refused anything, whether it is in the store or not.
type Denied struct {
	Name    string           `json:"name,omitempty"`
	Command []string         `json:"command,omitempty"`
	Outcome string           `json:"outcome"`
	Ended   time.Time        `json:"ended,omitzero"`
	Denials []nucleus.Denial `json:"denials"`
}

const deniedFile = "denials.json"

// mostDenied bounds the file, which a workload fills.
const mostDenied = 4 << 20

// KeepDenied replaces what is kept.
func (s *Store) KeepDenied(d Denied) error {
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if len(b) > mostDenied {
		return fmt.Errorf("keep what was refused: %d bytes are too many", len(b))
	}
	f, err := os.CreateTemp(s.Path(), ".denials-")
	if err != nil {
		return fmt.Errorf("keep what was refused: %w", err)
	}
	_, err = f.Write(b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(s.Path(), deniedFile))
	}
	if err != nil {
		_ = os.Remove(f.Name()) // what went wrong is said already
		return fmt.Errorf("keep what was refused: %w", err)
	}
	return nil
}

// LastDenied returns what is kept; fs.ErrNotExist says that nothing is.
func (s *Store) LastDenied() (d Denied, err error) {
	b, err := os.ReadFile(filepath.Join(s.Path(), deniedFile))
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return d, fmt.Errorf("%s: %w: %w", filepath.Join(s.Path(), deniedFile), fs.ErrInvalid, err)
	}
	return d, nil
}
