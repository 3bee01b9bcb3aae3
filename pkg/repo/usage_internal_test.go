package repo

import "testing"

// SmallUsage makes Usage go over the names in many parts.
func SmallUsage(t *testing.T) {
	n := usageAtOnce
	usageAtOnce = 512
	t.Cleanup(func() { usageAtOnce = n })
}
