package file

import (
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

type sysStat = syscall.Stat_t

// changed is the time of the last change of anything of a file.
func changed(st *sysStat) time.Time { return time.Unix(st.Ctim.Unix()) }

// run is a range of a file, in whole pages.
type run struct{ off, len int64 }

// absent finds the pages of a range that are not in the page cache, so that they can be dropped again after a read: a backup
// must not push out what the machine works with. Where it cannot tell, it says so, and that nothing is absent. Since Linux 5.2
// mincore(2) tells only who owns the file or may write it.
func absent(fd int, off, length int64) (runs []run, known bool) {
	page := int64(os.Getpagesize())
	start := off &^ (page - 1)
	end := (off + length + page - 1) &^ (page - 1)
	m, err := unix.Mmap(fd, start, int(end-start), unix.PROT_NONE, unix.MAP_SHARED)
	if err != nil {
		return nil, false
	}
	defer unix.Munmap(m)
	in := make([]byte, (end-start)/page)
	if _, _, e := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), uintptr(unsafe.Pointer(&in[0]))); e != 0 {
		return nil, false
	}
	for i, b := range in {
		at := start + int64(i)*page
		switch last := len(runs) - 1; {
		case b&1 != 0:
		case last >= 0 && runs[last].off+runs[last].len == at:
			runs[last].len += page
		default:
			runs = append(runs, run{at, page})
		}
	}
	return runs, true
}
