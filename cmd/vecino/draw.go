package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/lipgloss"
	"github.com/charmbracelet/lipgloss/table"
	"golang.org/x/term"

	"vecino/region"
	"vecino/world"
)

// pen draws for one output, with colours if that is a terminal which has them.
type pen struct {
	out                     io.Writer
	width                   int // of the terminal; 0: it is none
	plain, strong, dim, bad lipgloss.Style
}

func newPen(out io.Writer) *pen {
	r := lipgloss.NewRenderer(out)
	width := 0
	if f, ok := out.(*os.File); ok {
		width, _, _ = term.GetSize(int(f.Fd())) // 0 if it is no terminal
	}
	return &pen{
		out: out, width: width, plain: r.NewStyle(), strong: r.NewStyle().Bold(true),
		dim: r.NewStyle().Faint(true), bad: r.NewStyle().Foreground(lipgloss.Color("1")),
	}
}

func (p *pen) line(format string, args ...any) { fmt.Fprintf(p.out, format+"\n", args...) }

// table draws rows under a header. Cells may be styled already.
func (p *pen) table(header []string, rows [][]string) {
	t := table.New().Border(lipgloss.RoundedBorder()).BorderStyle(p.dim).
		Headers(header...).Rows(rows...).
		StyleFunc(func(row, _ int) lipgloss.Style {
			if row == table.HeaderRow {
				return p.strong.Padding(0, 1)
			}
			return p.plain.Padding(0, 1)
		})
	p.line("%s", t)
}

// wide is how many columns the whole table of processes needs; on a narrower
// terminal it goes without the addresses that are for nobody but other
// processes.
const wide = 112

// processes draws what runs where: what is in no region first, then by region,
// the node before its edge.
func (p *pen) processes(s world.Status) {
	var rows [][]string
	for _, r := range append([]region.Code{""}, s.Regions...) {
		where := region.Title(r)
		for _, d := range s.Processes {
			if d.Region == r {
				rows = append(rows, p.process(where, d))
				where = ""
			}
		}
	}
	header := []string{"Region", "Process", "State", "Pid", "Listens on", "Link", "Gossip", "Admin"}
	if p.width > 0 && p.width < wide {
		header = header[:5]
		for i := range rows {
			rows[i] = rows[i][:5]
		}
	}
	p.table(header, rows)
}

func (p *pen) process(where string, d world.ProcessStatus) []string {
	state, pid := string(d.State), "-"
	if d.State != world.Running {
		state = p.bad.Render(state)
	}
	if d.PID != 0 {
		pid = fmt.Sprint(d.PID)
	}
	return []string{where, d.Name, state, pid, address(d, "api", "proxy"), address(d, "link"), address(d, "gossip"), address(d, "admin")}
}

// address is where a process listens for the first of some purposes, by its
// port if it is an address of this machine as usual.
func address(d world.ProcessStatus, purposes ...string) string {
	for _, purpose := range purposes {
		for _, a := range d.Addresses {
			if a.For == purpose {
				return strings.TrimPrefix(strings.TrimPrefix(a.Addr, "127.0.0.1"), "[::1]")
			}
		}
	}
	return "-"
}

// roundTrips draws how far the regions are from each other, and what is cut.
func (p *pen) roundTrips(s world.Status) {
	header := []string{"round trip"}
	var rows [][]string
	for i, a := range s.Regions {
		header = append(header, string(a))
		row := []string{p.strong.Render(string(a))}
		for j, b := range s.Regions {
			there, back := s.Changed.IsCut(a, b), s.Changed.IsCut(b, a)
			cell := millis(s.RoundTrips[i][j])
			switch {
			case i == j:
				cell = p.dim.Render("·")
			case there && back:
				cell = p.bad.Render("cut")
			case there:
				cell = p.bad.Render("cut →")
			case back:
				cell = p.bad.Render("cut ←")
			case slices.ContainsFunc(s.Changed.Delays, func(d world.Delay) bool { return d.A == a && d.B == b || d.A == b && d.B == a }):
				cell = p.strong.Render(cell + " *")
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	p.table(header, rows)
	if len(s.Changed.Delays) > 0 {
		p.line("  * changed; on the globe it is another")
	}
	for _, c := range s.Changed.Cuts {
		if !s.Changed.IsCut(c.To, c.From) {
			p.line("  nothing gets from %s to %s; the way back is open", c.From, c.To)
		}
	}
	for _, l := range s.Changed.Lags {
		p.line("  replicated entries reach %s %s late", l.Region, millis(l.MS))
	}
}

// millis prints milliseconds with as many digits as are of interest.
func millis(ms float64) string {
	if ms < 10 {
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// someRoundTrips names a few pairs: the nearest, the farthest, and the first.
func someRoundTrips(s world.Status) string {
	type pair struct {
		a, b region.Code
		ms   float64
	}
	var pairs []pair
	for i, a := range s.Regions {
		for j := i + 1; j < len(s.Regions); j++ {
			pairs = append(pairs, pair{a, s.Regions[j], s.RoundTrips[i][j]})
		}
	}
	slices.SortStableFunc(pairs, func(a, b pair) int { return cmp.Compare(a.ms, b.ms) })
	var picked []string
	for i, p := range pairs {
		if n := len(pairs); n <= 5 || i == 0 || i == n/4 || i == n/2 || i == 3*n/4 || i == n-1 {
			picked = append(picked, fmt.Sprintf("%s %s %s", p.a, p.b, millis(p.ms)))
		}
	}
	return strings.Join(picked, " · ")
}

// seconds prints how long something took.
func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
