package rbd

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]Address{
		"vms/vm1":                {Pool: "vms", Image: "vm1"},
		"vms/vm1@s":              {Pool: "vms", Image: "vm1", Snapshot: "s"},
		"vms/customer/vm1":       {Pool: "vms", Namespace: "customer", Image: "vm1"},
		"vms/customer/vm1@a b:c": {Pool: "vms", Namespace: "customer", Image: "vm1", Snapshot: "a b:c"},
		"rbd.hdd/test03.root":    {Pool: "rbd.hdd", Image: "test03.root"},
	} {
		if got, err := Parse(in); err != nil || got != want || got.String() != in {
			t.Errorf("%s: got %+v, %v", in, got, err)
		}
	}
	for in, want := range map[string]string{
		"":            "the pool is missing",
		"vm1":         "the pool is missing",
		"@s":          "the pool is missing",
		"/vm1":        "the pool has no name",
		"vms/":        "the image has no name",
		"vms/@s":      "the image has no name",
		"vms//vm1":    "the namespace has no name",
		"vms/a/b/vm1": "too many parts",
		"vms/vm1@":    "the snapshot has no name",
		"vms/vm1@s@t": "the name of a snapshot has no / and no @",
		"vms/vm1@s/t": "the name of a snapshot has no / and no @",
		"vms/vm\x00":  "zero byte",
	} {
		if got, err := Parse(in); err == nil || !strings.Contains(err.Error(), want) || got != (Address{}) {
			t.Errorf("%q: got %+v, %v", in, got, err)
		}
	}
}

// What is understood is said again in the same words, and no part of it is empty or has a separator in it.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"vms/vm1", "p/n/i@s", "p//i", "p/i@", "@", "/", "p/i@s@t", "p/i\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := Parse(s)
		if err != nil {
			return
		}
		if a.String() != s {
			t.Fatalf("%q is %+v, that is %q", s, a, a)
		}
		if a.Pool == "" || a.Image == "" || strings.ContainsAny(a.Pool+a.Namespace+a.Image+a.Snapshot, "/@\x00") {
			t.Fatalf("%q is %+v", s, a)
		}
	})
}
