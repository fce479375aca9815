package nucleus

import (
	"math/rand/v2"
	"strconv"
)

// name is what the sandbox's control group is called after: its name, if it has
// one, and what no other has. Who finds the group again, by a record, must not
// find that of another one with the same name.
func (c *Cmd) name() string {
	random := strconv.FormatUint(rand.Uint64(), 36)
	if c.Sandbox.Name == "" {
		return random
	}
	return c.Sandbox.Name + "-" + random
}
