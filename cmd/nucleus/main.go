// Command nucleus runs programs in hardened Linux sandboxes.
//
//	nucleus run -- sh -c 'echo hello from $(hostname)'
package main

import (
	"os"

	"github.com/nucleus-container/nucleus/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args)) }
