package cli

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/gantryhq/gantry/internal/server"
)

// firstFD is where inherited files begin (sd_listen_fds(3)).
const firstFD = 3

// inheritance is what the process that started this one has left it.
type inheritance struct {
	ports server.Ports
	// ready is told when this process serves; nil when nobody waits.
	ready *os.File
}

// Names of inherited files, in LISTEN_FDNAMES. Without names the first is the door and the second is admin.
const (
	doorName  = "door"
	adminName = "admin"
	readyName = "ready"
)

// inherit takes over listeners by systemd's protocol: LISTEN_FDS of them from the third file on, for the process
// LISTEN_PID. A Gantry that starts its successor cannot know its number yet, and gives its own.
func inherit(environ []string) (in inheritance, err error) {
	pid, _ := strconv.Atoi(getenv(environ, "LISTEN_PID"))
	count, _ := strconv.Atoi(getenv(environ, "LISTEN_FDS"))
	if count <= 0 || pid != os.Getpid() && pid != os.Getppid() {
		return in, nil
	}
	names := strings.Split(getenv(environ, "LISTEN_FDNAMES"), ":")
	if !slices.Contains(names, doorName) {
		names = []string{doorName, adminName}
	}
	for i := range min(count, len(names)) {
		syscall.CloseOnExec(firstFD + i)
		err = errors.Join(err, in.take(names[i], os.NewFile(uintptr(firstFD+i), names[i])))
	}
	return in, err
}

func (in *inheritance) take(name string, file *os.File) (err error) {
	switch name {
	case doorName:
		in.ports.Door, err = listenerOf(file)
	case adminName:
		in.ports.Admin, err = listenerOf(file)
	case readyName:
		in.ready = file
	default:
		err = file.Close()
	}
	return err
}

// settings puts the inherited addresses in the place of the configured ones, so that what is checked is what is
// served: development stays on loopback, whoever has bound the port.
func (in inheritance) settings(environ []string) []string {
	environ = slices.Clone(environ)
	if in.ports.Door != nil {
		environ = append(environ, "LISTEN="+in.ports.Door.Addr().String())
	}
	if in.ports.Admin != nil {
		environ = append(environ, "ADMIN_LISTEN="+in.ports.Admin.Addr().String())
	}
	return environ
}

func listenerOf(file *os.File) (net.Listener, error) {
	defer file.Close() // the listener has its own
	port, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("inherited file %s: %w", file.Name(), err)
	}
	return port, nil
}

// tell reports to systemd (sd_notify(3)); without it there is nobody to tell.
func tell(environ []string, state string) error {
	address := getenv(environ, "NOTIFY_SOCKET")
	if address == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"}) // net knows of a leading @
	if err != nil {
		return err
	}
	_, err = conn.Write([]byte(state))
	return errors.Join(err, conn.Close())
}
