//go:build ceph

package rbd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// cluster is a connection to a cluster and to a pool in it.
type cluster struct {
	client
	Address
	conn *rados.Conn
	pool *rados.IOContext
}

// How long, in seconds, a cluster may be silent, where its configuration says nothing: when it is first called, and later.
// Without a limit a program would wait for a dead one for ever; a daemon that comes up again within it costs nothing.
const (
	connectTimeout   = 30
	operationTimeout = 300
)

// connect calls the cluster that has the image.
func connect(a Address) (*cluster, error) {
	who, err := whoami(os.Getenv)
	if err != nil {
		return nil, err
	}
	conn, err := rados.NewConnWithClusterAndUser(who.cluster, who.name)
	if err != nil {
		return nil, fmt.Errorf("begin a connection as %s: %w", who.name, cause(err))
	}
	c := &cluster{client: who, Address: a, conn: conn}
	if err = c.configure(); err == nil {
		err = c.open()
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// configure reads what Ceph's tools read, in their order, and sets what has to be so for us.
func (c *cluster) configure() error {
	var err error
	if c.config != "" {
		err = c.conn.ReadConfigFile(c.config)
	} else {
		err = c.conn.ReadDefaultConfigFile()
	}
	none := number(err) == syscall.ENOENT
	if err != nil && (!none || c.config != "") {
		return fmt.Errorf("read Ceph's configuration %s: %w", c.config, cause(err))
	}
	// The library reads CEPH_KEYRING, but of CEPH_ARGS nothing that a program does not hand on.
	err = c.conn.ParseDefaultConfigEnv()
	if err == nil {
		err = c.conn.ParseConfigArgv(append([]string{"backy"}, strings.Fields(c.options)...))
	}
	if err != nil {
		return fmt.Errorf("read CEPH_ARGS: %w", cause(err))
	}
	if host, err := c.conn.GetConfigOption("mon_host"); none && (err != nil || host == "") {
		return missing(fmt.Sprintf("there is no /etc/ceph/%s.conf; CEPH_CONF names it if it is elsewhere", c.cluster))
	}
	// What goes wrong is said by us, in a line. Without the cache a write that fails says so itself.
	set := map[string]string{"err_to_stderr": "false", "log_to_stderr": "false", "rbd_cache": "false"}
	if c.seconds("client_mount_timeout") == 300 { // Ceph's default
		set["client_mount_timeout"] = strconv.Itoa(connectTimeout)
	}
	for _, option := range []string{"rados_osd_op_timeout", "rados_mon_op_timeout"} {
		if c.seconds(option) == 0 {
			set[option] = strconv.Itoa(operationTimeout)
		}
	}
	for option, value := range set {
		if err := c.conn.SetConfigOption(option, value); err != nil {
			return fmt.Errorf("set %s: %w", option, cause(err))
		}
	}
	return nil
}

// seconds is a time in the configuration; -1 if there is none.
func (c *cluster) seconds(option string) float64 {
	value, err := c.conn.GetConfigOption(option)
	if err != nil {
		return -1
	}
	n, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return -1
	}
	return n
}

// open connects, and finds the pool.
func (c *cluster) open() error {
	if err := c.conn.Connect(); err != nil {
		switch number(err) {
		case syscall.ETIMEDOUT:
			return fmt.Errorf("no monitor of the cluster has answered within %g s (client_mount_timeout); is it up?", c.seconds("client_mount_timeout"))
		case syscall.EACCES, syscall.EPERM, syscall.ENOENT, syscall.EINVAL:
			keyring, _ := c.conn.GetConfigOption("keyring")
			return fmt.Errorf("the cluster does not let %s in (%w): is its key in %s? CEPH_ARGS='--id NAME' names another user",
				c.name, cause(err), strings.ReplaceAll(keyring, ",", ", "))
		}
		return fmt.Errorf("connect to the cluster as %s: %w", c.name, cause(err))
	}
	pool, err := c.conn.OpenIOContext(c.Pool)
	if number(err) == syscall.ENOENT {
		return missing("the cluster has no pool " + c.Pool)
	}
	if err != nil {
		return fmt.Errorf("open pool %s: %w", c.Pool, c.explain(err))
	}
	pool.SetNamespace(c.Namespace)
	c.pool = pool
	return nil
}

// Close ends the connection.
func (c *cluster) Close() {
	if c.pool != nil {
		c.pool.Destroy()
	}
	c.conn.Shutdown()
}

// explain is cause, with a hint for who lacks permission.
func (c *cluster) explain(err error) error {
	err = cause(err)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w for %s (its caps need `profile rbd`, or to read alone `profile rbd-read-only`, for pool %s)", err, c.name, c.Address.pool())
	}
	return err
}

// look opens the image, or its snapshot, to be read. A watcher is not left on it, so a client that has its lock does not
// notice. A snapshot whose map of objects is lost cannot be opened at once, only by way of the image.
func (c *cluster) look() (*rbd.Image, error) {
	img, err := rbd.OpenImageReadOnly(c.pool, c.Image, rbd.NoSnapshot)
	if err == nil && c.Snapshot != "" {
		if err = img.SetSnapshot(c.Snapshot); err != nil {
			img.Close()
		}
	}
	if number(err) == syscall.ENOENT {
		return nil, c.notFound()
	}
	if err != nil {
		return nil, c.explain(err)
	}
	return img, nil
}

// notFound says what it is that is not there.
func (c *cluster) notFound() error {
	if c.Namespace != "" {
		if there, err := rbd.NamespaceExists(c.pool, c.Namespace); err == nil && !there {
			return missing(fmt.Sprintf("pool %s has no namespace %s", c.Pool, c.Namespace))
		}
	}
	img, err := rbd.OpenImageReadOnly(c.pool, c.Image, rbd.NoSnapshot)
	if number(err) == syscall.ENOENT {
		return missing(fmt.Sprintf("there is no image %s in pool %s", c.Image, c.Address.pool()))
	}
	if err != nil {
		return c.explain(err)
	}
	defer img.Close()
	text := "the image has no snapshot " + c.Snapshot
	if list, err := img.GetSnapshotNames(); err == nil && len(list) > 0 {
		text += fmt.Sprintf("; the newest of its %d is %s", len(list), list[len(list)-1].Name)
	}
	return missing(text)
}
