package rbd

import (
	"fmt"
	"strings"
)

// client says who is to speak with which cluster. Ceph's tools find that out before they read their configuration; its
// libraries leave it to the program.
type client struct {
	name    string // as in client.admin
	cluster string // the name of /etc/ceph/CLUSTER.conf
	config  string // a configuration file, or "" for those where Ceph looks
	options string // the rest of CEPH_ARGS, which the library understands
}

// whoami finds that out as Ceph's tools do: from the options in CEPH_ARGS, the last of which counts, and from CEPH_CONF; and from
// CEPH_CLUSTER, which not all of them heed.
func whoami(getenv func(string) string) (client, error) {
	c := client{name: "client.admin", cluster: "ceph", config: getenv("CEPH_CONF")}
	if s := getenv("CEPH_CLUSTER"); s != "" {
		c.cluster = s
	}
	words := strings.Fields(getenv("CEPH_ARGS"))
	var rest []string
	for i := 0; i < len(words) && words[i] != "--"; i++ {
		option, value, given := strings.Cut(words[i], "=")
		switch option {
		case "--id", "--user", "--name", "-n", "--cluster", "--conf", "-c":
		default:
			rest = append(rest, words[i])
			continue
		}
		if !given {
			if i++; i == len(words) {
				return client{}, fmt.Errorf("CEPH_ARGS: %s needs a value", option)
			}
			value = words[i]
		}
		if value == "" {
			return client{}, fmt.Errorf("CEPH_ARGS: %s needs a value", option)
		}
		switch option {
		case "--id", "--user":
			c.name = "client." + value
		case "--name", "-n":
			if kind, id, ok := strings.Cut(value, "."); !ok || kind == "" || id == "" {
				return client{}, fmt.Errorf("CEPH_ARGS: %s %s: want TYPE.ID, as in client.admin", option, value)
			}
			c.name = value
		case "--cluster":
			c.cluster = value
		default:
			c.config = value
		}
	}
	c.options = strings.Join(rest, " ")
	return c, nil
}
