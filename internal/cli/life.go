package cli

// lifeOptions is what the flags of the commands in this file said.
type lifeOptions struct{}

// lifeCommands are the commands in this file.
var lifeCommands = []*command{}
