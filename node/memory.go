package node

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
)

// Bytes is an amount of memory, as a person writes it: 512mb, 2gb, 100000.
// A k is 1024.
type Bytes int64

var units = []struct {
	suffix string
	shift  uint
}{
	{"kib", 10}, {"mib", 20}, {"gib", 30}, {"kb", 10}, {"mb", 20}, {"gb", 30}, {"k", 10}, {"m", 20}, {"g", 30}, {"b", 0}, {"", 0},
}

// Set reads an amount.
func (b *Bytes) Set(s string) error {
	word := strings.ToLower(strings.TrimSpace(s))
	for _, u := range units {
		digits, ok := strings.CutSuffix(word, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
		if err != nil || math.IsNaN(n) || n < 0 || n*float64(int64(1)<<u.shift) > 1<<62 {
			break
		}
		*b = Bytes(n * float64(int64(1)<<u.shift))
		return nil
	}
	return fmt.Errorf("%q is not an amount of memory; write it like 512mb, 2gb or 1073741824", s)
}

func (b *Bytes) String() string {
	n := int64(*b)
	for _, u := range []struct {
		suffix string
		shift  uint
	}{{"gb", 30}, {"mb", 20}, {"kb", 10}} {
		if n != 0 && n&(1<<u.shift-1) == 0 {
			return fmt.Sprintf("%d%s", n>>u.shift, u.suffix)
		}
	}
	return strconv.FormatInt(n, 10)
}

// Type is what the flag's help calls it.
func (b *Bytes) Type() string { return "bytes" }

// leastMemory is the least budget that a node can live with.
const leastMemory = 32 << 20

// budget is how a node's memory is divided. What is fixed comes off first; the
// rest is for keys and values, of which the values can leave.
//
//	total
//	  cache    blocks of the tier that were read lately
//	  writes   what sessions wrote to the tier and is not in a table yet; twice
//	           that, since the next begins while the last is on its way to disk
//	  process  code, stacks, buffers of connections, garbage
//	  gaps     free room between records that isn't in one piece yet
//	  data     keys and values in memory
type budget struct {
	total, cache, writes, process, gaps, data int64
}

func divide(total int64) budget {
	b := budget{total: total}
	b.cache = min(max(total/16, 4<<20), 256<<20)
	b.writes = min(max(total/64, 1<<20), 8<<20)
	b.process = max(total/8, 20<<20)
	rest := total - b.cache - 2*b.writes - b.process
	b.gaps = max(rest/6, 0)
	b.data = max(rest-b.gaps, total/4)
	return b
}

// defaultMemory is seven tenths of what the machine has, or of what the
// control group or ulimit -v allows if that is less.
func defaultMemory() int64 {
	most := machineMemory("/proc/meminfo")
	for _, limit := range []int64{groupMemory("/proc/self/cgroup", "/sys/fs/cgroup"), addressSpace()} {
		if limit > 0 && (most == 0 || limit < most) {
			most = limit
		}
	}
	if most == 0 {
		most = 2 << 30 // where neither can be read
	}
	return max(most/10*7, leastMemory)
}

// addressSpace is how much the process may have of it, 0 for no limit.
func addressSpace() int64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_AS, &limit) != nil || limit.Cur > math.MaxInt64 {
		return 0
	}
	return int64(limit.Cur)
}

func machineMemory(name string) int64 {
	f, err := os.Open(name)
	if err != nil {
		return 0
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if words := strings.Fields(lines.Text()); len(words) >= 2 && words[0] == "MemTotal:" {
			kb, _ := strconv.ParseInt(words[1], 10, 64)
			return kb << 10
		}
	}
	return 0
}

// groupMemory is the least limit of this process's control group and of those
// that it is in, 0 if there is none.
func groupMemory(self, root string) (least int64) {
	b, err := os.ReadFile(self)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		dir, file := root, "memory.max"
		if parts[0] != "0" {
			if !strings.Contains(","+parts[1]+",", ",memory,") {
				continue
			}
			dir, file = filepath.Join(root, "memory"), "memory.limit_in_bytes"
		}
		// Within a container the group's own path may not be visible; the root is
		// then the container's.
		for at := filepath.Clean("/" + parts[2]); ; at = filepath.Dir(at) {
			if text, err := os.ReadFile(filepath.Join(dir, at, file)); err == nil {
				n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
				if err == nil && n > 0 && n < 1<<50 && (least == 0 || n < least) {
					least = n
				}
			}
			if at == "/" {
				break
			}
		}
	}
	return least
}

// limitProcess has the garbage collector keep the process within total, of
// which outside is taken by what it doesn't know of, and live by what it can't
// free: without some room above that it would do nothing but collect. Who has set
// GOMEMLIMIT knows better.
func limitProcess(total, outside, live int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(max(total-outside, live+live/3+16<<20))
	}
}
