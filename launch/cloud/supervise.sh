#!/bin/bash
# supervise.sh FILE COMMAND ...: runs a command, and again as long as it ends with code 33, which
# says that SIGTERM ended it and that the same command goes on. FILE gets the last code.
# Its own SIGTERM goes to the command, which is not started again then.
set -uo pipefail
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/code_of.sh"
file=$1
shift
rm -f "$file"
child="" ended=""
trap 'ended=1 interrupted=1; [ -z "$child" ] || kill -TERM "$child" 2> /dev/null' TERM
while :; do
  "$@" &
  child=$!
  code_of "$child"
  code=$?
  [ "$code" -eq 33 ] && [ -z "$ended" ] || break
  echo "supervise.sh: ended by SIGTERM; starting it again"
  sleep "${SUPERVISE_PAUSE:-5}"
done
echo "$code" > "$file"
exit "$code"
