package proxy

import (
	"iter"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"slices"
	"strings"
)

// forwarded rebuilds X-Forwarded-*: what a client says of itself counts only through a trusted peer.
func (p *Proxy) forwarded(pr *httputil.ProxyRequest) {
	peer := peerAddr(pr.In)
	addr, trusted, secure := peer, false, pr.In.TLS != nil
	if p.cfg.Client != nil {
		addr, trusted, secure = p.cfg.Client(pr.In)
	}
	host, chain := pr.In.Host, addr.String()
	if trusted {
		chain = hops(addr, peer, pr.In.Header["X-Forwarded-For"])
		if said := pr.In.Header["X-Forwarded-Host"]; len(said) == 1 && isAuthority(said[0]) {
			host = said[0]
		}
	}
	h := pr.Out.Header
	h.Set("X-Forwarded-For", chain)
	h.Set("X-Forwarded-Host", host)
	h.Set("X-Forwarded-Proto", map[bool]string{true: "https", false: "http"}[secure])
}

func peerAddr(r *http.Request) netip.Addr {
	peer, _ := netip.ParseAddrPort(r.RemoteAddr)
	return peer.Addr().Unmap().WithZone("")
}

// hops is the way from client, which the walk through trusted proxies ended at, to the peer. What
// stands left of the client was written by a stranger and is dropped.
func hops(client, peer netip.Addr, prior []string) string {
	way := []string{peer.String()}
	for entry := range backward(prior) {
		if client == peer {
			break
		}
		hop, ok := parseHop(entry)
		if !ok || hop == client {
			break
		}
		way = append(way, hop.String())
	}
	if client != peer {
		way = append(way, client.String())
	}
	slices.Reverse(way)
	return strings.Join(way, ", ")
}

// backward reads header lines as one list, from its end.
func backward(lines []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range slices.Backward(lines) {
			for _, entry := range slices.Backward(strings.Split(line, ",")) {
				if !yield(strings.TrimSpace(entry)) {
					return
				}
			}
		}
	}
}

// parseHop reads an address with or without brackets and port.
func parseHop(s string) (netip.Addr, bool) {
	if at, err := netip.ParseAddrPort(s); err == nil {
		return at.Addr().Unmap().WithZone(""), true
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	return addr.Unmap().WithZone(""), err == nil
}

// isAuthority says whether s can be a host and port (RFC 9110 section 7.2), one and no list.
func isAuthority(s string) bool {
	for _, c := range []byte(s) {
		if !isAlphanumeric(c) && strings.IndexByte("-._:[]", c) < 0 {
			return false
		}
	}
	return s != "" && len(s) <= 255
}
