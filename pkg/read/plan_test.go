package read

import (
	"math/rand/v2"
	"slices"
	"testing"

	"backy/pkg/extent"
)

func d(first, count int64) extent.Run { return extent.Run{First: first, Count: count} }
func z(first, count int64) extent.Run { return extent.Run{First: first, Count: count, Zero: true} }

// What is to be read is read, whatever else is said of it.
func TestUnion(t *testing.T) {
	for name, tt := range map[string]struct{ in, want []extent.Run }{
		"nothing":                {nil, nil},
		"apart":                  {[]extent.Run{d(5, 2), z(0, 2)}, []extent.Run{z(0, 2), d(5, 2)}},
		"neighbours":             {[]extent.Run{d(0, 2), d(2, 2)}, []extent.Run{d(0, 4)}},
		"overlap":                {[]extent.Run{d(0, 3), d(2, 2)}, []extent.Run{d(0, 4)}},
		"data in zero":           {[]extent.Run{z(0, 9), d(3, 2)}, []extent.Run{z(0, 3), d(3, 2), z(5, 4)}},
		"data at zero's start":   {[]extent.Run{z(0, 9), d(0, 2)}, []extent.Run{d(0, 2), z(2, 7)}},
		"data at zero's end":     {[]extent.Run{z(0, 9), d(7, 4)}, []extent.Run{z(0, 7), d(7, 4)}},
		"zero in data":           {[]extent.Run{d(0, 9), z(3, 2)}, []extent.Run{d(0, 9)}},
		"zero from data on":      {[]extent.Run{d(0, 4), z(3, 4)}, []extent.Run{d(0, 4), z(4, 3)}},
		"two holes in one":       {[]extent.Run{z(0, 9), d(1, 1), d(4, 1)}, []extent.Run{z(0, 1), d(1, 1), z(2, 2), d(4, 1), z(5, 4)}},
		"data over zero and all": {[]extent.Run{z(2, 2), d(0, 9)}, []extent.Run{d(0, 9)}},
	} {
		if got := union(slices.Clone(tt.in)); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		var in []extent.Run
		var want [40]byte // 0: nothing, 1: zero, 2: data
		for range r.IntN(7) {
			run := extent.Run{First: r.Int64N(30), Count: 1 + r.Int64N(9), Zero: r.IntN(2) == 0}
			in = append(in, run)
			for i := run.First; i < run.First+run.Count; i++ {
				want[i] = max(want[i], map[bool]byte{true: 1, false: 2}[run.Zero])
			}
		}
		var got [40]byte
		end := int64(0)
		out := union(slices.Clone(in))
		for _, run := range out {
			if run.First < end || run.Count <= 0 {
				t.Fatalf("%v gives %v: out of order", in, out)
			}
			end = run.First + run.Count
			for i := run.First; i < end; i++ {
				got[i] = map[bool]byte{true: 1, false: 2}[run.Zero]
			}
		}
		if got != want {
			t.Fatalf("%v gives %v", in, out)
		}
	}
}

// Half of the sample goes round, half is at random; what is read anyway is no part of it.
func TestSample(t *testing.T) {
	for name, tt := range map[string]struct {
		named []extent.Run
		end   int64
		check int
		next  int64
		want  []int64
		after int64
	}{
		"nothing to look at":        {[]extent.Run{d(0, 10)}, 10, 4, 0, []int64{}, 0},
		"no blocks":                 {nil, 0, 4, 0, []int64{}, 0},
		"all of a few":              {[]extent.Run{d(2, 6)}, 10, 32, 0, []int64{0, 1, 8, 9}, 10},
		"all of a few, from within": {[]extent.Run{d(2, 6)}, 10, 32, 9, []int64{0, 1, 8, 9}, 9},
		"by the cursor":             {nil, 100, 4, 50, []int64{0, 50, 51}, 52}, // 0 is the random one
		"past data":                 {[]extent.Run{d(50, 10)}, 100, 4, 50, []int64{0, 60, 61}, 62},
		"comes round":               {nil, 100, 6, 98, []int64{0, 98, 99}, 1},
		"beyond the end":            {nil, 100, 2, 5000, []int64{0}, 1},
		"zero is looked at":         {[]extent.Run{z(0, 5), d(5, 5)}, 10, 32, 0, []int64{0, 1, 2, 3, 4}, 5},
		"named beyond the end":      {[]extent.Run{d(8, 5)}, 10, 32, 0, []int64{0, 1, 2, 3, 4, 5, 6, 7}, 8},
	} {
		s := &stage{Options: Options{Check: tt.check, Random: func(int64) int64 { return 0 }}, next: tt.next}
		got := s.sample(tt.named, tt.end)
		if !slices.Equal(got, tt.want) || s.next != tt.after && len(tt.want) > 0 {
			t.Errorf("%s: %v, want %v; the cursor is at %d, want %d", name, got, tt.want, s.next, tt.after)
		}
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 500 {
		end := r.Int64N(60)
		var named []extent.Run
		for at := r.Int64N(9); at < end; at += r.Int64N(9) {
			run := extent.Run{First: at, Count: 1 + r.Int64N(5), Zero: r.IntN(3) == 0}
			named, at = append(named, run), at+run.Count
		}
		s := &stage{Options: Options{Check: r.IntN(20), Random: r.Int64N}, next: r.Int64N(80)}
		for _, b := range s.sample(named, end) {
			if b < 0 || b >= end || slices.ContainsFunc(named, func(n extent.Run) bool { return !n.Zero && b >= n.First && b < n.First+n.Count }) {
				t.Fatalf("block %d of %d is in the sample, and is read anyway: %v", b, end, named)
			}
		}
	}
}
