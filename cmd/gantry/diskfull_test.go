//go:build unix

package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/gantryhq/gantry/internal/testenv"
)

// diskFull is one door on SQLite whose data directory runs full: writes fail clearly, reads go on.
func diskFull(t *testing.T) faultRow {
	dir := smallDisk(t)
	f := &fleet{t: t, issuer: testenv.NewIssuer(t), redis: testenv.NewRedis(t), postgres: testenv.NewPostgres(t)}
	f.database = f.postgres.NewDatabase()
	f.open("DATA_DIR="+dir, "DATABASE_URL=sqlite:"+filepath.Join(dir, "gantry.db"), "VALKEY_URL=memory:", "INSTANCES=1")
	f.postgres = nil // what is stored is asked of the door alone
	tr := f.drive(true)
	during(2*limitWindow, t)
	broken := time.Now()
	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast)
	f.within(15*time.Second, "a refused write", func() bool { return tr.seen(broken, time.Time{}).of(kindWrite).statuses()[503] > 0 })
	full := time.Now()
	during(4*time.Second, t)
	if err := os.Remove(ballast); err != nil {
		t.Error(err)
	}
	healed := time.Now()
	back := tr.back(healed, databaseBack, "writing", func(a answer) bool { return a.kind == kindWrite && a.status == http.StatusOK })
	well := time.Now()
	during(limitWindow, t)
	tr.end()
	tr.allWell("before", tr.until(broken))
	tr.allWell("afterwards", tr.seen(well, time.Time{}))
	x := fault{database: true}
	x.judge(t, tr.seen(broken, well))
	faulty := tr.seen(full, healed)
	if n := faulty.of(kindRead).statuses()[503]; n > 0 {
		t.Errorf("%d reads refused; they need no room", n)
	}
	tr.nothingIsLost()
	return faultRow{
		name: "Disk full", done: "SQLite on a file system of 128 MiB, filled up for 4 s; one door", reads: faulty.of(kindRead), writes: faulty.of(kindWrite),
		limited: faulty.of(kindLimit), lost: tr.lost, most: x.overAdmitted(t, tr, broken, healed, well), back: back,
	}
}

// smallDisk is a file system of its own, which only root can make.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=128m,mode=700", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("a small file system is not to be had here: %v %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	return dir
}

// fill writes until there is no room left.
func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for chunk := make([]byte, 64<<10); err == nil; {
		_, err = fmt.Fprintf(file, "%s", chunk)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill the disk: %v", err)
	}
}
