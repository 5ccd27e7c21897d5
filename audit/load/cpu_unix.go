//go:build unix

package load

import (
	"syscall"
	"time"
)

// cpuTime is the processor time this process has used, in its own code and in the kernel for it.
func cpuTime() (time.Duration, bool) {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0, false
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()), true
}
