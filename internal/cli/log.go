package cli

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"
)

// openLog opens the log that was asked for. Without one the logger is nil, and
// the library silent.
func (c *call) openLog() (*slog.Logger, func(), error) {
	o := &c.opts
	if o.logFile == "" {
		return nil, func() {}, nil
	}
	level := slog.LevelInfo
	switch o.logLevel {
	case "debug":
		level = slog.LevelDebug
	case "warn":
		level = slog.LevelWarn
	}
	var w io.Writer = os.Stderr
	done := func() {}
	if o.logFile != "-" {
		// Whoever may write beside the log must not choose where it goes: no link is followed.
		f, err := os.OpenFile(o.logFile, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, nil, usageError(fmt.Sprintf("--log: %v", err))
		}
		w = f
		done = func() {
			if err := f.Close(); err != nil {
				say("nucleus: --log: %v\n", err)
			}
		}
	}
	opts := &slog.HandlerOptions{Level: level}
	if o.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts)), done, nil
	}
	return slog.New(slog.NewTextHandler(w, opts)), done, nil
}
