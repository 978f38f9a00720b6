package loop

import "testing"

func TestClassOf(t *testing.T) {
	for _, tt := range []struct {
		n    int
		want uint8
	}{{0, 0}, {1, 0}, {256, 0}, {257, 1}, {512, 1}, {513, 2}, {64 << 10, 8}, {1 << 20, 12}, {1<<20 + 1, 12}, {1 << 30, 12}} {
		if got := classOf(tt.n); got != tt.want {
			t.Errorf("classOf(%d) = %d, want %d", tt.n, got, tt.want)
		}
	}
}

func TestBuffersAreLentAgain(t *testing.T) {
	var p bufPool
	for _, n := range []int{1, 256, 257, 5000, 1 << 20} {
		b := p.getFor(n)
		if len(b) != 0 || cap(b) < n {
			t.Fatalf("asked for %d, got %d of %d", n, len(b), cap(b))
		}
		b = append(b, 'x')
		p.putMapped(b)
		if again := p.getFor(n); len(again) != 0 || &again[:1][0] != &b[0] {
			t.Errorf("%d: not the same buffer again", n)
		}
	}
}

func TestBuffersGrownByAppendFitTheirClass(t *testing.T) {
	var p bufPool
	for _, size := range []int{0, 100, 300, 700, 5000, 1 << 20, 3 << 20} {
		p.put(make([]byte, 0, size))
	}
	for class := range uint8(classes) {
		if b := p.get(class); cap(b) < smallest<<class {
			t.Errorf("class %d lends %d", class, cap(b))
		}
	}
}

func TestBuffersKeptAreBounded(t *testing.T) {
	var p bufPool
	for range 10 * keptPerClass / smallest {
		p.put(make([]byte, 0, smallest))
	}
	for range 10 {
		p.put(make([]byte, 0, largest))
	}
	if n := len(p.classes[0]) * smallest; n > keptPerClass {
		t.Errorf("%d bytes kept of the smallest", n)
	}
	if n := len(p.classes[classes-1]); n > 4 {
		t.Errorf("%d kept of the largest", n)
	}
}

func TestLongBuffersAreMapped(t *testing.T) {
	var p bufPool
	const size = 1 << 30
	b := p.getFor(size)
	if len(b) != 0 || cap(b) < size {
		t.Fatalf("got %d of %d", len(b), cap(b))
	}
	b = b[:size]
	b[0], b[size-1] = 1, 1
	p.putMapped(b)
}
