package link

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// The handshake of a lane. Who dialled says hello, the other answers welcome
// or why not, and ready closes the circle: after it each has heard the other
// hear it.
//
//	dialer                                  acceptor
//	hello   versions, lane, names, boot  ->
//	                                     <- welcome  version, boot, proof | refusal
//	ready   proof                        ->
//
// Every message is magic "VLNK", a type, two bytes of length, and a body.
// Both proofs are an HMAC-SHA256 over hello and welcome, keyed with the
// hubs' token, so a token is never sent and an old exchange is no use: there
// is a nonce of either side in it.
//
// This layout doesn't change with the version, so that two nodes can always
// tell each other that they don't match.
const (
	magic      = "VLNK"
	minVersion = 1 // the oldest we talk to
	maxVersion = 1 // what we speak

	typeHello   = 1
	typeWelcome = 2
	typeReady   = 3

	maxMessage = 1 << 10
	nonceSize  = 16
)

// A Refusal is why a hub turned a connection away. They are counted; see
// [Hub.Refused].
type Refusal string

const (
	RefusedBusy      Refusal = "busy"      // too many handshakes at once
	RefusedTLS       Refusal = "tls"       // no certificate that we trust
	RefusedGarbage   Refusal = "garbage"   // what came is not a hello, or nothing came in time
	RefusedVersion   Refusal = "version"   // no version in common
	RefusedTarget    Refusal = "target"    // it wanted another node than this one
	RefusedUnknown   Refusal = "unknown"   // not one of our peers, or not yet
	RefusedIdentity  Refusal = "identity"  // the certificate names another node
	RefusedDirection Refusal = "direction" // of this pair it is us who dials
	RefusedToken     Refusal = "token"     // its token is not ours
	RefusedStale     Refusal = "stale"     // a newer link of this peer has been seen
)

// A refusedError is a refusal: ours to be counted, or the peer's to us.
type refusedError struct {
	reason Refusal
	detail string
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("refused: %s (%s)", e.reason, e.detail)
}

func refuse(reason Refusal, format string, args ...any) error {
	return &refusedError{reason, fmt.Sprintf(format, args...)}
}

// refusalOf returns why err turned a connection away.
func refusalOf(err error) Refusal {
	if r := (*refusedError)(nil); errors.As(err, &r) {
		return r.reason
	}
	return RefusedGarbage
}

type hello struct {
	min, max    uint8
	lane        Lane
	boot        uint64
	incarnation uint64 // of the link, counted by who dials; grows within a boot
	nonce       [nonceSize]byte
	node        string
	target      string
}

func (h *hello) append(dst []byte) []byte {
	dst = append(dst, h.min, h.max, byte(h.lane))
	dst = binary.LittleEndian.AppendUint64(dst, h.boot)
	dst = binary.LittleEndian.AppendUint64(dst, h.incarnation)
	dst = append(dst, h.nonce[:]...)
	dst = appendString(dst, h.node)
	return appendString(dst, h.target)
}

func (h *hello) decode(b []byte) error {
	r := fields{b: b}
	h.min, h.max, h.lane = r.u8(), r.u8(), Lane(r.u8())
	h.boot, h.incarnation = r.u64(), r.u64()
	copy(h.nonce[:], r.bytes(nonceSize))
	h.node, h.target = r.str(), r.str()
	if r.short || h.lane >= numLanes || h.node == "" {
		return errors.New("malformed hello")
	}
	return nil // more bytes are of a later version
}

type welcome struct {
	version uint8
	boot    uint64
	nonce   [nonceSize]byte
	node    string
	refusal Refusal // empty: welcome
	detail  string
	// then the proof, which is over all of the above
}

func (w *welcome) append(dst []byte) []byte {
	dst = append(dst, w.version)
	dst = binary.LittleEndian.AppendUint64(dst, w.boot)
	dst = append(dst, w.nonce[:]...)
	dst = appendString(dst, w.node)
	dst = appendString(dst, string(w.refusal))
	return appendString(dst, w.detail)
}

// decode reads a body and returns the two parts of it, the claim and its proof.
func (w *welcome) decode(b []byte) (claim, proof []byte, err error) {
	if len(b) < sha256.Size {
		return nil, nil, errors.New("malformed welcome")
	}
	claim, proof = b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	r := fields{b: claim}
	w.version, w.boot = r.u8(), r.u64()
	copy(w.nonce[:], r.bytes(nonceSize))
	w.node, w.refusal, w.detail = r.str(), Refusal(r.str()), r.str()
	if r.short {
		return nil, nil, errors.New("malformed welcome")
	}
	return claim, proof, nil
}

// prove says "I know the token" in the words of this exchange.
func prove(token string, who byte, hello, welcome []byte) []byte {
	key := sha256.Sum256([]byte(token))
	mac := hmac.New(sha256.New, key[:])
	mac.Write([]byte{who})
	mac.Write(hello)
	mac.Write(welcome)
	return mac.Sum(nil)
}

func nonce() (n [nonceSize]byte) {
	rand.Read(n[:]) // never fails
	return n
}

// dialHandshake runs the dialer's side as far as welcome, and returns the
// peer's boot, the round trip, and the ready message to send when all lanes
// have come so far.
func dialHandshake(conn io.ReadWriter, token string, h hello) (boot uint64, rtt time.Duration, ready []byte, err error) {
	h.min, h.max, h.nonce = minVersion, maxVersion, nonce()
	said := h.append(nil)
	start := time.Now()
	if _, err := conn.Write(appendMessage(nil, typeHello, said)); err != nil {
		return 0, 0, nil, fmt.Errorf("say hello: %w", err)
	}
	body, err := readMessage(conn, typeWelcome)
	if err != nil {
		return 0, 0, nil, fmt.Errorf("wait for welcome: %w", err)
	}
	rtt = time.Since(start)
	var w welcome
	claim, proof, err := w.decode(body)
	switch {
	case err != nil:
		return 0, 0, nil, err
	case w.refusal != "":
		return 0, 0, nil, &refusedError{w.refusal, w.detail}
	case w.version < minVersion || w.version > maxVersion:
		return 0, 0, nil, refuse(RefusedVersion, "the peer chose %d of %d to %d", w.version, minVersion, maxVersion)
	case w.node != h.target:
		return 0, 0, nil, refuse(RefusedTarget, "%q answers for %q", w.node, h.target)
	case !hmac.Equal(proof, prove(token, 'a', said, claim)):
		return 0, 0, nil, refuse(RefusedToken, "the peer doesn't know our token")
	}
	return w.boot, rtt, appendMessage(nil, typeReady, prove(token, 'd', said, claim)), nil
}

// readHello is the first half of the acceptor's side.
func readHello(conn io.Reader) (h hello, said []byte, err error) {
	said, err = readMessage(conn, typeHello)
	if err == nil {
		err = h.decode(said)
	}
	if err != nil {
		return h, nil, refuse(RefusedGarbage, "read hello: %v", err)
	}
	return h, said, nil
}

// answerHello is the second half: a welcome, and the wait for ready; or, when
// why isn't nil, the refusal.
func answerHello(conn io.ReadWriter, token string, said []byte, h hello, node string, boot uint64, why error) (rtt time.Duration, err error) {
	w := welcome{version: min(maxVersion, h.max), boot: boot, nonce: nonce(), node: node}
	if why == nil && (h.max < minVersion || h.min > maxVersion) {
		why = refuse(RefusedVersion, "%d to %d, and we speak %d to %d", h.min, h.max, minVersion, maxVersion)
	}
	if r := (*refusedError)(nil); errors.As(why, &r) {
		w.refusal, w.detail = r.reason, r.detail
	}
	claim := w.append(nil)
	start := time.Now()
	body := append(claim[:len(claim):len(claim)], prove(token, 'a', said, claim)...)
	if _, err := conn.Write(appendMessage(nil, typeWelcome, body)); err != nil {
		return 0, fmt.Errorf("answer hello: %w", err)
	}
	if why != nil {
		return 0, why
	}
	proof, err := readMessage(conn, typeReady)
	if err != nil {
		return 0, fmt.Errorf("wait for ready: %w", err)
	}
	if !hmac.Equal(proof, prove(token, 'd', said, claim)) {
		return 0, refuse(RefusedToken, "%q doesn't know our token", h.node)
	}
	return time.Since(start), nil
}

func appendMessage(dst []byte, kind uint8, body []byte) []byte {
	dst = append(dst, magic...)
	dst = append(dst, kind)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(body)))
	return append(dst, body...)
}

// readMessage reads exactly one message: what follows it are frames, and they
// are for the lane's reader.
func readMessage(r io.Reader, kind uint8) ([]byte, error) {
	var head [len(magic) + 3]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	length := binary.LittleEndian.Uint16(head[len(magic)+1:])
	if string(head[:len(magic)]) != magic || head[len(magic)] != kind || length > maxMessage {
		return nil, fmt.Errorf("not a message of type %d", kind)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	return body, nil
}

// appendString cuts what is too long: names are checked by Open, and details
// are for people.
func appendString(dst []byte, s string) []byte {
	s = s[:min(len(s), 255)]
	return append(append(dst, byte(len(s))), s...)
}

// fields reads the fields of a body. It remembers that it ran out of bytes,
// so that is asked once.
type fields struct {
	b     []byte
	short bool
}

func (f *fields) bytes(n int) []byte {
	if f.short || len(f.b) < n {
		f.short = true
		return nil
	}
	b := f.b[:n]
	f.b = f.b[n:]
	return b
}

func (f *fields) u8() uint8 {
	if b := f.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (f *fields) u64() uint64 {
	if b := f.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (f *fields) str() string { return string(f.bytes(int(f.u8()))) }
