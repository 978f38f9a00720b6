// Package epoll is a thin layer over the system calls that an event loop
// makes: epoll, eventfd, and reading, writing and accepting on sockets that
// don't block.
//
// Package loop and the edge's relay use it. It is thin for a reason: calls
// that return at once (Poll, Read, Write, Accept) go past the Go scheduler, which
// is worth a tenth of a request's cost, so they must only be given file
// descriptors in non-blocking mode. Wait may block, and tells the scheduler.
//
// Errors are syscall.Errno, returned as such and not as error, so that none is
// boxed on the way; 0 is success. There is nothing here on systems other than Linux.
package epoll
