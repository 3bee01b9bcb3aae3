package repo

import (
	"crypto/rand"
	"fmt"
	"math/big"
	"strings"
)

// The letters of an id: base 57, those of shortuuid, which leaves out what looks alike (0 O 1 I l).
const (
	letters  = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	idLength = 22
)

// NewID makes the id of a revision or a session: 128 random bits in 22 letters.
func NewID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: see crypto/rand
	n, base, digit := new(big.Int).SetBytes(b[:]), big.NewInt(int64(len(letters))), new(big.Int)
	id := make([]byte, idLength)
	for i := idLength - 1; i >= 0; i-- {
		n.DivMod(n, base, digit)
		id[i] = letters[digit.Int64()]
	}
	return string(id)
}

// CheckID refuses what NewID cannot have made, so that an id is always safe as a file's name.
func CheckID(id string) error {
	if !isID(id) {
		return fmt.Errorf("%.60q is no id: want %d letters and digits", id, idLength)
	}
	return nil
}

func isID(id string) bool {
	return len(id) == idLength && strings.Trim(id, letters) == ""
}

const snapshotPrefix = "backy-"

// SnapshotName is how a revision's snapshot is called, real or not, in a stream of extents: backy-<id>.
func SnapshotName(id string) string { return snapshotPrefix + id }

// SnapshotID is the id in a snapshot's name; false for a name that is not ours.
func SnapshotID(name string) (string, bool) {
	id, ours := strings.CutPrefix(name, snapshotPrefix)
	return id, ours && isID(id)
}
