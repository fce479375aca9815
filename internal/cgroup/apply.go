package cgroup

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Write is one control file and what is written to it.
type Write struct{ Controller, File, Value string }

func (w Write) String() string { return w.File + "=" + w.Value }

// Apply changes limits of a group that is in use, all or none: if the kernel
// refuses one, those before it get their earlier values back, and the error says
// so. The order is Apply's, not the caller's: where the kernel wants one file to
// stay above another, they are written so that it always does.
//
// A memory limit below what is in use is not refused by version 2: the kernel
// reclaims what it can, and then kills, all of the group if memory.oom.group is
// set, before the write returns. Version 1 refuses it (EBUSY) after it has tried.
func (g *Group) Apply(writes []Write) error {
	writes = slices.Clone(writes)
	if err := g.order(writes); err != nil {
		return err
	}
	var undo []Write
	for _, w := range writes {
		old, err := g.earlier(w)
		if err == nil {
			err = g.Write(w.Controller, w.File, w.Value)
		}
		if err != nil {
			return g.takeBack(err, undo)
		}
		undo = append(undo, old)
	}
	return nil
}

// takeBack restores earlier values, the last first, so that every state on the
// way is one that has been. The error says what is in force.
func (g *Group) takeBack(err error, undo []Write) error {
	if g.scope != nil && !g.scope.made {
		return err
	}
	slices.Reverse(undo)
	var failed []error
	for _, w := range undo {
		if e := g.Write(w.Controller, w.File, w.Value); e != nil {
			failed = append(failed, e)
		}
	}
	switch {
	case len(failed) > 0:
		return fmt.Errorf("%w; and what was changed before it could not all be set back: %w", err, errors.Join(failed...))
	case len(undo) > 0:
		return fmt.Errorf("%w; the limits before it have their earlier values again", err)
	}
	return fmt.Errorf("%w; nothing was changed", err)
}

// earlier is the write that undoes w.
func (g *Group) earlier(w Write) (Write, error) {
	if g.scope != nil && !g.scope.made {
		return w, nil // waits for its group; nothing can be refused yet
	}
	now, err := g.Read(w.Controller, w.File)
	if err != nil {
		return Write{}, err
	}
	if device, _, ok := strings.Cut(w.Value, " "); ok && perDevice(w.File) {
		now = ofDevice(w.File, now, device)
	}
	return Write{w.Controller, w.File, now}, nil
}

// perDevice reports whether a file has a line for each device. A write changes
// one of them.
func perDevice(file string) bool {
	return file == "io.max" || strings.HasPrefix(file, "blkio.") && strings.HasSuffix(file, "_device")
}

// ofDevice is the line of a device, or one that says that it has no limit.
func ofDevice(file, content, device string) string {
	for line := range strings.Lines(content) {
		if name, _, _ := strings.Cut(line, " "); name == device {
			return strings.TrimSpace(line)
		}
	}
	if file == "io.max" {
		return device + " rbps=max wbps=max riops=max wiops=max"
	}
	return device + " 0"
}

// order sorts writes where the kernel is particular, which version 1 is.
func (g *Group) order(writes []Write) error {
	// Memory with swap may never be below memory. If the new limit fits under
	// the old sum it goes first, otherwise the sum makes room for it.
	err := g.swap(writes, "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", func(limit, _, _, sum int64) bool {
		return limit <= sum
	})
	if err != nil {
		return err
	}
	// Quota over period is the share, which may not be above that of the group
	// above. A longer period first, or a smaller quota, keeps it from growing
	// beyond both the old and the new one on the way.
	return g.swap(writes, "cpu.cfs_period_us", "cpu.cfs_quota_us", func(period, old, _, _ int64) bool {
		return period >= old
	})
}

// swap puts the writes to files a and b, if there are both, into the order that
// first says: whether a goes first, by the new and the old value of each.
func (g *Group) swap(writes []Write, a, b string, first func(aNew, aOld, bNew, bOld int64) bool) error {
	at := func(file string) int {
		return slices.IndexFunc(writes, func(w Write) bool { return w.File == file })
	}
	i, j := at(a), at(b)
	if i < 0 || j < 0 || g.scope != nil && !g.scope.made {
		return nil
	}
	var v [4]int64
	for n, k := range []int{i, j} {
		old, err := g.Read(writes[k].Controller, writes[k].File)
		if err != nil {
			return err
		}
		// A value that is not a number is the kernel's to refuse, in any order.
		if v[2*n], _ = strconv.ParseInt(writes[k].Value, 10, 64); v[2*n] < 0 {
			v[2*n] = math.MaxInt64 // no limit
		}
		if v[2*n+1], err = strconv.ParseInt(old, 10, 64); err != nil {
			return fmt.Errorf("read %s of %s: %w", writes[k].File, g.name, err)
		}
	}
	if first(v[0], v[1], v[2], v[3]) != (i < j) {
		writes[i], writes[j] = writes[j], writes[i]
	}
	return nil
}
