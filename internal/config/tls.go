package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"time"
)

// tls checks the certificate here, and not where it is used, so that check finds what serve would.
func (l *loader) tls() {
	t := &l.cfg.TLS
	t.CertFile, t.KeyFile, t.ACMEDomains = l.text("TLS_CERT_FILE", ""), l.text("TLS_KEY_FILE", ""), l.list("TLS_ACME_DOMAINS")
	if (t.CertFile == "") != (t.KeyFile == "") {
		l.missing(map[bool]string{true: "TLS_CERT_FILE", false: "TLS_KEY_FILE"}[t.CertFile == ""], "certificate and key belong together", "/etc/gantry/tls.pem")
		return
	}
	if t.CertFile == "" {
		return
	}
	chain := l.pem("TLS_CERT_FILE", t.CertFile)
	key := l.pem("TLS_KEY_FILE", t.KeyFile)
	if chain != nil && key != nil {
		l.pair(chain, key)
	}
}

// pem reads one of the two files.
func (l *loader) pem(name, path string) []byte {
	text, err := readFile(path, maxFile)
	if err != nil {
		l.bad(idInvalid, name, "the file cannot be used: "+reason(err), "/etc/gantry/tls.pem")
		return nil
	}
	return []byte(text)
}

func (l *loader) pair(chain, key []byte) {
	leaf, err := firstCertificate(chain)
	if err != nil {
		l.bad(idInvalid, "TLS_CERT_FILE", "the file holds no certificate in PEM form", "/etc/gantry/tls.pem, with the server's own certificate first")
		return
	}
	if _, err := tls.X509KeyPair(chain, key); err != nil {
		l.bad(idConflict, "TLS_KEY_FILE", "the file does not hold the private key of the certificate in TLS_CERT_FILE, in PEM form", "/etc/gantry/tls.key")
	}
	if time.Now().After(leaf.NotAfter) {
		l.bad(idPolicy, "TLS_CERT_FILE", "the certificate is out of date since "+leaf.NotAfter.UTC().Format(time.DateOnly)+": clients will refuse it", "a certificate that has been renewed")
	}
}

func firstCertificate(text []byte) (*x509.Certificate, error) {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return nil, errors.New("no certificate")
		}
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
		text = rest
	}
}
