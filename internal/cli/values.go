package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/nucleus-container/nucleus/spec"
)

// quote quotes what came from outside, so that a message stays one line and
// sends a terminal no commands.
func quote(s string) string {
	const longest = 80
	if len(s) > longest {
		return strconv.QuoteToASCII(s[:longest]) + "..."
	}
	return strconv.Quote(s)
}

// number reads a decimal number, strictly: digits, nothing else.
func number(v string, most uint64) (uint64, error) {
	if v == "" || strings.Trim(v, "0123456789") != "" {
		return 0, fmt.Errorf("%s is not a number", quote(v))
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil || n > most {
		return 0, fmt.Errorf("%s is more than %d", quote(v), most)
	}
	return n, nil
}

// size reads an amount of bytes: a number with K, M, G or T for powers of 1024.
// Zero is refused: to the library it means that nothing was asked for.
func size(v string) (spec.Bytes, error) {
	unit := spec.Bytes(1)
	digits := v
	if v != "" {
		switch v[len(v)-1] {
		case 'k', 'K':
			unit = spec.KiB
		case 'm', 'M':
			unit = spec.MiB
		case 'g', 'G':
			unit = spec.GiB
		case 't', 'T':
			unit = spec.TiB
		}
		if unit > 1 {
			digits = v[:len(v)-1]
		}
	}
	const most = math.MaxInt64 // what the kernel counts in
	n, err := number(digits, math.MaxUint64)
	if err != nil {
		return 0, fmt.Errorf("%s is not a size: digits, then K, M, G or T for powers of 1024", quote(v))
	}
	if n > most/uint64(unit) {
		return 0, fmt.Errorf("%s is too much: more than %d bytes", quote(v), uint64(most))
	}
	if n == 0 {
		return 0, fmt.Errorf("%s: must be more than 0; leave the flag out for the default", quote(v))
	}
	return spec.Bytes(n) * unit, nil
}

// milli reads a decimal fraction with up to three digits after the point, in
// thousandths.
func milli(v string) (uint64, error) {
	whole, frac, _ := strings.Cut(v, ".")
	bad := fmt.Errorf("%s is not a number of processors such as 2 or 0.5, with at most three digits after the point", quote(v))
	if whole == "" || len(frac) > 3 || strings.Trim(whole+frac, "0123456789") != "" || strings.HasSuffix(v, ".") {
		return 0, bad
	}
	n, err := number(whole, math.MaxInt32)
	if err != nil {
		return 0, err
	}
	f, err := number((frac + "000")[:3], 999)
	if err != nil {
		return 0, bad
	}
	if n == 0 && f == 0 {
		return 0, fmt.Errorf("%s: must be more than 0; leave the flag out for no limit", quote(v))
	}
	return n*1000 + f, nil
}

// duration reads 90s, 1m30s or a number of seconds.
func duration(v string) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if n, nerr := number(v, math.MaxInt64/uint64(time.Second)); nerr == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil {
		return 0, fmt.Errorf("%s is not a duration such as 30s, 1m30s or 2h, or a number of seconds", quote(v))
	}
	if d <= 0 {
		return 0, fmt.Errorf("%s: must be more than 0; leave the flag out for no timeout", quote(v))
	}
	return d, nil
}

// execSuffix takes ",exec" from the end of a place.
func execSuffix(v string) (string, bool) { return strings.CutSuffix(v, ",exec") }

func bind(v string) (*spec.Bind, error) {
	dir, exec := execSuffix(v)
	if dir == "" {
		return nil, fmt.Errorf("%s names no directory", quote(v))
	}
	return &spec.Bind{Source: dir, Exec: exec}, nil
}

// volume reads SRC:DST[:ro|rw][,exec].
func volume(v string) (spec.Volume, error) {
	rest, exec := execSuffix(v)
	part := strings.Split(rest, ":")
	if len(part) < 2 || len(part) > 3 || part[0] == "" || part[1] == "" {
		return spec.Volume{}, fmt.Errorf("%s is not SRC:DST[:ro|rw][,exec] (a path with a colon needs another name, such as a link)", quote(v))
	}
	vol := spec.Volume{Source: part[0], Target: part[1], Exec: exec}
	if len(part) < 3 {
		return vol, nil
	}
	switch part[2] {
	case "ro":
	case "rw":
		vol.Writable = true
	case "exec":
		if exec {
			return spec.Volume{}, fmt.Errorf("%s says exec twice", quote(v))
		}
		vol.Exec = true
	default:
		return spec.Volume{}, fmt.Errorf("%s: %s is not ro, rw or exec", quote(v), quote(part[2]))
	}
	return vol, nil
}

// tmpfs reads DST[:SIZE][,exec].
func tmpfs(v string) (t spec.Tmpfs, err error) {
	rest, exec := execSuffix(v)
	target, amount, has := strings.Cut(rest, ":")
	if target == "" {
		return t, fmt.Errorf("%s is not DST[:SIZE][,exec]", quote(v))
	}
	t = spec.Tmpfs{Target: target, Exec: exec}
	if has {
		t.Size, err = size(amount)
	}
	return t, err
}

// ioLimit reads "MAJ:MIN rbps=N wbps=N riops=N wiops=N".
func ioLimit(v string) (l spec.IOLimit, err error) {
	fields := strings.Fields(v)
	if len(fields) < 2 {
		return l, fmt.Errorf(`%s is not "MAJ:MIN KEY=N ..." with the keys rbps, wbps, riops, wiops`, quote(v))
	}
	major, minor, _ := strings.Cut(fields[0], ":")
	a, aerr := number(major, 1<<12-1)
	b, berr := number(minor, 1<<20-1)
	if aerr != nil || berr != nil {
		return l, fmt.Errorf("%s is not the number of a device such as 8:0 (see lsblk)", quote(fields[0]))
	}
	l.Major, l.Minor = uint32(a), uint32(b)
	for _, kv := range fields[1:] {
		key, amount, _ := strings.Cut(kv, "=")
		to := map[string]*uint64{"rbps": &l.ReadBPS, "wbps": &l.WriteBPS, "riops": &l.ReadIOPS, "wiops": &l.WriteIOPS}[key]
		switch {
		case to == nil:
			return l, fmt.Errorf("%s: the keys are rbps, wbps, riops and wiops", quote(kv))
		case *to != 0:
			return l, fmt.Errorf("%s is given twice", key)
		}
		n, err := size(amount)
		if err != nil {
			return l, fmt.Errorf("%s: %w", key, err)
		}
		*to = uint64(n)
	}
	return l, nil
}
