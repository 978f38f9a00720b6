package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// describeMachine says what the figures are of.
func describeMachine() string {
	parts := []string{fmt.Sprintf("%s, %d cores", cpuModel(), runtime.NumCPU())}
	var u syscall.Utsname
	if syscall.Uname(&u) == nil {
		var release strings.Builder
		for _, c := range u.Release {
			if c == 0 {
				break
			}
			release.WriteByte(byte(c))
		}
		parts = append(parts, "Linux "+release.String())
	}
	parts = append(parts, strings.Replace(runtime.Version(), "go", "Go ", 1))
	if v := redisVersion(); v != "" {
		parts = append(parts, "redis-server "+v)
	}
	text := strings.Join(parts, ", ")
	if load, ok := loadAverage(); ok {
		text += fmt.Sprintf("; load average before it began: %.1f", load)
	}
	return text
}

func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// redisVersion is that of redis-server, empty without one.
func redisVersion() string {
	out, _ := exec.Command("redis-server", "--version").Output()
	for _, word := range strings.Fields(string(out)) {
		if v, ok := strings.CutPrefix(word, "v="); ok {
			return v
		}
	}
	return ""
}

// loadAverage of the last minute: what else the machine was doing.
func loadAverage() (float64, bool) {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, false
	}
	first, _, _ := strings.Cut(string(b), " ")
	load, err := strconv.ParseFloat(first, 64)
	return load, err == nil
}
