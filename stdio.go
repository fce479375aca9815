package nucleus

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// stdio is the plumbing between a Cmd's streams and descriptors.
type stdio struct {
	null   *os.File       // also in child
	child  []*os.File     // ends that the child gets; closed once it runs
	parent []*os.File     // ends that we keep; closed after copying
	copies []func() error // one goroutine each
	input  func() error   // copies input; nobody waits for it
}

func (s *stdio) closeChild() {
	closeFiles(s.child)
	s.child = nil
}

func (s *stdio) closeAll() {
	s.closeChild()
	closeFiles(s.parent)
	s.parent = nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // an end of a pipe: closing cannot lose anything
	}
}

// openStdio returns the descriptors that become the workload's.
func (c *Cmd) openStdio() (fds []int, err error) {
	in, err := c.input()
	if err != nil {
		return nil, err
	}
	out, err := c.output(c.Stdout)
	if err != nil {
		return nil, err
	}
	errOut := out
	if !sameWriter(c.Stdout, c.Stderr) {
		if errOut, err = c.output(c.Stderr); err != nil {
			return nil, err
		}
	}
	for i, f := range append([]*os.File{in, out, errOut}, c.ExtraFiles...) {
		if f == nil {
			return nil, &Error{Stage: StageValidate, Step: -1, Op: "check", Object: "files", Err: fmt.Errorf("a nil file is passed on: %w", ErrInvalid)}
		}
		if i < len(streams) {
			if err := notDirectory(f); err != nil {
				return nil, &Error{Stage: StageValidate, Step: -1, Op: "check", Object: streams[i], Err: err}
			}
		}
		fds = append(fds, int(f.Fd()))
	}
	return fds, nil
}

var streams = [...]string{"standard input", "standard output", "standard error"}

// notDirectory refuses a way to all that lies beneath: Landlock forbids to open
// it, but not to ask about it, to change its modes or to connect to its sockets.
func notDirectory(f *os.File) error {
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("it is a directory, through which the program could reach all that lies beneath: %w", ErrInvalid)
	}
	return err
}

// sameWriter reports whether two streams are one. Writers that cannot be compared are not.
func sameWriter(a, b io.Writer) (same bool) {
	defer func() {
		if recover() != nil {
			same = false
		}
	}()
	return a != nil && a == b
}

func (c *Cmd) input() (*os.File, error) {
	if f, ok := c.Stdin.(*os.File); ok && f != nil && !c.Sandbox.Terminal {
		return f, nil
	}
	if c.Stdin == nil || c.Sandbox.Terminal {
		return c.null()
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.io.child = append(c.io.child, r)
	c.io.parent = append(c.io.parent, w)
	stdin := c.Stdin
	c.io.copies = append(c.io.copies, func() error {
		_, err := io.Copy(w, stdin)
		if errors.Is(err, errBrokenPipe) { // the workload need not read it all
			err = nil
		}
		return errors.Join(err, w.Close())
	})
	return r, nil
}

func (c *Cmd) output(to io.Writer) (*os.File, error) {
	if f, ok := to.(*os.File); ok && f != nil && !c.Sandbox.Terminal {
		return f, nil
	}
	if to == nil || c.Sandbox.Terminal {
		return c.null()
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.io.child = append(c.io.child, w)
	c.io.parent = append(c.io.parent, r)
	c.io.copies = append(c.io.copies, func() error {
		_, err := io.Copy(to, r)
		return errors.Join(err, r.Close())
	})
	return w, nil
}

// null is /dev/null, opened once.
func (c *Cmd) null() (*os.File, error) {
	if c.io.null != nil {
		return c.io.null, nil
	}
	f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err == nil {
		c.io.null = f
		c.io.child = append(c.io.child, f)
	}
	return f, err
}

// terminal copies between the terminal and the Cmd's streams.
func (s *stdio) terminal(console *os.File, in io.Reader, out io.Writer) {
	s.parent = append(s.parent, console)
	if out != nil {
		s.copies = append(s.copies, func() error {
			_, err := io.Copy(out, console)
			if errors.Is(err, errTerminalGone) { // how a terminal says end of file
				err = nil
			}
			return err
		})
	}
	if in != nil {
		s.input = func() error {
			_, err := io.Copy(console, in)
			return err
		}
	}
}

// copy starts the copying. The channel gives one error each.
func (s *stdio) copy() chan error {
	done := make(chan error, len(s.copies))
	for _, f := range s.copies {
		go func() { done <- f() }()
	}
	if s.input != nil {
		go s.input() // ends with the terminal, or with the program: a read cannot be called off
	}
	return done
}

// wait waits for the copying, for at most delay if that is not zero.
func (s *stdio) wait(done chan error, delay time.Duration) error {
	var errs []error
	var expired <-chan time.Time
	if delay > 0 {
		t := time.NewTimer(delay)
		defer t.Stop()
		expired = t.C
	}
	for range s.copies {
		select {
		case err := <-done:
			errs = append(errs, err)
		case <-expired:
			s.closeAll()
			return errors.Join(append(errs, ErrWaitDelay)...)
		}
	}
	s.closeAll() // what the copies did not close: a terminal
	return errors.Join(errs...)
}

// pipe makes a pipe between the caller and the workload.
func (c *Cmd) pipe(set func(r, w *os.File)) (r, w *os.File, err error) {
	if c.Process != nil {
		return nil, nil, errors.New("nucleus: a pipe is asked for after Start")
	}
	if r, w, err = os.Pipe(); err != nil {
		return nil, nil, err
	}
	set(r, w)
	return r, w, nil
}

// StdinPipe returns a pipe to the program's standard input. Close it to end the input.
func (c *Cmd) StdinPipe() (io.WriteCloser, error) {
	if c.Stdin != nil {
		return nil, errors.New("nucleus: Stdin is already set")
	}
	_, w, err := c.pipe(func(r, w *os.File) { c.Stdin = r; c.io.child = append(c.io.child, r) })
	if err != nil {
		return nil, err
	}
	return &onceCloser{File: w}, nil
}

// StdoutPipe returns a pipe from the program's standard output. Read it to its
// end before Wait.
func (c *Cmd) StdoutPipe() (io.ReadCloser, error) {
	if c.Stdout != nil {
		return nil, errors.New("nucleus: Stdout is already set")
	}
	r, _, err := c.pipe(func(r, w *os.File) { c.Stdout = w; c.io.child = append(c.io.child, w) })
	return r, err
}

// StderrPipe is like StdoutPipe for standard error.
func (c *Cmd) StderrPipe() (io.ReadCloser, error) {
	if c.Stderr != nil {
		return nil, errors.New("nucleus: Stderr is already set")
	}
	r, _, err := c.pipe(func(r, w *os.File) { c.Stderr = w; c.io.child = append(c.io.child, w) })
	return r, err
}

// onceCloser is a file that may be closed twice.
type onceCloser struct {
	*os.File
	once sync.Once
	err  error
}

func (o *onceCloser) Close() error {
	o.once.Do(func() { o.err = o.File.Close() })
	return o.err
}
