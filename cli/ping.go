package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"vecino/api"
)

// ReadyTimeout bounds how long a new database may take to answer.
const ReadyTimeout = 10 * time.Second

const (
	pingTimeout = 2 * time.Second
	pingPause   = 3 * time.Millisecond
)

// Ready is how long after the start each region answered.
type Ready map[api.Region]time.Duration

// Slowest is when the last region answered.
func (r Ready) Slowest() (slowest time.Duration) {
	for _, d := range r {
		slowest = max(slowest, d)
	}
	return slowest
}

// errNoWay means that this machine isn't on the network of an endpoint, and
// so can't say anything about it.
var errNoWay = errors.New("not reachable from this machine")

// WaitReady sends PING through every endpoint until it is answered. A region
// whose network this machine isn't on is left out of the result.
func WaitReady(ctx context.Context, endpoints []api.Endpoint, start time.Time) (Ready, error) {
	ctx, cancel := context.WithTimeout(ctx, ReadyTimeout)
	defer cancel()
	var (
		tasks sync.WaitGroup
		took  = make([]time.Duration, len(endpoints))
		errs  = make([]error, len(endpoints))
	)
	for i, e := range endpoints {
		if e.URL == "" {
			errs[i] = errNoWay
			continue
		}
		tasks.Go(func() {
			errs[i] = pingUntil(ctx, e.URL)
			took[i] = time.Since(start)
		})
	}
	tasks.Wait()
	ready := Ready{}
	var silent []string
	for i, e := range endpoints {
		switch {
		case errs[i] == nil:
			ready[e.Region] = took[i]
		case !errors.Is(errs[i], errNoWay):
			silent = append(silent, fmt.Sprintf("%s (%v)", e.Region, errs[i]))
		}
	}
	if len(silent) > 0 {
		return ready, fmt.Errorf("there was no answer within %s from %s", ReadyTimeout, strings.Join(silent, ", "))
	}
	return ready, nil
}

// pingUntil pings until there is an answer; the error is the last one seen.
func pingUntil(ctx context.Context, url string) error {
	for {
		err := Ping(ctx, url)
		if err == nil || errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.EADDRNOTAVAIL) {
			if err != nil {
				return errNoWay
			}
			return nil
		}
		timer := time.NewTimer(pingPause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
	}
}

// Ping connects to a redis:// URL, says the password and PING, and returns nil
// for a PONG.
func Ping(ctx context.Context, rawURL string) error {
	u, err := url.Parse(rawURL)
	if err != nil {
		return fmt.Errorf("read URL: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	password, _ := u.User.Password()
	if _, err := fmt.Fprintf(conn, "*3\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n*1\r\n$4\r\nPING\r\n",
		len(u.User.Username()), u.User.Username(), len(password), password); err != nil {
		return err
	}
	in := bufio.NewReader(conn)
	for _, want := range []string{"+OK", "+PONG"} {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		if line = strings.TrimRight(line, "\r\n"); line != want {
			return fmt.Errorf("answered %q", strings.TrimPrefix(line, "-"))
		}
	}
	return nil
}
