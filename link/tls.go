package link

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// LoadTLS makes the TLS configuration of a hub from files: its certificate
// and key, and the authority that issued those of all nodes. Both ends show a
// certificate, and it must carry the node's name.
func LoadTLS(certFile, keyFile, caFile string) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("load the node's certificate: %w", err)
	}
	text, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("load the authority's certificate: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("load the authority's certificate: none in %s", caFile)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{cert},
		RootCAs:      pool,
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		MinVersion:   tls.VersionTLS13,
	}, nil
}

const (
	certLifetime = 10 * 365 * 24 * time.Hour
	clockSkew    = time.Hour // a machine that is behind takes a new certificate all the same
)

// A CA issues certificates to nodes. It is for worlds that have no authority
// of their own; a real deployment brings its certificates along.
type CA struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
}

// NewCA returns the authority that keeps itself in dir, as ca.pem and ca.key,
// and mints it if there is none yet.
func NewCA(dir string) (*CA, error) {
	ca, err := loadCA(dir)
	if errors.Is(err, fs.ErrNotExist) {
		ca, err = mintCA(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("certificate authority in %s: %w", dir, err)
	}
	return ca, nil
}

// CertFile is the file nodes are given as their authority.
func (ca *CA) CertFile() string { return filepath.Join(ca.dir, "ca.pem") }

var nodeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Issue writes a certificate and its key for a node beside the authority,
// and returns the names of the two files. A pair that is there, fits and is
// good for another year is left as it is.
func (ca *CA) Issue(node string) (certFile, keyFile string, err error) {
	if !nodeName.MatchString(node) {
		return "", "", fmt.Errorf("issue a certificate: %q must be lower-case letters, digits and dashes", node)
	}
	certFile = filepath.Join(ca.dir, "node-"+node+".pem")
	keyFile = filepath.Join(ca.dir, "node-"+node+".key")
	if pair, err := tls.LoadX509KeyPair(certFile, keyFile); err == nil && ca.good(pair.Leaf, node) {
		return certFile, keyFile, nil
	}
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: node},
		DNSNames:    []string{node},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: usage,
	}
	if _, _, err := mint(certFile, keyFile, template, ca.cert, ca.key); err != nil {
		return "", "", fmt.Errorf("issue a certificate for %s: %w", node, err)
	}
	return certFile, keyFile, nil
}

func (ca *CA) good(leaf *x509.Certificate, node string) bool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	_, err := leaf.Verify(x509.VerifyOptions{
		DNSName:     node,
		Roots:       pool,
		CurrentTime: time.Now().AddDate(1, 0, 0),
	})
	return err == nil
}

func loadCA(dir string) (*CA, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key"))
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("the key can't sign")
	}
	return &CA{dir: dir, cert: pair.Leaf, key: key}, nil
}

func mintCA(dir string) (*CA, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Vecino links"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	cert, key, err := mint(filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key"), template, nil, nil)
	if err != nil {
		return nil, err
	}
	return &CA{dir: dir, cert: cert, key: key}, nil
}

// mint makes a key and its certificate, signed by a parent or, without one,
// by itself, and writes both. The key is written first, so a certificate that
// is there has its key.
func mint(certFile, keyFile string, template, parent *x509.Certificate, signer crypto.Signer) (*x509.Certificate, crypto.Signer, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if parent == nil {
		parent, signer = template, private
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, nil, err
	}
	template.NotBefore = time.Now().Add(-clockSkew)
	template.NotAfter = time.Now().Add(certLifetime)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	if err := writePEM(keyFile, "PRIVATE KEY", pkcs8, 0o600); err != nil {
		return nil, nil, err
	}
	return cert, private, writePEM(certFile, "CERTIFICATE", der, 0o644)
}

// writePEM replaces a file as a whole.
func writePEM(file, kind string, der []byte, mode fs.FileMode) error {
	next := file + ".new"
	if err := os.WriteFile(next, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		return err
	}
	return os.Rename(next, file)
}
