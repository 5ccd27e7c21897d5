package postgres_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gantryhq/gantry/internal/testenv"
	"github.com/gantryhq/gantry/users"
	"github.com/gantryhq/gantry/users/postgres"
)

// cutter passes connections on to a server, and, when armed, cuts the one that carries COMMIT once the
// server has answered it: the client never learns.
type cutter struct {
	net.Listener
	to    string
	armed atomic.Bool
	conns sync.WaitGroup
}

func newCutter(t *testing.T, port int) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{Listener: l, to: fmt.Sprintf("127.0.0.1:%d", port)}
	c.conns.Go(c.serve)
	t.Cleanup(func() {
		_ = l.Close()
		c.conns.Wait()
	})
	return c
}

func (c *cutter) serve() {
	for {
		client, err := c.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", c.to)
		if err != nil {
			_ = client.Close()
			continue
		}
		var cut atomic.Bool
		c.conns.Go(func() {
			c.pass(server, client, func(b []byte) bool { return !cut.Swap(c.armed.Load() && bytes.Contains(b, []byte("COMMIT"))) })
		})
		c.conns.Go(func() { c.pass(client, server, func([]byte) bool { return !cut.Load() }) })
	}
}

// pass copies until either side closes, or keep says no to what was read.
func (c *cutter) pass(to io.WriteCloser, from io.ReadCloser, keep func([]byte) bool) {
	defer to.Close()
	defer from.Close()
	for b := make([]byte, 1<<16); ; {
		n, err := from.Read(b)
		if err != nil || !keep(b[:n]) {
			return
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

// Nobody can know whether a commit without an answer happened, and it is not for the store to try again.
func TestACommitWithoutAnswerIsNotRepeated(t *testing.T) {
	p := testenv.NewPostgres(t)
	db := p.NewDatabase()
	c := newCutter(t, p.Port)
	url := strings.Replace(p.URL(db), fmt.Sprint(p.Port), fmt.Sprint(c.Addr().(*net.TCPAddr).Port), 1)
	s := open(t, postgres.Config{URL: url, Prepare: postgres.PrepareNever})
	store(t, s, newUser("user_1"))
	c.armed.Store(true)
	runs := 0
	err := s.Tx(t.Context(), func(tx users.Tx) error {
		runs++
		u, err := tx.Get(t.Context(), "usr_user_1")
		if err != nil {
			return err
		}
		u.Version++
		return tx.Update(t.Context(), u)
	})
	c.armed.Store(false)
	if !errors.Is(err, users.ErrUnavailable) || runs != 1 || s.Stats().Retries != 0 {
		t.Errorf("Tx = %v after %d runs; want ErrUnavailable after 1", err, runs)
	}
	if u, err := s.Find(t.Context(), "iss", "user_1"); err != nil || u.Version != 2 {
		t.Errorf("version %d, %v; want 2: the server had committed", u.Version, err)
	}
}
