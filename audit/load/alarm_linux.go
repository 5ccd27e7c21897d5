package load

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// alarm wakes one goroutine at a time. The runtime's own timers wake up to a millisecond late on
// Linux when little else goes on, which is more than a fast server takes to answer; a timerfd wakes
// the poller like any answer does, within some 10 µs, and burns no processor time meanwhile.
type alarm struct {
	file *os.File // nil when the kernel gave none
	fd   int
	stop func() bool
}

// newAlarm is for waits that end with ctx. It must be closed.
func newAlarm(ctx context.Context) *alarm {
	a := &alarm{stop: func() bool { return true }}
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return a
	}
	a.fd, a.file = fd, os.NewFile(uintptr(fd), "timerfd")
	a.stop = context.AfterFunc(ctx, func() { _ = a.file.SetReadDeadline(time.Unix(1, 0)) })
	return a
}

// until waits for t and is false when ctx, which is that of newAlarm, ended first. A time that has passed is not waited for.
func (a *alarm) until(ctx context.Context, t time.Time) bool {
	d := time.Until(t)
	if d <= 0 {
		return ctx.Err() == nil
	}
	if a.file == nil {
		return sleepUntil(ctx, t)
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	if err := unix.TimerfdSettime(a.fd, 0, &spec, nil); err != nil {
		return sleepUntil(ctx, t)
	}
	var expirations [8]byte
	if _, err := a.file.Read(expirations[:]); err != nil && ctx.Err() == nil {
		return sleepUntil(ctx, t)
	}
	return ctx.Err() == nil
}

func (a *alarm) close() {
	a.stop()
	if a.file != nil {
		_ = a.file.Close()
	}
}
