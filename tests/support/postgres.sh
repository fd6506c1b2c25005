#!/bin/sh
# Runs PostgreSQL for as long as somebody holds a lock on a file: every test process does, and the kernel lets go of it
# however the process ends. Started by postgres.rs.
#   postgres.sh <lock file> <directory> <command …>
set -u
users=$1
dir=$2
shift 2

"$@" >>"$dir/log" 2>&1 </dev/null &
server=$!
exec 9<>"$users"
# nextest runs a process a test: between two of them there may be nobody.
free=0
while [ "$free" -lt 5 ]; do
    sleep 1
    kill -0 "$server" 2>/dev/null || exit 0
    if flock -n -x 9; then
        free=$((free + 1))
        [ "$free" -lt 5 ] && flock -u 9
    else
        free=0
    fi
done
kill -QUIT "$server"
wait "$server"
[ -e "$dir/keep" ] || rm -rf "$dir"
