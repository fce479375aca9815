package rootfs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// Progress is how far a tree has been read. It may be asked at any time.
type Progress struct {
	Files atomic.Int64
	Bytes atomic.Int64
}

// Attest reads a whole directory, and the parts of a Nix store that it names.
// A symbolic link is an entry and is never followed, but for those that lead to
// dir. A device, pipe or socket is an error, as is a mount: it is not the
// directory's own. So is a file that changes meanwhile.
func Attest(ctx context.Context, dir string, p *Progress) (*Manifest, error) {
	root, err := Open(dir)
	if err != nil {
		return nil, err
	}
	m, err := AttestOpen(ctx, root, p)
	return m, errors.Join(err, root.Close())
}

// Open takes hold of a directory. The caller closes it.
func Open(dir string) (kernel.FD, error) {
	f, err := kernel.Open(dir, kernel.PathOnly|kernel.Directory, 0)
	if err != nil {
		return kernel.None, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return f, nil
}

// AttestOpen is Attest for a directory that is open, with O_PATH or for reading.
func AttestOpen(ctx context.Context, root kernel.FD, p *Progress) (*Manifest, error) {
	return attest(ctx, root, Store, p)
}

func attest(ctx context.Context, root kernel.FD, store string, p *Progress) (*Manifest, error) {
	if p == nil {
		p = &Progress{}
	}
	w := &walker{ctx: ctx, progress: p}
	w.start()
	err := w.all(root, store)
	err = errors.Join(err, w.finish())
	if err != nil {
		return nil, err
	}
	m := &Manifest{Entries: make([]Entry, 0, len(w.entries))}
	for _, e := range w.entries {
		m.Entries = append(m.Entries, *e)
	}
	slices.SortFunc(m.Entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return m, nil
}

// walker goes through directories in one goroutine and hashes files in others.
type walker struct {
	ctx      context.Context
	progress *Progress
	entries  []*Entry

	jobs chan job
	done sync.WaitGroup

	mu  sync.Mutex
	err error
}

// job is a file to be hashed. Who does it closes the descriptor.
type job struct {
	file  kernel.FD // O_PATH
	stat  kernel.Stat
	entry *Entry
}

// start begins as many workers as there are processors, up to eight: hashing
// is bound by one or the other.
func (w *walker) start() {
	n := min(runtime.GOMAXPROCS(0), 8)
	w.jobs = make(chan job, 2*n)
	for range n {
		w.done.Go(func() {
			buf := make([]byte, 256<<10)
			for j := range w.jobs {
				err := w.failed()
				if err == nil {
					err = w.hash(j, buf)
				}
				if err = errors.Join(err, j.file.Close()); err != nil {
					w.fail(err)
				}
			}
		})
	}
}

func (w *walker) finish() error {
	close(w.jobs)
	w.done.Wait()
	return w.failed()
}

func (w *walker) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
}

func (w *walker) failed() error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// all goes through the directory and what it names of the store.
func (w *walker) all(root kernel.FD, store string) error {
	names, err := ReadStorePaths(root)
	if err != nil {
		return err
	}
	if err := w.look(root, ".", "."); err != nil {
		return err
	}
	if len(names) == 0 {
		return nil
	}
	s, err := Open(store)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err == nil {
			err = w.look(s, name, Store+"/"+name)
		}
	}
	return errors.Join(err, s.Close())
}

// ReadStorePaths reads the list of a directory, which may have none.
func ReadStorePaths(root kernel.FD) ([]string, error) {
	f, err := kernel.OpenAt(root, StoreName, kernel.ReadOnly|kernel.NoFollow|kernel.NonBlock, 0, inside)
	if kernel.NotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", StoreName, err)
	}
	text, err := readAll(f, maxStoreFile)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", StoreName, err)
	}
	names, err := StorePaths(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", StoreName, err)
	}
	return names, nil
}

// readAll reads a regular file of at most max bytes.
func readAll(f kernel.FD, max int) ([]byte, error) {
	st, err := kernel.FileStat(f)
	switch {
	case err != nil:
		return nil, err
	case st.Mode&kernel.ModeType != kernel.ModeRegular:
		return nil, errors.New("it is not a regular file")
	case st.Size > int64(max):
		return nil, fmt.Errorf("it is larger than %d bytes", max)
	}
	b := make([]byte, st.Size+1)
	used := 0
	for used < len(b) {
		n, err := kernel.ReadAt(f, b[used:], int64(used))
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		used += n
	}
	if int64(used) != st.Size {
		return nil, errChanged
	}
	return b[:used], nil
}

var errChanged = errors.New("it changed while it was read")

// show is a path for people: on one line, and without commands to a terminal.
func show(p string) string { return string(appendEscaped(nil, p)) }

// inside keeps a look-up in the directory: no link, no mount, no way up.
const inside = kernel.Beneath | kernel.NoSymlinks | kernel.NoMagicLinks | kernel.NoCrossing

// look notes what has a name in a directory, and what is below it.
func (w *walker) look(dir kernel.FD, name, at string) error {
	if err := w.failed(); err != nil {
		return err
	}
	f, err := kernel.OpenAt(dir, name, kernel.PathOnly|kernel.NoFollow, 0, inside)
	if err != nil {
		if kernel.IsErrno(err, kernel.EXDEV) {
			err = errors.New("something is mounted there")
		}
		return fmt.Errorf("%s: %w", show(at), err)
	}
	keep, err := w.note(f, at)
	if !keep {
		err = errors.Join(err, f.Close())
	}
	return err
}

// note takes f down. keep says that a worker closes it.
func (w *walker) note(f kernel.FD, at string) (keep bool, err error) {
	st, err := kernel.FileStat(f)
	if err != nil {
		return false, fmt.Errorf("%s: %w", show(at), err)
	}
	e := &Entry{Path: at, Mode: uint32(st.Mode) & 0o7777, UID: st.Uid, GID: st.Gid}
	w.entries = append(w.entries, e)
	w.progress.Files.Add(1)
	switch st.Mode & kernel.ModeType {
	case kernel.ModeRegular:
		e.Type, e.Size = 'f', st.Size
		w.jobs <- job{f, st, e}
		return true, nil
	case kernel.ModeLink:
		e.Type = 'l'
		if e.Target, err = kernel.LinkTarget(f); err != nil {
			err = fmt.Errorf("%s: %w", show(at), err)
		}
		return false, err
	case kernel.ModeDir:
		e.Type = 'd'
		return false, w.directory(f, at)
	}
	return false, fmt.Errorf("%s: it is a device, a pipe or a socket, which no root should have", show(at))
}

// directory goes through what is in a directory.
func (w *walker) directory(f kernel.FD, at string) error {
	d, err := kernel.Reopen(f, kernel.ReadOnly|kernel.Directory)
	if err != nil {
		return fmt.Errorf("%s: %w", show(at), err)
	}
	buf := make([]byte, 16<<10)
	for err == nil {
		var names []string
		if names, err = kernel.Names(d, buf); len(names) == 0 {
			break
		}
		for _, name := range names {
			if at == "." && name == ManifestName {
				continue
			}
			if err = w.look(d, name, path.Join(at, name)); err != nil {
				break
			}
		}
	}
	return errors.Join(err, d.Close())
}

// hash reads a file. It opens again what the descriptor names: whatever has the
// name by now, it is this file.
func (w *walker) hash(j job, buf []byte) (err error) {
	f, err := kernel.Reopen(j.file, kernel.ReadOnly|kernel.NonBlock|kernel.NoTTY)
	if err != nil {
		return fmt.Errorf("%s: %w", show(j.entry.Path), err)
	}
	h, size := sha256.New(), int64(0)
	for err = w.ctx.Err(); err == nil; err = w.ctx.Err() {
		n, rerr := kernel.ReadAt(f, buf, size)
		if rerr != nil || n == 0 {
			err = rerr
			break
		}
		h.Write(buf[:n])
		size += int64(n)
		w.progress.Bytes.Add(int64(n))
	}
	after, serr := kernel.FileStat(f)
	if err = errors.Join(err, serr, f.Close()); err == nil && (size != j.stat.Size || after.Size != j.stat.Size || after.Mtim != j.stat.Mtim || after.Ctim != j.stat.Ctim) {
		err = errChanged
	}
	if err != nil {
		return fmt.Errorf("%s: %w", show(j.entry.Path), err)
	}
	h.Sum(j.entry.SHA256[:0])
	return nil
}
