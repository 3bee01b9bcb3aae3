package aligned

import "testing"

func TestBuffer(t *testing.T) {
	for _, n := range []int{0, 1, 4095, 4096, 4097, 4 << 20} {
		b := Buffer(n)
		if len(b) != n || cap(b) != n {
			t.Errorf("len %d, cap %d, want %d", len(b), cap(b), n)
		}
		if n%Size == 0 && n > 0 && !Is(b, 8192) {
			t.Errorf("Buffer(%d) is not aligned", n)
		}
	}
	b := Buffer(8192)
	for name, passes := range map[string]bool{"address": Is(b[1:4097], 0), "offset": Is(b, 512), "length": Is(b[:512], 0)} {
		if passes {
			t.Errorf("passes for aligned with an odd %s", name)
		}
	}
}
