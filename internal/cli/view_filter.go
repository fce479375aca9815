package cli

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus/store"
)

// matcher is one kind of filter for sandboxes.
type matcher struct {
	key    string
	values string // those that there are, separated by blanks; empty: any
	every  bool   // each filter of the kind must fit, not one of them
	ended  bool   // looks at sandboxes that do not run
	match  func(i *store.Info, value string) bool
}

// matchers are the filters of ps. since and before need the whole list.
func matchers() []matcher {
	return []matcher{
		{key: "status", values: "created running paused restarting exited broken", ended: true,
			match: func(i *store.Info, v string) bool { return i.State == v }},
		{key: "name", match: func(i *store.Info, v string) bool { return strings.Contains(i.Name, v) }},
		{key: "id", match: func(i *store.Info, v string) bool { return strings.HasPrefix(i.ID, v) }},
		{key: "label", every: true, match: func(i *store.Info, v string) bool {
			key, value, valued := strings.Cut(v, "=")
			got, has := i.Labels[key]
			return has && (!valued || got == value)
		}},
		{key: "exited", ended: true, match: func(i *store.Info, v string) bool {
			return i.State == "exited" && strconv.Itoa(i.ExitCode) == v
		}},
		{key: "health", values: "starting healthy unhealthy none", match: func(i *store.Info, v string) bool { return cmp.Or(i.Health, "none") == v }},
		{key: "since", ended: true},
		{key: "before", ended: true},
	}
}

// checkFilters refuses filters that fit nothing because they are misspelt.
func checkFilters(filters []filter) error {
	all := matchers()
	for _, f := range filters {
		at := slices.IndexFunc(all, func(m matcher) bool { return m.key == f.key })
		if at < 0 {
			return unknownFilter(f.key, "status, name, id, label, exited, health, since and before")
		}
		if known := strings.Fields(all[at].values); len(known) > 0 && !slices.Contains(known, f.value) {
			return usageError(fmt.Sprintf("--filter: %s is not a %s: those are %s", quote(f.value), f.key, strings.Join(known, ", ")))
		}
		if f.key == "exited" {
			if _, err := number(f.value, math.MaxUint8); err != nil {
				return usageError("--filter: exited: " + err.Error())
			}
		}
	}
	return nil
}

func unknownFilter(key, known string) error {
	return usageError("--filter: there is no filter " + quote(key) + "; there are " + known)
}

// choose leaves the sandboxes that were asked for, the newest first.
func (o *viewOptions) choose(all []store.Info) ([]store.Info, error) {
	slices.Reverse(all)
	kept, ended, err := o.filtered(all)
	if err != nil {
		return nil, err
	}
	if !o.all && !ended && o.last == 0 {
		kept = slices.DeleteFunc(kept, func(i store.Info) bool { return i.State == "created" || i.State == "exited" })
	}
	if o.last > 0 {
		kept = kept[:min(o.last, len(kept))]
	}
	return kept, nil
}

// filtered is choose for the filters alone. ended says that they are about
// sandboxes that do not run, too.
func (o *viewOptions) filtered(all []store.Info) (kept []store.Info, ended bool, err error) {
	after, before := time.Time{}, time.Time{}
	for _, f := range o.filters {
		if f.key != "since" && f.key != "before" {
			continue
		}
		ref, err := refIn(all, f.value)
		if err != nil {
			return nil, false, err
		}
		if f.key == "since" && (after.IsZero() || ref.Created.Before(after)) {
			after = ref.Created
		}
		if f.key == "before" && ref.Created.After(before) {
			before = ref.Created
		}
	}
	kept = all
	for _, m := range matchers() {
		var values []string
		for _, f := range o.filters {
			if f.key == m.key {
				values = append(values, f.value)
			}
		}
		if len(values) == 0 {
			continue
		}
		ended = ended || m.ended
		kept = slices.DeleteFunc(kept, func(i store.Info) bool {
			switch m.key {
			case "since":
				return !i.Created.After(after)
			case "before":
				return i.Created.IsZero() || !i.Created.Before(before)
			}
			fits := 0
			for _, v := range values {
				if m.match(&i, v) {
					fits++
				}
			}
			return fits == 0 || m.every && fits < len(values)
		})
	}
	return kept, ended, nil
}

// refIn finds a sandbox in a list by its name, or the beginning of its id.
func refIn(all []store.Info, ref string) (*store.Info, error) {
	var found *store.Info
	for i := range all {
		if ref != "" && (all[i].Name == ref || all[i].ID == ref) {
			return &all[i], nil
		}
		if strings.HasPrefix(all[i].ID, ref) && len(ref) >= 2 {
			if found != nil {
				return nil, fmt.Errorf("%s is the beginning of more than one id: %w", quote(ref), store.ErrAmbiguous)
			}
			found = &all[i]
		}
	}
	if found == nil {
		return nil, fmt.Errorf("no sandbox %s: %w", quote(ref), store.ErrNotFound)
	}
	return found, nil
}
