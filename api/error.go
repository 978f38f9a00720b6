package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// ErrorCode says what kind of wrong an Error is. Callers branch on it; the
// message is for people.
type ErrorCode string

const (
	Invalid      ErrorCode = "invalid"      // a field is missing, malformed or names something that doesn't exist
	NotFound     ErrorCode = "not_found"    // what the path names doesn't exist
	Conflict     ErrorCode = "conflict"     // it exists already, or changed meanwhile
	KeyReused    ErrorCode = "key_reused"   // this idempotency key belongs to a different request
	Gone         ErrorCode = "gone"         // it existed and was destroyed, or the revision asked for is no longer kept
	Unauthorized ErrorCode = "unauthorized" // no token, or one nobody has
	Forbidden    ErrorCode = "forbidden"    // the token is known and may not do this
	Unavailable  ErrorCode = "unavailable"  // a part that is needed can't be reached; trying again may help
	Internal     ErrorCode = "internal"     // a bug or a broken disk; the log has more
)

// status is the HTTP status of each code.
var status = map[ErrorCode]int{
	Invalid:      http.StatusUnprocessableEntity,
	NotFound:     http.StatusNotFound,
	Conflict:     http.StatusConflict,
	KeyReused:    http.StatusConflict,
	Gone:         http.StatusGone,
	Unauthorized: http.StatusUnauthorized,
	Forbidden:    http.StatusForbidden,
	Unavailable:  http.StatusServiceUnavailable,
	Internal:     http.StatusInternalServerError,
}

// Error is the body of every answer that isn't a success.
type Error struct {
	Code    ErrorCode `json:"code"`
	Message string    `json:"message"`
	Field   string    `json:"field,omitempty"`   // of the request, when one is to blame
	Choices []string  `json:"choices,omitempty"` // what would have been accepted
}

func (e *Error) Error() string {
	if len(e.Choices) == 0 {
		return e.Message
	}
	return e.Message + "; choose from: " + strings.Join(e.Choices, ", ")
}

// Errorf makes an Error without choices.
func Errorf(code ErrorCode, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Unknown is the answer to a field that names something that isn't there.
func Unknown(field, value string, choices []string) *Error {
	return &Error{Code: Invalid, Field: field, Message: fmt.Sprintf("%s %q not found", field, value), Choices: choices}
}

// CodeOf returns the code of the Error in err's chain, Unavailable for an
// error that came from the network, and "" for nil.
func CodeOf(err error) ErrorCode {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Unavailable
}

type errorBody struct {
	Error *Error `json:"error"`
}

// decodeError turns an unsuccessful answer into an *Error whatever its body is.
func decodeError(code int, body []byte) *Error {
	var b errorBody
	if json.Unmarshal(body, &b) == nil && b.Error != nil && b.Error.Code != "" {
		return b.Error
	}
	kind := Internal
	switch {
	case code == http.StatusNotFound || code == http.StatusMethodNotAllowed:
		kind = NotFound
	case code == http.StatusUnauthorized:
		kind = Unauthorized
	case code == http.StatusBadGateway || code == http.StatusServiceUnavailable || code == http.StatusGatewayTimeout:
		kind = Unavailable
	}
	return Errorf(kind, "%d %s: %s", code, http.StatusText(code), strings.TrimSpace(string(body[:min(len(body), 200)])))
}
