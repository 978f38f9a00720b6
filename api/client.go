package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"
)

// Bounds of a client. A watch has no end; it is given up when nothing, not
// even a blank line, was heard for watchSilence.
const (
	requestTimeout = 30 * time.Second
	dialTimeout    = 3 * time.Second
	maxAnswer      = 64 << 20
	maxWatchLine   = 4 << 20
	watchSilence   = 3 * HeartbeatInterval
	firstBackoff   = 20 * time.Millisecond
	lastBackoff    = time.Second
)

// HeartbeatInterval is how often the servers send a blank line in a watch.
const HeartbeatInterval = 2 * time.Second

// client does the HTTP of both typed clients.
type client struct {
	base  string
	token string
	http  *http.Client
}

func newClient(url, token string) client {
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     90 * time.Second,
	}
	return client{base: strings.TrimRight(url, "/"), token: token, http: &http.Client{Transport: transport}}
}

// request makes an authenticated request; body nil means none.
func (c *client) request(ctx context.Context, method, path string, body any) (*http.Request, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode %s %s: %w", method, path, err)
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, r)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, nil
}

// call does one request and decodes its answer into out, unless out is nil.
// An answer that isn't a success is an *Error in the chain.
func (c *client) call(ctx context.Context, method, path, key string, body, out any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := c.request(ctx, method, path, body)
	if err != nil {
		return err
	}
	if key != "" {
		req.Header.Set(IdempotencyHeader, key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", c.base, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read answer of %s: %w", c.base, err)
	}
	if resp.StatusCode/100 != 2 {
		return decodeError(resp.StatusCode, b)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("decode answer of %s: %w", c.base, err)
	}
	return nil
}

// lines reads one watch until it ends, calling fn with each line that isn't
// blank. The error is never nil: a watch that ends cleanly ends with io.EOF.
func (c *client) lines(ctx context.Context, path string, fn func([]byte) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(watchSilence, func() { cancel(errSilent) })
	defer silence.Stop()

	req, err := c.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
		return decodeError(resp.StatusCode, b)
	}
	sc := bufio.NewScanner(resp.Body)
	sc.Buffer(make([]byte, 16<<10), maxWatchLine)
	for sc.Scan() {
		silence.Reset(watchSilence)
		if len(sc.Bytes()) == 0 {
			continue
		}
		if err := fn(sc.Bytes()); err != nil {
			return err
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := sc.Err(); err != nil {
		return err
	}
	return io.EOF
}

var errSilent = errors.New("nothing heard from the server")

// stopError carries an error of the caller's function out of a watch.
type stopError struct{ err error }

func (s stopError) Error() string { return s.err.Error() }

// retry runs try until the context ends, or it returns a stopError, or an
// error that another try can't mend. Between tries it waits from firstBackoff
// to lastBackoff, doubling, and starts over when try says it got on.
func retry(ctx context.Context, try func() (progress bool, err error)) error {
	wait := firstBackoff
	for {
		progress, err := try()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if stop, ok := errors.AsType[stopError](err); ok {
			return stop.err
		}
		if e, ok := errors.AsType[*Error](err); ok {
			switch e.Code {
			case Unauthorized, Forbidden, Invalid, NotFound:
				return err
			}
		}
		if progress {
			wait = firstBackoff
		}
		timer := time.NewTimer(wait/2 + rand.N(wait/2+1))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
		wait = min(2*wait, lastBackoff)
	}
}
