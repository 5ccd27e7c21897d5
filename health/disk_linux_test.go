package health_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/gantryhq/gantry/health"
)

// A file system that is full, out of inodes or remounted read-only is a real one here: a small tmpfs in
// a mount namespace of its own, which takes a process of its own. The test runs itself there.
func TestFullAndReadOnlyFileSystemsFailTheDisk(t *testing.T) {
	if os.Getenv("GANTRY_TEST_MOUNTS") == "" {
		inNamespace(t)
		return
	}
	dir := t.TempDir()
	mount(t, dir, "size=1m,nr_inodes=64", 0)
	check := health.Disk(dir, 0, 0)
	wantFault(t, check, time.Second, "")

	filler := filepath.Join(dir, "filler")
	_ = os.WriteFile(filler, make([]byte, 2<<20), 0o600) // as much as fits
	wantFault(t, check, time.Second, "no-space")
	if err := os.Truncate(filler, 1<<20-4096); err != nil { // one page is left
		t.Fatal(err)
	}
	wantFault(t, check, time.Second, "")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}

	for i := 0; ; i++ {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600); err != nil {
			break
		}
	}
	wantFault(t, check, time.Second, "no-inodes")
	if err := os.Remove(filepath.Join(dir, "0")); err != nil {
		t.Fatal(err)
	}
	wantFault(t, check, time.Second, "")

	mount(t, dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY)
	wantFault(t, check, time.Second, "read-only")
	mount(t, dir, "", syscall.MS_REMOUNT)
	wantFault(t, check, time.Second, "")
}

func mount(t *testing.T, dir, options string, flags uintptr) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
		t.Fatalf("mount: %v", err)
	}
	if flags == 0 {
		t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	}
}

// inNamespace runs this test again, alone, as root of its own user and mount namespaces.
func inNamespace(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "GANTRY_TEST_MOUNTS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if cmd.Process == nil {
		t.Skipf("this kernel gives no mount namespaces to this user: %v", err)
	}
	if err != nil {
		t.Errorf("in a namespace: %v\n%s", err, out)
	}
}
