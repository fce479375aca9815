package cli

import (
	"runtime"
	"runtime/debug"
)

// version is set by the linker: -X .../internal/cli.version=v1.2.3.
var version string

var versionCommand = command{
	name:  "version",
	short: "Print the version",
	long:  "Prints the version of this program.",
	flags: [][]flag{jsonFlags, helpFlags},
	run:   runVersion,
}

// runVersion is `nucleus version`.
func runVersion(c *call) int {
	v := versionString()
	if !c.opts.json {
		return output("nucleus " + v + "\n")
	}
	return outputJSON(map[string]string{"version": v, "go": runtime.Version(), "arch": runtime.GOARCH})
}

// versionString is the release, or what the go command noted of the source.
func versionString() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
