package nucleus

import (
	"math/rand/v2"
	"strconv"
)

// name is what the sandbox's control group is called after: its name, or a
// random one. It need not be unguessable, only free: creating a group under a
// name that exists fails. A detached sandbox gets both: it can be renamed, and
// then another one may have its name.
func (c *Cmd) name() string {
	random := strconv.FormatUint(rand.Uint64(), 36)
	switch {
	case c.Sandbox.Name == "":
		return random
	case c.Detach != nil:
		return c.Sandbox.Name + "-" + random
	}
	return c.Sandbox.Name
}
