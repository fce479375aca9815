// Command nucleus runs programs in hardened Linux sandboxes.
//
//	nucleus run -- sh -c 'echo hello from $(hostname)'
//
// It asks for less of the runtime than it could: nucleus lives for milliseconds,
// and nothing about its processors changes meanwhile that it should watch for.
//
//go:debug updatemaxprocs=0
//go:debug decoratemappings=0
package main

import (
	"os"

	"github.com/nucleus-container/nucleus/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args)) }
