#!/bin/bash
# Read by supervise.sh and keep.sh: code_of CHILD waits for a child and returns its own code. A trap
# ends `wait` before there is one; it has to set `interrupted`. What was told already is 127 then.
code_of() {
  local code=127 got
  while :; do
    interrupted=""
    wait "$1" 2> /dev/null
    got=$?
    [ "$got" -eq 127 ] || code=$got
    [ -n "$interrupted" ] || return "$code"
  done
}
