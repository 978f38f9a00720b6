package link

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// wire is a shaped connection from mad to scl, 100 ms away, inside a bubble,
// and what has come out of it so far.
type wire struct {
	*testing.T
	d     *Distance
	conn  net.Conn
	far   net.Conn
	start time.Time
	ended chan struct{} // when the far end has read to the end
	err   error

	mu  sync.Mutex
	got []arrival
}

type arrival struct {
	at   time.Duration // since the start
	data string
}

func onWire(t *testing.T, run func(w *wire)) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		d := threeRegions()
		w := &wire{T: t, d: d, far: far, start: time.Now(), ended: make(chan struct{})}
		w.conn = Shape(near, "mad", "scl", d)
		go func() {
			defer close(w.ended)
			b := make([]byte, 1<<16)
			for {
				n, err := far.Read(b)
				if n > 0 {
					w.mu.Lock()
					w.got = append(w.got, arrival{time.Since(w.start), string(b[:n])})
					w.mu.Unlock()
				}
				if err != nil {
					w.err = err
					return
				}
			}
		}()
		run(w)
		w.conn.Close()
		far.Close()
		<-w.ended
	})
}

func (w *wire) write(s string) {
	w.Helper()
	if n, err := w.conn.Write([]byte(s)); n != len(s) || err != nil {
		w.Fatalf("Write = %d, %v", n, err)
	}
}

// expect compares all that has arrived by a time.
func (w *wire) expect(by time.Duration, want ...arrival) {
	w.Helper()
	time.Sleep(by - time.Since(w.start)) // in the bubble
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.got) != len(want) {
		w.Fatalf("by %v arrived %v, want %v", by, w.got, want)
	}
	for i := range want {
		if w.got[i] != want[i] {
			w.Fatalf("by %v arrived %v, want %v", by, w.got, want)
		}
	}
}

const ms = time.Millisecond

func TestShapeDelaysAndKeepsOrder(t *testing.T) {
	onWire(t, func(w *wire) {
		b := []byte("a")
		w.conn.Write(b)
		b[0] = 'x' // the caller has its slice back
		w.expect(10 * ms)
		w.write("b")
		w.expect(99 * ms)
		w.expect(100*ms, arrival{100 * ms, "a"})
		w.expect(200*ms, arrival{100 * ms, "a"}, arrival{110 * ms, "b"})
	})
}

func TestShapeFeelsANewDelayAtOnce(t *testing.T) {
	onWire(t, func(w *wire) {
		w.write("a")
		w.expect(10 * ms)
		w.d.SetDelay("mad", "scl", 300*ms)
		w.expect(250 * ms)
		w.d.SetDelay("mad", "scl", 20*ms)
		w.expect(260*ms, arrival{250 * ms, "a"})
	})
}

func TestShapeStandsStillWhileCut(t *testing.T) {
	onWire(t, func(w *wire) {
		w.write("a")
		w.expect(10 * ms)
		w.d.SetCut("mad", "scl", true)
		w.expect(500 * ms)
		w.write("b")
		w.expect(510 * ms)
		w.d.SetCut("mad", "scl", false)
		w.expect(700*ms, arrival{510 * ms, "a"}, arrival{600 * ms, "b"})
	})
}

func TestShapeIsCutOneWay(t *testing.T) {
	onWire(t, func(w *wire) {
		w.d.SetCut("scl", "mad", true)
		w.write("a")
		go w.far.Write([]byte("back"))
		b := make([]byte, 10)
		if n, err := w.conn.Read(b); string(b[:n]) != "back" || err != nil {
			t.Errorf("read %q, %v: the other end shapes what it writes, and this one doesn't", b[:n], err)
		}
		w.expect(100*ms, arrival{100 * ms, "a"})
	})
}

func TestShapeWithoutDelayCanBeCut(t *testing.T) {
	onWire(t, func(w *wire) {
		w.d.SetDelay("mad", "scl", 0)
		w.write("a")
		w.expect(0, arrival{0, "a"})
		w.d.SetCut("mad", "scl", true)
		w.write("b")
		w.expect(50*ms, arrival{0, "a"})
		w.d.SetCut("mad", "scl", false)
		w.expect(50*ms, arrival{0, "a"}, arrival{50 * ms, "b"})
	})
}

func TestShapeIsTransparentWithoutATable(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	defer near.Close()
	if Shape(near, "mad", "scl", nil) != near {
		t.Error("it wraps for nothing")
	}
}

func TestShapeLetsWhatWasWrittenArriveOnClose(t *testing.T) {
	onWire(t, func(w *wire) {
		w.write("a")
		w.conn.Close()
		if took := time.Since(w.start); took != 100*ms {
			t.Errorf("Close took %v", took)
		}
		<-w.ended
		w.expect(100*ms, arrival{100 * ms, "a"})
		if w.err != io.EOF {
			t.Errorf("the far end sees %v", w.err)
		}
		if _, err := w.conn.Write([]byte("b")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write after Close: %v", err)
		}
		if err := w.conn.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	})
}

func TestShapeDropsOnCloseWhatCantArrive(t *testing.T) {
	for name, change := range map[string]func(d *Distance){
		"cut":                     func(d *Distance) { d.SetCut("mad", "scl", true) },
		"further than the linger": func(d *Distance) { d.SetDelay("mad", "scl", 10*time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			onWire(t, func(w *wire) {
				w.write("a")
				change(w.d)
				w.conn.Close()
				w.expect(0)
			})
		})
	}
}

func TestShapeClosedWhileDrainingIsCutOff(t *testing.T) {
	onWire(t, func(w *wire) {
		w.write("a")
		time.AfterFunc(50*ms, func() { w.d.SetCut("mad", "scl", true) })
		w.conn.Close()
		w.expect(50 * ms)
	})
}

func TestShapeCloseWakesReadersAndWriters(t *testing.T) {
	onWire(t, func(w *wire) {
		w.d.SetCut("mad", "scl", true)
		errs := make(chan error, 2)
		go func() {
			_, err := w.conn.Read(make([]byte, 1))
			errs <- err
		}()
		go func() {
			_, err := w.conn.Write(make([]byte, shapeBuffer+1))
			errs <- err
		}()
		synctest.Wait()
		w.conn.Close()
		for range 2 {
			if err := <-errs; !errors.Is(err, net.ErrClosed) {
				t.Errorf("woken by %v", err)
			}
		}
		if err := w.conn.SetDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("SetDeadline after Close: %v", err)
		}
	})
}

func TestShapeBlocksWhenFullAndHonoursTheDeadline(t *testing.T) {
	onWire(t, func(w *wire) {
		w.d.SetCut("mad", "scl", true)
		w.conn.SetWriteDeadline(w.start.Add(time.Second))
		big := make([]byte, shapeBuffer+1000)
		n, err := w.conn.Write(big)
		if n != shapeBuffer || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(w.start) != time.Second {
			t.Errorf("Write = %d, %v after %v", n, err, time.Since(w.start))
		}
		if _, err := w.conn.Write(nil); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write behind the deadline: %v", err)
		}
		w.conn.SetWriteDeadline(time.Time{})
		time.AfterFunc(time.Second, func() { w.d.SetCut("mad", "scl", false) })
		if n, err := w.conn.Write([]byte("b")); n != 1 || err != nil || time.Since(w.start) != 2*time.Second {
			t.Errorf("Write with room again = %d, %v after %v", n, err, time.Since(w.start))
		}
		w.conn.Close()
		<-w.ended
		total := 0
		for _, a := range w.got {
			total += len(a.data)
		}
		if total != shapeBuffer+1 {
			t.Errorf("%d bytes arrived, want %d", total, shapeBuffer+1)
		}
	})
}

func TestShapeDeadlineMovedWhileBlocked(t *testing.T) {
	onWire(t, func(w *wire) {
		w.d.SetCut("mad", "scl", true)
		time.AfterFunc(time.Second, func() { w.conn.SetWriteDeadline(time.Now()) })
		if _, err := w.conn.Write(make([]byte, shapeBuffer+1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write: %v", err)
		}
	})
}

func TestShapeTellsThatTheOtherEndIsGone(t *testing.T) {
	onWire(t, func(w *wire) {
		w.far.Close()
		w.write("a") // nobody knows yet
		w.expect(100 * ms)
		if _, err := w.conn.Write([]byte("b")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("Write: %v", err)
		}
	})
}

// Over a real socket there is a half-close, and real time; only its order
// counts here.
func TestShapeSendsTheEndBehindTheBytes(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dialled, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	d := threeRegions()
	d.SetDelay("mad", "ams", 3*ms)
	conn := Shape(dialled, "mad", "ams", d)
	defer conn.Close()
	sent := bytes.Repeat([]byte("0123456789"), 300_000)
	go func() {
		conn.Write(sent)
		conn.(interface{ CloseWrite() error }).CloseWrite()
	}()
	got, err := io.ReadAll(far)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d, %v", len(got), len(sent), err)
	}
	if _, err := conn.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after CloseWrite: %v", err)
	}
	far.Write([]byte("back"))
	b := make([]byte, 4)
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "back" {
		t.Errorf("the way back gives %q, %v", b, err)
	}
}
