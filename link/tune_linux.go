package link

import (
	"net"
	"syscall"
)

const tcpNotSentLowAt = 25 // TCP_NOTSENT_LOWAT, which package syscall doesn't name

// tune keeps the queue on our side of the system call. By default a socket
// takes megabytes that it can't send yet, first come first served, and a fair
// queue before such a socket is no use: let it have two batches.
func tune(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	if c, err := tcp.SyscallConn(); err == nil {
		c.Control(func(fd uintptr) {
			// Where the kernel doesn't know it, links are only less fair.
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowAt, 2*batchSize)
		})
	}
}
