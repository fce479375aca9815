// Package archtest holds tests about the shape of the module itself: which
// package may import which, and where the dangerous things may stand. It has no
// code of its own and nothing imports it.
//
// A rule here is broken on purpose by changing the rule, in the change that needs
// it, with the reason beside it:
//
//	go test ./internal/archtest
package archtest
