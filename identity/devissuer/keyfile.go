package devissuer

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

const (
	keyBits     = 2048
	maxFile     = 64 << 10 // bytes
	pemType     = "PRIVATE KEY"
	othersMay   = 0o077
	directories = 0o700
)

func loadKey(path string) (*rsa.PrivateKey, error) {
	private, err := readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return private, err
	}
	if err := createKey(path); err != nil {
		return nil, err
	}
	return readKey(path)
}

// readKey reads a key that only its owner may read.
func readKey(path string) (*rsa.PrivateKey, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := checkFile(file); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile))
	if err != nil {
		return nil, err
	}
	private, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return private, nil
}

func checkFile(file *os.File) error {
	info, err := file.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("not a regular file")
	case info.Mode().Perm()&othersMay != 0 && runtime.GOOS != "windows":
		return errors.New("others may read it: set its mode to 0600, or delete it to get a new one")
	default:
		return nil
	}
}

func parseKey(text []byte) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemType {
		return nil, errors.New("not a PEM private key: delete it to get a new one")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	private, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok || private.N.BitLen() < keyBits {
		return nil, errors.New("not an RSA key of 2048 bits or more: delete it to get a new one")
	}
	return private, nil
}

// createKey writes a new key under another name and links it into place, which fails when somebody
// was faster: path never holds half a key, and never changes.
func createKey(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, directories); err != nil {
		return err
	}
	draft, err := os.CreateTemp(dir, ".dev-issuer-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(draft.Name())
	if err := writeKey(draft); err != nil {
		return errors.Join(err, draft.Close())
	}
	if err := draft.Close(); err != nil {
		return err
	}
	if err := os.Link(draft.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func writeKey(file *os.File) error {
	private, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	if err := pem.Encode(file, &pem.Block{Type: pemType, Bytes: der}); err != nil {
		return err
	}
	return file.Sync()
}
