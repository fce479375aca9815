package abi

import "encoding/binary"

// Landlock rights over files (landlock_create_ruleset(2)). Each comment names the
// Landlock ABI that brought the right and the first kernel that has that ABI.
const (
	LandlockFSExecute     = 1 << 0  // ABI 1, 5.13
	LandlockFSWriteFile   = 1 << 1  // ABI 1
	LandlockFSReadFile    = 1 << 2  // ABI 1
	LandlockFSReadDir     = 1 << 3  // ABI 1
	LandlockFSRemoveDir   = 1 << 4  // ABI 1
	LandlockFSRemoveFile  = 1 << 5  // ABI 1
	LandlockFSMakeChar    = 1 << 6  // ABI 1
	LandlockFSMakeDir     = 1 << 7  // ABI 1
	LandlockFSMakeReg     = 1 << 8  // ABI 1
	LandlockFSMakeSock    = 1 << 9  // ABI 1
	LandlockFSMakeFifo    = 1 << 10 // ABI 1
	LandlockFSMakeBlock   = 1 << 11 // ABI 1
	LandlockFSMakeSym     = 1 << 12 // ABI 1
	LandlockFSRefer       = 1 << 13 // ABI 2, 5.19
	LandlockFSTruncate    = 1 << 14 // ABI 3, 6.2
	LandlockFSIoctlDev    = 1 << 15 // ABI 5, 6.10
	LandlockFSResolveUnix = 1 << 16 // ABI 9, 7.1
)

// Landlock rights over ports.
const (
	LandlockNetBindTCP        = 1 << 0 // ABI 4, 6.7
	LandlockNetConnectTCP     = 1 << 1 // ABI 4
	LandlockNetBindUDP        = 1 << 2 // ABI 10, 7.2
	LandlockNetConnectSendUDP = 1 << 3 // ABI 10
)

// Landlock scopes: what a sandboxed process cannot reach outside its own domain.
const (
	LandlockScopeAbstractUnixSocket = 1 << 0 // ABI 6, 6.12
	LandlockScopeSignal             = 1 << 1 // ABI 6
)

// Flags of landlock_create_ruleset(2).
const (
	LandlockCreateRulesetVersion = 1 << 0 // ABI 1: return the ABI, make nothing
	LandlockCreateRulesetErrata  = 1 << 1 // return the fixed errata, make nothing
)

// LandlockLogs is the first ABI that writes what it refuses into the audit log.
const LandlockLogs = 7

// Flags of landlock_restrict_self(2).
const (
	LandlockRestrictSelfLogSameExecOff   = 1 << 0 // ABI 7, 6.15
	LandlockRestrictSelfLogNewExecOn     = 1 << 1 // ABI 7
	LandlockRestrictSelfLogSubdomainsOff = 1 << 2 // ABI 7
	LandlockRestrictSelfTSync            = 1 << 3 // ABI 8, 7.0
)

// Rule types of landlock_add_rule(2).
const (
	LandlockRulePathBeneath = 1 // ABI 1
	LandlockRuleNetPort     = 2 // ABI 4
)

// Sizes of what the Landlock calls read. A kernel refuses a ruleset_attr that is
// longer than its own and not zero there (E2BIG), so the size follows the ABI.
const (
	LandlockRulesetAttrSizeABI1 = 8  // handled_access_fs
	LandlockRulesetAttrSizeABI4 = 16 // and handled_access_net
	LandlockRulesetAttrSizeABI6 = 24 // and scoped
	LandlockPathBeneathAttrSize = 12 // packed: no padding after parent_fd
	LandlockNetPortAttrSize     = 16
)

// LandlockRulesetAttr encodes struct landlock_ruleset_attr. The caller passes the
// kernel as many of its bytes as the ABI has.
func LandlockRulesetAttr(handledFS, handledNet, scoped uint64) [LandlockRulesetAttrSizeABI6]byte {
	var b [LandlockRulesetAttrSizeABI6]byte
	binary.LittleEndian.PutUint64(b[0:], handledFS)
	binary.LittleEndian.PutUint64(b[8:], handledNet)
	binary.LittleEndian.PutUint64(b[16:], scoped)
	return b
}

// LandlockPathBeneathAttr encodes struct landlock_path_beneath_attr.
func LandlockPathBeneathAttr(allowed uint64, parentFD int32) [LandlockPathBeneathAttrSize]byte {
	var b [LandlockPathBeneathAttrSize]byte
	binary.LittleEndian.PutUint64(b[0:], allowed)
	binary.LittleEndian.PutUint32(b[8:], uint32(parentFD))
	return b
}

// LandlockNetPortAttr encodes struct landlock_net_port_attr.
func LandlockNetPortAttr(allowed uint64, port uint16) [LandlockNetPortAttrSize]byte {
	var b [LandlockNetPortAttrSize]byte
	binary.LittleEndian.PutUint64(b[0:], allowed)
	binary.LittleEndian.PutUint64(b[8:], uint64(port))
	return b
}
