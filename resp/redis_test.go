package resp

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startRedis runs the installed redis-server for a test, on a socket in the
// test's own directory, and returns how to reach it.
func startRedis(t *testing.T) (dial func() net.Conn) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("no redis-server installed to compare with")
	}
	dir, err := os.MkdirTemp("", "resp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(path, "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir", dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	var log strings.Builder
	for line := make([]byte, 4096); !strings.Contains(log.String(), "ready to accept connections"); {
		n, err := out.Read(line)
		log.Write(line[:n])
		if err != nil {
			t.Skipf("redis-server doesn't start:\n%s", &log)
		}
	}
	if !strings.Contains(log.String(), "version=7.0.") {
		t.Skip("the installed redis-server is not 7.0")
	}
	go io.Copy(io.Discard, out) // ends with the process
	return func() net.Conn {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(20 * time.Second)) // only so that a broken test ends
		return conn
	}
}

func TestParserAgreesWithRedis(t *testing.T) {
	dial := startRedis(t)
	long := strings.Repeat("x", 70000)
	for _, stream := range []string{
		"*1\rx$4\ryPINGab", "*-1\r\n*0\r\n\r\n", "*a\r\n", "*\r\n", "*01\r\n", "*2147483648\r\n", "*2147483647\r\n$x\r\n",
		"*1\r\nxyz\r\n", "*1\r\n\r\n", "*1\r\n$x\r\n", "*1\r\n$04\r\n", "*1\r\n$-1\r\n", "*1\r\n$+1\r\n", "*1\r\n$536870913\r\n",
		"*" + long, "*1\r\n$" + long, long, `ECHO "a` + "\n", `ECHO "a"b` + "\n", "ECHO 'a\n",
		`ECHO "a b\n\x41\q"` + "\n", `ECHO "\x4"` + "\n", `ECHO 'it\'s \n'` + "\n", `ECHO x"y"` + "\n", "ECHO \v\fa\vb\r\n", "ECHO a\rb\n",
	} {
		t.Run(fmt.Sprintf("%.30q", stream), func(t *testing.T) {
			// Redis: the replies to it, up to that of an ECHO behind it. A line
			// that is too long it only refuses as long as it has no end.
			conn := dial()
			defer conn.Close()
			end := "*2\r\n$4\r\nECHO\r\n$3\r\nend\r\n"
			if len(stream) > DefaultMaxInline {
				end = ""
			}
			if _, err := conn.Write([]byte(stream + end)); err != nil {
				t.Logf("write: %v", err) // it may have been closed already
			}
			var want []string
			for r := NewReader(conn); ; {
				v, err := r.Read()
				if err != nil || v.Str == "end" {
					break
				}
				want = append(want, v.Str)
			}
			// Ours: the same, as if executed.
			var got []string
			steps, _ := whole(new(Parser), stream)
			for _, s := range steps {
				switch {
				case s.err != "":
					got = append(got, s.err)
				case len(s.args) == 2:
					got = append(got, s.args[1])
				case len(s.args) > 2:
					got = append(got, "ERR wrong number of arguments for 'echo' command")
				case len(s.args) == 1:
					got = append(got, "PONG")
				}
			}
			if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
				t.Errorf("ours %.200q, Redis %.200q", got, want)
			}
		})
	}
}

func TestFormatDoubleAgreesWithRedis(t *testing.T) {
	conn := startRedis(t)()
	defer conn.Close()
	r := NewReader(conn)
	ask := func(args ...string) Value {
		t.Helper()
		if _, err := conn.Write(AppendCommand(nil, args...)); err != nil {
			t.Fatal(err)
		}
		v, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, proto := range []string{"2", "3"} {
		ask("HELLO", proto)
		for _, s := range []string{"0", "0.1", "3.0000000000000004", "1e21", "inf", "-inf", "1e16", "1e17", "1e-5", "0.0001", "123456789012345678", "-1.5", "5e-324", "1.7976931348623157e308", "33.333333333333336", "2e15"} {
			ask("ZADD", "z", s, "m")
			score := ask("ZSCORE", "z", "m")
			f, err := score.Double()
			if err != nil {
				t.Fatalf("version %s, %s: %v", proto, s, err)
			}
			if got := string(FormatDouble(nil, f)); got != score.Str {
				t.Errorf("version %s, %s: ours %q, Redis %q", proto, s, got, score.Str)
			}
		}
	}
}
