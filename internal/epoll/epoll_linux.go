package epoll

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"
)

// What to be told of a file descriptor, or what is told. Broken and HungUp
// are always told.
const (
	Readable = syscall.EPOLLIN
	Writable = syscall.EPOLLOUT
	PeerDone = syscall.EPOLLRDHUP // the peer sends no more
	Broken   = syscall.EPOLLERR
	HungUp   = syscall.EPOLLHUP // no more in either direction

	// Edge asks to be told of what changes, once, and not again for as long as
	// it lasts.
	Edge = 1 << 31
)

// An Event is what happened (Events) to which file descriptor (Fd), with the
// word that was given with it (Pad).
type Event = syscall.EpollEvent

// Create makes an epoll instance.
func Create() (ep int, errno syscall.Errno) {
	r, _, errno := syscall.RawSyscall(syscall.SYS_EPOLL_CREATE1, syscall.EPOLL_CLOEXEC, 0, 0)
	return int(r), errno
}

// Add starts to watch fd; tag comes back as Event.Pad.
func Add(ep, fd int, events uint32, tag int32) syscall.Errno {
	return control(ep, syscall.EPOLL_CTL_ADD, fd, events, tag)
}

// Modify changes what of fd is watched.
func Modify(ep, fd int, events uint32, tag int32) syscall.Errno {
	return control(ep, syscall.EPOLL_CTL_MOD, fd, events, tag)
}

// Remove stops to watch fd. Closing its last descriptor does so too.
func Remove(ep, fd int) syscall.Errno {
	return control(ep, syscall.EPOLL_CTL_DEL, fd, 0, 0)
}

func control(ep, op, fd int, events uint32, tag int32) syscall.Errno {
	event := Event{Events: events, Fd: int32(fd), Pad: tag}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(ep), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&event)), 0, 0)
	return errno
}

// Poll tells what is ready now, without waiting.
func Poll(ep int, events []Event) (n int, errno syscall.Errno) {
	r, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), 0
}

// Wait waits up to so many milliseconds, or for ever when they are negative.
func Wait(ep int, events []Event, ms int) (n int, errno syscall.Errno) {
	r, _, errno := syscall.Syscall6(syscall.SYS_EPOLL_PWAIT, uintptr(ep), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(ms), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), 0
}

// Read reads into b, which isn't empty. n == 0 with no error is the end of the stream.
func Read(fd int, b []byte) (n int, errno syscall.Errno) {
	r, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(r), 0
}

// Write writes what the kernel takes of b, which isn't empty, to a socket.
// When the peer has closed it, it fails with EPIPE and raises no signal.
func Write(fd int, b []byte) (n int, errno syscall.Errno) {
	r, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), syscall.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), 0
}

// Close closes fd.
func Close(fd int) { syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0) }

// EventFD makes a descriptor that Notify makes readable and Drain unreadable.
func EventFD() (fd int, errno syscall.Errno) {
	r, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	return int(r), errno
}

// Notify makes an EventFD readable.
func Notify(fd int) {
	one := [8]byte{}
	binary.NativeEndian.PutUint64(one[:], 1)
	syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&one)), 8)
}

// Drain makes an EventFD unreadable.
func Drain(fd int) {
	var count [8]byte
	syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&count)), 8)
}

// Accept takes a connection off a listening socket: its descriptor, in
// non-blocking mode, and the peer's address if that is an internet address.
func Accept(listener int) (fd int, peer netip.AddrPort, errno syscall.Errno) {
	var sa syscall.RawSockaddrAny
	size := uint32(unsafe.Sizeof(sa))
	r, _, errno := syscall.RawSyscall6(syscall.SYS_ACCEPT4, uintptr(listener), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, netip.AddrPort{}, errno
	}
	return int(r), addrPort(&sa), 0
}

// LocalAddr is the address that fd is bound to, if it is an internet address.
func LocalAddr(fd int) netip.AddrPort {
	var sa syscall.RawSockaddrAny
	size := uint32(unsafe.Sizeof(sa))
	if _, _, errno := syscall.RawSyscall(syscall.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size))); errno != 0 {
		return netip.AddrPort{}
	}
	return addrPort(&sa)
}

func addrPort(sa *syscall.RawSockaddrAny) netip.AddrPort {
	port := func(p *uint16) uint16 { return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(p))[:]) }
	switch sa.Addr.Family {
	case syscall.AF_INET:
		in := (*syscall.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), port(&in.Port))
	case syscall.AF_INET6:
		in := (*syscall.RawSockaddrInet6)(unsafe.Pointer(sa))
		addr := netip.AddrFrom16(in.Addr).Unmap()
		if in.Scope_id != 0 && addr.Is6() {
			addr = addr.WithZone(strconv.Itoa(int(in.Scope_id)))
		}
		return netip.AddrPortFrom(addr, port(&in.Port))
	}
	return netip.AddrPort{}
}

// SocketError takes the error that is pending on a socket; 0 is none.
func SocketError(fd int) syscall.Errno {
	n, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
	if err != nil {
		return 0
	}
	return syscall.Errno(n)
}

// Tune sets what a connection of a database wants: no delay of small
// writes, and a probe after 300 s of silence, repeated every 100 s and given up
// after the third, as Redis has it. A socket that isn't TCP is left as it is.
func Tune(fd int) {
	const idle, interval, probes = 300, 100, 3
	if syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1) != nil {
		return
	}
	// None of these is worth refusing a connection over.
	_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1)
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, idle)
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, interval)
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, probes)
}

// SetNonblock puts fd into the mode that Read, Write and Accept need.
func SetNonblock(fd int) error { return syscall.SetNonblock(fd, true) }
