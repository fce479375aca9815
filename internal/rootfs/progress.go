package rootfs

import "time"

// progressEvery is how often somebody who watches is told.
const progressEvery = 250 * time.Millisecond

// Watch calls f with the progress now and then, until done is called; then no
// call is under way any more.
func (p *Progress) Watch(f func(files, bytes int64)) (done func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		t := time.NewTicker(progressEvery)
		defer t.Stop()
		for {
			select {
			case <-stop:
				return
			case <-t.C:
				f(p.Files.Load(), p.Bytes.Load())
			}
		}
	}()
	return func() { close(stop); <-stopped }
}
