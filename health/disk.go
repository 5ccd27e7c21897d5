package health

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/shirou/gopsutil/v4/disk"
)

// Disk checks that dir can be written to and has room: more than minFreeBytes and minFreeInodes are
// free to this user, and a small file is written, forced to the disk and deleted, which finds a file
// system that was remounted read-only. The reasons are "no-space", "no-inodes", "read-only" and
// "unusable". The free bytes are observed. A few hundred MiB and a thousand inodes are good limits.
func Disk(dir string, minFreeBytes, minFreeInodes uint64) Check {
	return Check{
		Name: "disk", Measurement: "freeBytes", Type: "system", Health: Fails, Ready: Fails,
		Run: func(ctx context.Context) (Observation, error) {
			usage, err := disk.UsageWithContext(ctx, dir)
			if err != nil {
				return Observation{}, &Fault{Reason: "unusable", Err: err}
			}
			free := Observation{Value: float64(usage.Free), Unit: "B"}
			if err := room(usage, minFreeBytes, minFreeInodes); err != nil {
				return free, err
			}
			return free, diskFault(writeAndDelete(dir))
		},
	}
}

func room(usage *disk.UsageStat, minBytes, minInodes uint64) error {
	if usage.Free <= minBytes {
		return &Fault{Reason: "no-space", Err: fmt.Errorf("%d bytes free, more than %d needed", usage.Free, minBytes)}
	}
	// File systems without a fixed number of inodes (btrfs, FAT) report none at all.
	if usage.InodesTotal > 0 && usage.InodesFree <= minInodes {
		return &Fault{Reason: "no-inodes", Err: fmt.Errorf("%d inodes free, more than %d needed", usage.InodesFree, minInodes)}
	}
	return nil
}

// FreeShare is the part, 0 to 1, of dir's file system that this user may still fill.
func FreeShare(ctx context.Context, dir string) (float64, error) {
	usage, err := disk.UsageWithContext(ctx, dir)
	if err != nil || usage.Total == 0 {
		return 0, err
	}
	return float64(usage.Free) / float64(usage.Total), nil
}

// probeName is fixed, so that what a killed process leaves behind is overwritten, not piled up.
const probeName = ".gantry-health"

func writeAndDelete(dir string) error {
	name := filepath.Join(dir, probeName)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 4096))
	err = errors.Join(err, f.Sync(), f.Close())
	// Another process that shares the directory may have been quicker to delete it.
	if gone := os.Remove(name); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

func diskFault(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &Fault{Reason: "no-space", Err: err}
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return &Fault{Reason: "read-only", Err: err}
	default:
		return &Fault{Reason: "unusable", Err: err}
	}
}
