package mem

import (
	"testing"

	"backy/pkg/object"
	"backy/pkg/object/objecttest"
)

func TestStore(t *testing.T) {
	objecttest.Run(t, func(*testing.T) object.Store { return new(Store) })
}
