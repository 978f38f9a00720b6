//go:build !linux

package edge

// Without epoll the goroutines of far carry everything.
func newRelay(e *Edge, loops int) (carrier, error) { return noRelay{}, nil }

type noRelay struct{}

func (noRelay) carry(*call)      { panic("edge: a socket where there is no relay") }
func (noRelay) resetNode(string) {}
func (noRelay) close()           {}
