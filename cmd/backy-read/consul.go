//go:build ceph

package main

import (
	"backy/pkg/app"
	"backy/pkg/freeze"
	"backy/pkg/freeze/consul"
)

// machine is what freezes a virtual machine.
func machine(c *app.Context, name string) (freeze.Freezer, error) {
	return consul.New(name, c.Now, c.Log)
}
