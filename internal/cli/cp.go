package cli

// cpOptions is what the flags of the commands in this file said.
type cpOptions struct{}

// cpCommands are the commands in this file.
var cpCommands = []*command{}
