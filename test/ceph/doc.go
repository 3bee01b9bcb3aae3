// Package ceph holds the proofs that a backup of an image of Ceph is that image, with a real cluster and the real commands:
// a long walk of writes, snapshots, resizes and new features with a backup after each step, and what goes wrong on the way:
// daemons that are killed, snapshots and objects that somebody removes, maps that are lost. It has tests alone, which need
// the build tag ceph.
//
// TestSoakWalk takes -args -seed N -rounds N. It goes on for long when BACKY_SOAK=full.
package ceph
