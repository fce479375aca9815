package cli

// execOptions is what the flags of the commands in this file said.
type execOptions struct{}

// execCommands are the commands in this file.
var execCommands = []*command{}
