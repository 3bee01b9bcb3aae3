package restore

import (
	"fmt"
	"testing"
)

func TestRuns(t *testing.T) {
	// "d" is a page of data, "." one of zeroes.
	for in, want := range map[string]string{
		"":                          "",
		"d":                         "0-1",
		"................":          "", // 16 pages are a hole
		"...............":           "0-15",
		"d................d":        "0-1 17-18",
		"d...............d":         "0-17",
		"................d":         "16-17",
		"d................":         "0-1",
		"d...............":          "0-16",
		"..d................d..":    "0-3 19-22",
		"................d.d.....":  "16-24",
		"d..................d....d": "0-1 19-25",
	} {
		p := make([]byte, len(in)*page)
		for i, c := range in {
			if c == 'd' {
				p[i*page+i%page] = 1
			}
		}
		got := ""
		for from, to := range runs(p) {
			if from%page != 0 || to%page != 0 {
				t.Errorf("%q: from %d to %d", in, from, to)
			}
			got += fmt.Sprintf(" %d-%d", from/page, to/page)
		}
		if got != "" {
			got = got[1:]
		}
		if got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	// The last page of a disk may be cut.
	for n, want := range map[int]int{17*page + 5: 17*page + 5, 16*page + 5: 0} {
		p, end := make([]byte, n), 0
		p[n-1] = byte(want)
		for _, to := range runs(p) {
			end = to
		}
		if end != want {
			t.Errorf("%d bytes: data up to %d, want %d", n, end, want)
		}
	}
	for range runs(make([]byte, 1)) { // whoever iterates may stop
		break
	}
}
