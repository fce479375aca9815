package nucleus

import "github.com/nucleus-container/nucleus/internal/plan"

// EditPlan lets a test change a command's plan before it is performed.
func (c *Cmd) EditPlan(f func(*plan.Plan)) { c.edit = f }
