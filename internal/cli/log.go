package cli

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/nucleus-container/nucleus"
	"github.com/nucleus-container/nucleus/internal/audit"
)

// openLog gives cmd the log that was asked for, and returns what closes it.
// Without one the library is silent.
func (c *call) openLog(cmd *nucleus.Cmd) (func(), error) {
	o := &c.opts
	if o.logFile == "" {
		return func() {}, nil
	}
	// Bad input must not create a log: find out before.
	if _, err := cmd.Plan(); err != nil {
		return nil, err
	}
	var w io.Writer = os.Stderr
	done := func() {}
	if o.logFile != "-" {
		if err := audit.Unwritable(cmd.Sandbox, o.logFile); err != nil {
			return nil, usageError("--log: " + err.Error())
		}
		// Whoever may write beside the log must not choose where it goes: no link is followed.
		f, err := os.OpenFile(filepath.Clean(o.logFile), os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, usageError(fmt.Sprintf("--log: %v", err))
		}
		w = f
		done = func() {
			if err := f.Close(); err != nil {
				say("nucleus: --log: %v\n", err)
			}
		}
	}
	opts := &slog.HandlerOptions{Level: logLevel(o.logLevel)}
	if o.logFormat == "json" {
		cmd.Logger = slog.New(slog.NewJSONHandler(w, opts))
	} else {
		cmd.Logger = slog.New(slog.NewTextHandler(w, opts))
	}
	return done, nil
}

func logLevel(name string) slog.Level {
	switch name {
	case "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	}
	return slog.LevelInfo
}
