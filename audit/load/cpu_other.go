//go:build !unix

package load

import "time"

// cpuTime is not known here, and then nothing is said about it.
func cpuTime() (time.Duration, bool) { return 0, false }
