// Package byhand holds the tests of what is done without backy: scripts/restore.sh, which needs sh, zstd and coreutils.
package byhand
