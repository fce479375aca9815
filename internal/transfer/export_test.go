package transfer

// Weakness is a protection that a test does without.
type Weakness = weakness

const (
	WeakRoot  = weakRoot
	WeakLinks = weakLinks
	WeakUser  = weakUser
	WeakKind  = weakKind
	WeakMode  = weakMode
	WeakFS    = weakFS
	WeakName  = weakName
	MaxDepth  = maxDepth
	MostHoles = mostHoles
)

// Without is o without protections.
func (o Options) Without(w Weakness) Options {
	o.weak = w
	return o
}
