// Package fault holds the proofs that nothing is lost: not by a power cut, a kill, a disk that fails or is full, nor by
// a purge that takes a writer for dead. It has tests alone, and they work on the real parts: real file systems on real
// block devices, whose writes are recorded, cut off, refused or run out of space, and the real commands.
//
// What needs root is skipped without it. The tests with Soak in their names go on for long when BACKY_SOAK=full.
package fault
