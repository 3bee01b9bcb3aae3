package repo

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// checkMount refuses a repository on an NFS mount on which a look-up may be stale, or locks stay on this host: the
// promise that nothing is lost rests on both.
func checkMount(path string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("look at the mounts: %w", err)
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return checkMountTable(string(table), path)
}

func checkMountTable(table, path string) error {
	var point, kind, options string
	for line := range strings.Lines(table) {
		// 36 35 98:0 /root /mount options optional... - type source super-options
		fields := strings.Fields(line)
		dash := slices.Index(fields, "-")
		if dash < 6 || len(fields) < dash+4 {
			continue
		}
		at := unescape(fields[4])
		if at == "/" || path == at || strings.HasPrefix(path, at+"/") {
			if len(at) >= len(point) { // a later mount hides an earlier one at the same place
				point, kind, options = at, fields[dash+1], fields[5]+","+fields[dash+3]
			}
		}
	}
	if !strings.HasPrefix(kind, "nfs") {
		return nil
	}
	set := strings.Split(options, ",")
	wrong := ""
	switch {
	case kind != "nfs4":
		wrong = "it is not NFS version 4"
	case !slices.Contains(set, "lookupcache=none"):
		wrong = "it lacks lookupcache=none"
	case slices.Contains(set, "nolock"), slices.Contains(set, "local_lock=all"), slices.Contains(set, "local_lock=posix"):
		wrong = "its locks are local"
	default:
		return nil
	}
	return fmt.Errorf("%s is on the NFS mount %s, and %s; mount it with -o vers=4.2,lookupcache=none: a stale look-up is a lost block", path, point, wrong)
}

// unescape undoes the octal escapes of mountinfo (proc(5)).
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
