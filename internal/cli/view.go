package cli

// viewOptions is what the flags of the commands in this file said.
type viewOptions struct{}

// viewCommands are the commands in this file.
var viewCommands = []*command{}
