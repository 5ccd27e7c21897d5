package health_test

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gantryhq/gantry/health"
)

func TestTheDiskCheckLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	check := health.Disk(dir, 0, 0)
	wantFault(t, check, time.Second, "")
	if seen, err := check.Run(t.Context()); err != nil || seen.Value <= 0 || seen.Unit != "B" {
		t.Errorf("Run = %v, %v; want the free bytes", seen, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestWhatAKilledProcessLeftIsNoObstacle(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".gantry-health"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantFault(t, health.Disk(dir, 0, 0), time.Second, "")
}

func TestTooFewBytesOrInodesFailTheDisk(t *testing.T) {
	dir := t.TempDir()
	wantFault(t, health.Disk(dir, math.MaxUint64, 0), time.Second, "no-space")
	wantFault(t, health.Disk(dir, 0, math.MaxUint64), time.Second, "no-inodes")
}

func TestTheFreeShareIsAPart(t *testing.T) {
	if share, err := health.FreeShare(t.Context(), t.TempDir()); err != nil || share <= 0 || share >= 1 {
		t.Errorf("free share = %v, %v", share, err)
	}
	if _, err := health.FreeShare(t.Context(), filepath.Join(t.TempDir(), "gone")); err == nil {
		t.Error("a directory that is not there has a free share")
	}
}

func TestAMissingDirectoryFailsTheDisk(t *testing.T) {
	wantFault(t, health.Disk(filepath.Join(t.TempDir(), "gone"), 0, 0), time.Second, "unusable")
}
