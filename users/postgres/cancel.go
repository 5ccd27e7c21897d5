package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// cancelPatience is how long a statement whose context has ended may take to end on the server. After
// that the connection is closed.
const cancelPatience = time.Second

// cancelDelivery is how long the server's own signal may take from one of its processes to another.
const cancelDelivery = 100 * time.Millisecond

// canceler asks the server to end the statement of a context that has ended (requirement D5). Closing
// the connection alone would let it run on: the server notices only when it answers.
//
// It differs from pgconn.CancelRequestContextWatcherHandler in one thing: it does not hang up on the
// request when the statement has ended meanwhile. PgBouncer 1.18, which is Debian 12's, dies of that.
type canceler struct {
	conn *pgconn.PgConn
	sent chan struct{}
}

// HandleCancel implements ctxwatch.Handler.
func (c *canceler) HandleCancel(ended context.Context) {
	c.sent = make(chan struct{})
	_ = c.conn.Conn().SetDeadline(time.Now().Add(cancelPatience)) // fails on a closed one only
	go func() {
		defer close(c.sent)
		ctx, stop := context.WithTimeout(context.WithoutCancel(ended), cancelPatience)
		defer stop()
		if c.conn.CancelRequest(ctx) == nil {
			<-time.After(cancelDelivery) // or it would end the next statement
		}
	}()
}

// HandleUnwatchAfterCancel implements ctxwatch.Handler.
func (c *canceler) HandleUnwatchAfterCancel() {
	<-c.sent
	_ = c.conn.Conn().SetDeadline(time.Time{}) // fails on a closed one only
}
