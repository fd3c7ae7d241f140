#!/bin/bash
# keep.sh ARCHIVE FOLDER COMMAND ...: runs a command that works in FOLDER, on a local disk, and keeps
# a copy of FOLDER in ARCHIVE, a tar file that may lie in a mounted bucket: every five minutes and at
# the end. Where FOLDER is not there it is made from ARCHIVE first. Ends with the command's code.
set -uo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/code_of.sh"
archive=$1 folder=$2
shift 2

copy() { # tar's code 1 says that a file changed meanwhile: a run notices what is not whole
  [ -d "$folder" ] || return 0
  tar -cf "$archive.part" "$folder" || [ $? -eq 1 ] || return 1
  mv "$archive.part" "$archive"
}

if [ ! -d "$folder" ] && [ -f "$archive" ]; then
  tar -xf "$archive" || exit 2
fi
"$@" &
child=$!
trap 'interrupted=1; kill -TERM "$child" 2> /dev/null' TERM
(
  trap exit TERM # once a copy that has begun is whole
  while :; do
    sleep "${KEEP_EVERY:-300}" > /dev/null 2>&1 &
    wait $!
    copy
  done
) &
copier=$!
code_of "$child"
code=$?
kill "$copier"
wait "$copier" 2> /dev/null
copy || echo "keep.sh: $archive could not be written" >&2
exit "$code"
