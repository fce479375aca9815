package nucleus

import (
	"math/rand/v2"
	"strconv"
)

// name is the sandbox's name, or a random one. It need not be unguessable, only
// free: creating a group under a name that exists fails.
func (c *Cmd) name() string {
	if c.Sandbox.Name != "" {
		return c.Sandbox.Name
	}
	return strconv.FormatUint(rand.Uint64(), 36)
}
