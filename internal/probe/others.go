package probe

import (
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/nucleus-container/nucleus/internal/kernel"
)

// askOthers answers questions about other processes, sockets and networks.
func askOthers(verb string, a []string) (string, bool) {
	switch verb {
	case "kill":
		return verdict(syscall.Kill(int(number(word(a, 0))), syscall.Signal(number(word(a, 1))))), true
	case "processes":
		return processes(), true
	case "connect":
		return verdict(kernel.ReachUnix(word(a, 0))), true
	case "route":
		to, err := netip.ParseAddrPort(word(a, 0))
		if err == nil {
			err = kernel.RouteTo(to)
		}
		return verdict(err), true
	case "tcp":
		to, err := netip.ParseAddrPort(word(a, 0))
		if err == nil {
			err = kernel.ReachTCP(to, 2000)
		}
		return verdict(err), true
	case "devices":
		return devices(), true
	}
	return "", false
}

// processes says how many processes of others are in sight.
func processes() string {
	entries, err := os.ReadDir("/proc")
	n := 0
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != os.Getpid() {
			n++
		}
	}
	return content(strconv.Itoa(n), err)
}

// devices are the network devices in sight.
func devices() string {
	b, err := os.ReadFile("/proc/net/dev")
	var names []string
	for line := range strings.Lines(string(b)) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return content(strings.Join(names, " "), err)
}
