#!/bin/sh
# restore.sh REV-FILE TARGET - restore a revision without backy, with sh, zstd and coreutils (dd, sha256sum) alone, to a
# new file or over a block device. What is missing or damaged becomes zeroes, and is told as offset+length in bytes.
# Exits: 0 done, 1 failed, 2 wrong usage, 3 done but damaged.
set -u && export LC_ALL=C
die() { echo "restore.sh: $*" >&2; exit 1; }
get() { sed -n "s/^$1: //p" "$rev"; }
[ $# = 2 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
command -v zstd >/dev/null || die "zstd is not installed"
rev=$1 target=$2 device='' files='' next=0 damaged=0 span=1
size=$(get size) block=$(get block) root=$(get root)
[ -n "$root" ] && [ "$size" -ge 0 ] && [ "$block" -gt 0 ] || die "$rev is no revision: want size, block and root in it"
case $target in /*) ;; *) target=$PWD/$target ;; esac
repo=$(cd "$(dirname "$rev")" && pwd -P) || die "cannot enter the directory of $rev"
until cd "$repo/.backy" 2>/dev/null; do [ -n "$repo" ] && repo=${repo%/*} || die "$rev lies in no repository"; done
if [ -b "$target" ] && device=$target; then # it is large enough if it has the last byte
	[ "$size" = 0 ] || [ "$(dd if="$device" bs=1 skip=$((size - 1)) count=1 2>/dev/null | wc -c)" = 1 ] || die "$device is too small"
else (set -C && : >"$target") && truncate -s "$size" "$target" || die "want a new file, or a block device"; fi
# clip BLOCK COUNT: of so many blocks, bytes lie on the disk, and pad beyond its end
clip() { pad=$((($1 + $2) * block - size)) && [ $pad -gt 0 ] || pad=0; bytes=$(($2 * block - pad)); }
write() { dd of="$target" bs="$block" seek="$1" count=$bytes iflag=fullblock,count_bytes conv=notrunc 2>&1 || echo unwritten; }
zero() { clip "$1" "$2"; [ "$2" = 0 ] || case $(write "$1" </dev/zero) in *unwritten*) die "cannot write $target" ;; esac; }
lost() { # BLOCK COUNT FILE
	clip "$1" "$2" && damaged=$((damaged + bytes)) && why=$(zstd -tq "$3" 2>&1) && why="not what its name says"
	echo "damaged: $(($1 * block))+$bytes: $3: ${why##*.zst*: }" >&2
}
pour() { # BLOCK FILE...: to the target; fails unless the FILEs are whole blocks
	at=$1 && shift && clip "$at" $#
	said=$({ { zstd -dcq "$@" 2>/dev/null || echo broken >&3; } | { write "$at" && wc -c; }; } 3>&1)
	case " $(echo $said)" in *unwritten*) die "cannot write $target: $said" ;; *broken*) false ;; *" $((bytes / block))+$((pad > 0)) records out"*" $pad") ;; *) false ;; esac
}
run() { # END FILE...: the chunks before END; if together they fail, each alone
	first=$(($1 - $# + 1)) && shift && [ $# -gt 0 ] || return 0
	[ -z "$device" ] || [ $next = $first ] || zero $next $((first - next))
	next=$((first + $#)) && pour $first "$@" && return
	for file; do
		for try in "$file" limbo/*/"$file" "$file"; do pour $first "$try" && break; done || { zero $first 1; lost $first 1 "$file"; }
		first=$((first + 1))
	done
}
walk() { # PAGE SPAN BLOCK: each line of it stands for SPAN blocks, the first for those from BLOCK on
	file=maps/${1%"${1#???}"}/$1.zst
	for try in "$file" limbo/*/"$file" "$file"; do # purge moves objects to limbo, and back
		text=$(zstd -dcq "$try" 2>/dev/null) && [ "$(echo "$text" | sha256sum)" = "$1  -" ] && break
	done || { lost "$3" $((1024 * $2)) "$file" && return; }
	for line in $text -; do
		case $2:$line in
		*:-) run "$3" $files && files='' ;;
		1:*) files="$files chunks/${line%"${line#???}"}/$line.zst" && [ $(($3 % 64)) -lt 63 ] || { run $(($3 + 1)) $files && files=''; } ;;
		*) walk "$line" $(($2 / 1024)) "$3" ;;
		esac
		set -- "$1" "$2" $(($3 + $2))
	done
}
while [ $((1024 * span * block)) -lt "$size" ]; do span=$((1024 * span)); done
[ "$root" = none ] || walk "$root" $span 0
[ -z "$device" ] || zero $next $(((size + block - 1) / block - next))
sync "$target" || die "cannot make $target durable"
[ $damaged = 0 ] || { echo "restore.sh: $damaged of $size bytes are damaged, and zeroes in $target" >&2; exit 3; }
