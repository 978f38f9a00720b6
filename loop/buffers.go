package loop

import "math/bits"

// A bufPool lends the buffers that a loop's connections keep for a while. It
// is for one thread. Buffers come in size classes of powers of two; what is given
// back is kept up to a bound and lent again, so that a loop in its stride makes no
// garbage. Long ones come from outside the Go heap: a client that announces 512 MB and sends nothing
// has then cost address space only, and one that does send it doesn't drive the collector.
type bufPool struct {
	classes [classes][][]byte
}

const (
	smallest     = 256 // the size of class 0
	classes      = 13  // so the largest is 1 MiB
	largest      = smallest << (classes - 1)
	keptPerClass = 1 << 20 // bytes; 4 MiB for the largest, to have some
)

// classOf is the class of the smallest buffer that holds n bytes, or the last.
func classOf(n int) uint8 {
	if n <= smallest {
		return 0
	}
	return uint8(min(bits.Len(uint(n-1)/smallest), classes-1))
}

// get lends an empty buffer of a class.
func (p *bufPool) get(class uint8) []byte {
	list := p.classes[class]
	if n := len(list); n > 0 {
		b := list[n-1]
		list[n-1] = nil
		p.classes[class] = list[:n-1]
		return b
	}
	return make([]byte, 0, smallest<<class)
}

// getFor lends an empty buffer with room for n bytes.
func (p *bufPool) getFor(n int) []byte {
	if n > largest {
		return mapBuffer(n)
	}
	return p.get(classOf(n))
}

// put takes back a buffer from get, or what it has grown to be by append.
func (p *bufPool) put(b []byte) {
	if cap(b) < smallest || cap(b) >= 2*largest {
		return
	}
	// The class that it has room for, which is one below that of its size if
	// append has chosen a size in between.
	class := min(bits.Len(uint(cap(b)/smallest))-1, classes-1)
	if kept := max(keptPerClass>>class/smallest, 4); len(p.classes[class]) < kept {
		p.classes[class] = append(p.classes[class], b[:0])
	}
}

// putMapped takes back a buffer from getFor that hasn't been appended to.
func (p *bufPool) putMapped(b []byte) {
	if cap(b) > largest {
		unmapBuffer(b)
		return
	}
	p.put(b)
}

func (p *bufPool) close() { p.classes = [classes][][]byte{} }
