//go:build !linux

package world

import "syscall"

// attributes make a process its own group, so that ctrl-C at the terminal is
// for the World alone. That its parent is gone it sees by its standard input.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
