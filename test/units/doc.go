// Package units tests scripts/systemd: systemd takes the units, they may do little, and their commands work.
package units
