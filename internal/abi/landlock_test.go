package abi

import (
	"encoding/hex"
	"testing"
)

func TestLandlockEncodings(t *testing.T) {
	ruleset := LandlockRulesetAttr(LandlockFSIoctlDev, LandlockNetConnectTCP, LandlockScopeSignal)
	path := LandlockPathBeneathAttr(LandlockFSReadFile|LandlockFSReadDir, -1)
	port := LandlockNetPortAttr(LandlockNetBindTCP, 443)
	for _, tt := range []struct {
		name string
		got  []byte
		want string
	}{
		{"ruleset_attr", ruleset[:], "0080000000000000" + "0200000000000000" + "0200000000000000"},
		{"path_beneath_attr", path[:], "0c00000000000000" + "ffffffff"},
		{"net_port_attr", port[:], "0100000000000000" + "bb01000000000000"},
	} {
		if got := hex.EncodeToString(tt.got); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}
