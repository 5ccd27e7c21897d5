//go:build !linux

package load

import (
	"context"
	"time"
)

// alarm wakes one goroutine at a time.
type alarm struct{}

// newAlarm is for waits that end with ctx. It must be closed.
func newAlarm(context.Context) *alarm { return &alarm{} }

// until waits for t and is false when ctx, which is that of newAlarm, ended first. A time that has passed is not waited for.
func (a *alarm) until(ctx context.Context, t time.Time) bool { return sleepUntil(ctx, t) }

func (a *alarm) close() {}
