package platform

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// sealer encrypts passwords at rest with a key that lies beside the store, not
// in it: a copy of the store alone gives no password away.
//
// A sealed value is a version byte (1), 12 random bytes, and AES-256-GCM of
// the secret, bound to the record it belongs to.
type sealer struct{ aead cipher.AEAD }

const sealVersion = 1

// openSealer reads the key from a file, or makes both.
func openSealer(file string) (*sealer, error) {
	key, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, 32)
		rand.Read(key)
		err = writeKey(file, key)
	}
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if len(key) != 32 {
		return nil, fmt.Errorf("key file %s has %d bytes, not 32", file, len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &sealer{aead}, nil
}

// writeKey writes the file whole or not at all, and before anything is sealed
// with it.
func writeKey(file string, key []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(file+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(key)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

func (s *sealer) seal(secret, owner string) []byte {
	nonce := make([]byte, s.aead.NonceSize())
	rand.Read(nonce)
	return s.aead.Seal(append([]byte{sealVersion}, nonce...), nonce, []byte(secret), []byte(owner))
}

func (s *sealer) open(sealed []byte, owner string) (string, error) {
	n := s.aead.NonceSize()
	if len(sealed) < 1+n || sealed[0] != sealVersion {
		return "", errors.New("sealed value is malformed")
	}
	secret, err := s.aead.Open(nil, sealed[1:1+n], sealed[1+n:], []byte(owner))
	if err != nil {
		return "", errors.New("sealed value was made with another key, or for another record")
	}
	return string(secret), nil
}
