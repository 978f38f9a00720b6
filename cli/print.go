package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/charmbracelet/lipgloss"
)

// gap is what stands between two columns.
const gap = "  "

// Table prints rows in columns as wide as they need, under a header.
func Table(w io.Writer, header []string, rows [][]string) {
	all := append([][]string{header}, rows...)
	width := make([]int, len(header))
	for _, row := range all {
		for i, cell := range row {
			width[i] = max(width[i], lipgloss.Width(cell))
		}
	}
	for _, row := range all {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell + strings.Repeat(" ", width[i]-lipgloss.Width(cell)) + gap)
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// Fields prints names and values one below the other.
func Fields(w io.Writer, fields [][2]string) {
	width := 0
	for _, f := range fields {
		width = max(width, lipgloss.Width(f[0]))
	}
	for _, f := range fields {
		fmt.Fprintln(w, strings.TrimRight(f[0]+strings.Repeat(" ", width-lipgloss.Width(f[0]))+gap+f[1], " "))
	}
}

// Bytes prints a size as plans do: "100 MB".
func Bytes(n int64) string {
	units := []string{"B", "KB", "MB", "GB", "TB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0") + " " + units[i]
}

// Seconds prints a duration as "0.21 s".
func Seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// Yes prints a switch.
func Yes(on bool) string {
	if on {
		return "Enabled"
	}
	return "Disabled"
}
