package world

import "syscall"

// attributes make a process its own group, so that ctrl-C at the terminal is
// for the World alone, and have the kernel kill it when the thread ends that
// started it.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
