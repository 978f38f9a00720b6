package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// maxRequest bounds the body of a request. A node with many thousand copies
// reports them in several requests.
const maxRequest = 8 << 20

// Serve adapts a function that answers a request with a value or an error.
// What it returns is sent as JSON; an error that is no *Error is logged and
// answered as Internal without its text, since that may tell too much.
func Serve[T any](log *slog.Logger, code int, f func(r *http.Request) (T, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		if err != nil {
			WriteError(w, log, err)
			return
		}
		writeJSON(w, code, v)
	})
}

// ReadJSON decodes the body of a request. A field that nobody knows is
// refused: a misspelt option must not be dropped.
func ReadJSON(r *http.Request, into any) error {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxRequest+1))
	if err != nil {
		return Errorf(Invalid, "read request: %v", err)
	}
	if len(b) > maxRequest {
		return Errorf(Invalid, "request is larger than %d bytes", maxRequest)
	}
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return Errorf(Invalid, "request is not what this call takes: %v", err)
	}
	if d.More() {
		return Errorf(Invalid, "request has more than one JSON value")
	}
	return nil
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		code, b = http.StatusInternalServerError, []byte(`{"error":{"code":"internal","message":"answer can't be encoded"}}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(append(b, '\n'))
}

// WriteError answers with an error.
func WriteError(w http.ResponseWriter, log *slog.Logger, err error) {
	e, ok := errors.AsType[*Error](err)
	switch {
	case ok:
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		e = Errorf(Unavailable, "request was given up or took too long")
	default:
		log.Error("request failed", "error", err)
		e = Errorf(Internal, "internal error")
	}
	code, ok := status[e.Code]
	if !ok {
		code = http.StatusInternalServerError
	}
	writeJSON(w, code, errorBody{e})
}

// HashToken is how tokens are stored and compared.
func HashToken(token string) [32]byte { return sha256.Sum256([]byte(token)) }

// Bearer is the token a request carries, "" if none.
func Bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// HasToken reports whether a request carries one of the tokens. Empty tokens
// are nobody's.
func HasToken(r *http.Request, tokens ...string) bool {
	got, found := HashToken(Bearer(r)), 0
	for _, t := range tokens {
		if t != "" {
			want := HashToken(t)
			found |= subtle.ConstantTimeCompare(got[:], want[:])
		}
	}
	return found == 1
}

// RequireToken lets requests with one of the tokens through to h.
func RequireToken(log *slog.Logger, h http.Handler, tokens ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !HasToken(r, tokens...) {
			WriteError(w, log, Errorf(Unauthorized, "a valid bearer token is needed"))
			return
		}
		h.ServeHTTP(w, r)
	})
}

// Lines is the server's side of a watch.
type Lines struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

// writeTimeout bounds how long a watcher may leave a line unread.
const writeTimeout = 10 * time.Second

// StartLines begins to answer with JSON lines.
func StartLines(w http.ResponseWriter) *Lines {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Time{}) // a server's bound on reading a request would end the answer too
	return &Lines{w, rc}
}

// Send writes one line; nil is a blank one, which only shows that the server
// is alive. The line may stay in a buffer until Flush.
func (l *Lines) Send(v any) error {
	line := []byte{}
	if v != nil {
		var err error
		if line, err = json.Marshal(v); err != nil {
			return err
		}
	}
	l.rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // not all writers have one
	_, err := l.w.Write(append(line, '\n'))
	return err
}

// Flush sends what was written on its way.
func (l *Lines) Flush() error {
	return l.rc.Flush()
}

// Spec answers with an OpenAPI file.
func Spec(file []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		w.Write(file)
	})
}
