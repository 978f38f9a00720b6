package redis

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"vecino/cli"
)

func proxy(s *cli.Session) *cobra.Command {
	var (
		org, region string
		port        int
	)
	cmd := &cobra.Command{
		Use:   "proxy [name]",
		Short: "Offer a database on a port of this machine",
		Long: `Offer a database, as seen from one region, on a port of 127.0.0.1, until
ctrl-C. The password is the database's own; ` + "`vecino redis status`" + ` shows it.`,
		Args: cobra.MaximumNArgs(1),
	}
	orgFlag(cmd, &org)
	cmd.Flags().StringVarP(&region, "region", "r", "", "region to connect from")
	cmd.Flags().IntVarP(&port, "port", "p", 16379, "local port; 0 chooses a free one")
	cmd.RunE = run(s, func(v verb) error {
		u, err := v.endpoint(org, region)
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return fmt.Errorf("offer the database: %w; choose another port with --port", err)
		}
		if v.JSON {
			err = v.PrintJSON(map[string]string{"local": l.Addr().String(), "remote": u.Host})
		} else {
			_, err = fmt.Fprintf(v.Out, "Proxying %s to %s\n", l.Addr(), u.Host)
		}
		if err != nil {
			l.Close()
			return err
		}
		return relay(v, l, u.Host, v.Log)
	})
	return cmd
}

// dialTimeout bounds how long a caller waits for the far side.
const dialTimeout = 5 * time.Second

// relay passes connections on until ctx ends.
func relay(ctx context.Context, l net.Listener, to string, log io.Writer) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var tasks sync.WaitGroup
	defer tasks.Wait()
	for {
		near, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		tasks.Go(func() {
			defer near.Close()
			d := net.Dialer{Timeout: dialTimeout}
			far, err := d.DialContext(ctx, "tcp", to)
			if err != nil {
				fmt.Fprintf(log, "the database doesn't answer: %v\n", err)
				return
			}
			defer far.Close()
			defer context.AfterFunc(ctx, func() { near.Close(); far.Close() })()
			var both sync.WaitGroup
			both.Go(func() { copyHalf(far, near) })
			copyHalf(near, far)
			both.Wait()
		})
	}
}

// copyHalf copies one direction, and passes its end on.
func copyHalf(to, from net.Conn) {
	io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
}
