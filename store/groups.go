package store

import "errors"

// Groups are the directories of the control groups of the last run, which are
// gone when that has ended; none before the first one, or if it had none.
func (b *Sandbox) Groups() ([]string, error) {
	id, err := b.identity()
	if errors.Is(err, ErrNotRunning) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return id.Groups(), nil
}
