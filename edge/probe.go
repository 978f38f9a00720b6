package edge

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"vecino/proxyproto"
)

// probeTimeout is how long a node may take to answer a probe. One whose process
// has ended is refused at once; it is those that hang, or can't be reached, that
// keep their clients waiting for so long.
const probeTimeout = time.Second

// answers asks a node whether it lives, where edges connect to it. That it
// accepts proves nothing, for a kernel does that for a process that hangs; that
// it closes the connection when it has read a header which calls nobody does.
func answers(ctx context.Context, proxy string) bool {
	if proxy == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", proxy)
	if err != nil {
		return false
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := conn.Write(proxyproto.AppendLocal(nil)); err != nil {
		return false
	}
	n, err := conn.Read(make([]byte, 1))
	return n == 0 && errors.Is(err, io.EOF)
}
