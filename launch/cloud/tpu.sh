#!/bin/bash
# A study on a Cloud TPU, from your own machine:
#
#   launch/cloud/tpu.sh COMMAND --name=NAME --zone=ZONE [flags] [-- flags of launch.study]
#
#   create    asks for the machine; --direct: now or not at all, else in the queue
#   install   copies the last commit of this repository there and installs it with Python 3.11
#   start     starts the study under a supervisor, which starts it again where it ends with code 33
#   watch     until the study ends: fetches its folder every few minutes; where the machine was
#             taken away, deletes it (it holds quota), asks for a new one and goes on there
#   fetch     copies the study's folder to runs/NAME
#   delete    deletes the machine and its place in the queue
#
# --accelerator=v5e-8   a name of `launch.plan`: v2-8 v3-8 v4-8 v5e-1 v5e-4 v5e-8 v5p-8 v6e-1 ...,
#                       or of a pod of several hosts, up to 128: v4-16 v5e-16 v5p-16 v6e-16 ...
# --kind=spot           or on_demand, or flex_start (queue alone; ends after --hours=24)
# --project=P           else that of gcloud's configuration
# --every=300           seconds between two looks of `watch`
# --dry_run             prints every command and runs none
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

die() {
  echo "error: $*" >&2
  exit 2
}

usage="tpu.sh create|install|start|watch|fetch|delete --name=NAME --zone=ZONE; see its first lines"
command=${1:-}
[ $# -eq 0 ] || shift
case $command in
  create | install | start | watch | fetch | delete) ;;
  *) die "unknown command '$command': $usage" ;;
esac
name="" zone="" project="" accelerator=v5e-8 kind=spot hours=24 every=300 direct="" dry_run=""
while [ $# -gt 0 ]; do
  case $1 in
    --name=?*) name=${1#*=} ;;
    --zone=?*) zone=${1#*=} ;;
    --project=?*) project=${1#*=} ;;
    --accelerator=?*) accelerator=${1#*=} ;;
    --kind=?*) kind=${1#*=} ;;
    --hours=?*) hours=${1#*=} ;;
    --every=?*) every=${1#*=} ;;
    --direct) direct=1 ;;
    --dry_run) dry_run=1 ;;
    --)
      shift
      break
      ;;
    *) die "unknown flag '$1': $usage" ;;
  esac
  shift
done
study=("$@")
[[ $name =~ ^[a-z]([a-z0-9-]{0,60}[a-z0-9])?$ ]] ||
  die "--name=$name: give a name of small letters, digits and hyphens that begins with a letter"
[ -n "$zone" ] || die "--zone is needed, such as --zone=us-central1-a: that of your quota"
[[ $hours =~ ^[1-9][0-9]*$ && $every =~ ^[0-9]+$ ]] || die "--hours and --every are whole numbers"

# The machine's names and image, as Google gives them.
case $accelerator in
  v[234]-8 | v[234]-16 | v[234]-32 | v[234]-64 | v[234]-128)
    type=$accelerator image=tpu-ubuntu2204-base ;;
  v5e-[148] | v5e-16 | v5e-32 | v5e-64 | v5e-128)
    type=v5litepod-${accelerator#*-} image=v2-alpha-tpuv5-lite ;;
  v5p-8 | v5p-16 | v5p-32 | v5p-64 | v5p-128) type=$accelerator image=v2-alpha-tpuv5 ;;
  v6e-[148] | v6e-16 | v6e-32 | v6e-64 | v6e-128) type=$accelerator image=v2-alpha-tpuv6e ;;
  *) die "--accelerator=$accelerator: unknown; known: v2-8 v3-8 v4-8 v5e-1 v5e-4 v5e-8 v5p-8" \
    "v6e-1 v6e-4 v6e-8, and pods of 16 to 128, such as v5e-16" ;;
esac
case $kind in
  spot | on_demand) ;;
  flex_start) [ -z "$direct" ] || die "--kind=flex_start: in the queue alone; leave out --direct" ;;
  *) die "--kind=$kind: unknown; known: spot, on_demand, flex_start" ;;
esac
[ -n "$dry_run" ] || type -P gcloud > /dev/null ||
  die "gcloud is not on PATH; install it from https://cloud.google.com/sdk/docs/install"

where=("--zone=$zone" ${project:+"--project=$project"})
queued=(gcloud compute tpus queued-resources)
vm=(gcloud compute tpus tpu-vm)
failed="the request failed (often for want of quota); delete it, and ask for another kind or zone"

run() {
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

on_vm() { # a line for the shell of the machine: of all hosts of a pod, or of the one named
  run "${vm[@]}" ssh "$name" "${where[@]}" "--worker=${2:-all}" --command="$1"
}

create() {
  local how=()
  [ "$kind" != spot ] || how=(--spot)
  if [ -n "$direct" ]; then
    run "${vm[@]}" create "$name" "${where[@]}" "--accelerator-type=$type" "--version=$image" \
      "${how[@]}"
    return
  fi
  local ask=("${queued[@]}")
  if [ "$kind" = flex_start ]; then # not in the general release yet
    ask=(gcloud alpha compute tpus queued-resources)
    how=(--provisioning-model=flex-start "--max-run-duration=${hours}h")
  fi
  run "${ask[@]}" create "$name" "--node-id=$name" "${where[@]}" "--accelerator-type=$type" \
    "--runtime-version=$image" "${how[@]}"
}

delete() {
  if [ -n "$direct" ]; then
    run "${vm[@]}" delete "$name" "${where[@]}" --quiet
  else
    run "${queued[@]}" delete "$name" "${where[@]}" --force --quiet
  fi
}

# ACTIVE or READY where it can be used; empty where it cannot be told.
state() {
  if [ -n "$direct" ]; then
    run "${vm[@]}" describe "$name" "${where[@]}" '--format=value(state)' || true
  else
    run "${queued[@]}" describe "$name" "${where[@]}" '--format=value(state.state)' || true
  fi
}

await() { # until the machine is there
  local now
  if [ -n "$dry_run" ]; then
    state
    return
  fi
  while now=$(state); [ "$now" != ACTIVE ] && [ "$now" != READY ]; do
    [ "$now" != FAILED ] || die "$name: $failed"
    echo "$name: ${now:-cannot be told}; waiting"
    sleep "$every"
  done
}

install() {
  local archive
  archive=$(mktemp -d)/antiimit_jax.tar.gz
  run git -C "$here" archive --prefix=antiimit_jax/ -o "$archive" HEAD
  run "${vm[@]}" scp "$archive" "$name:" "${where[@]}" --worker=all
  rm -rf "$(dirname "$archive")"
  on_vm "tar -xzf antiimit_jax.tar.gz && bash antiimit_jax/launch/cloud/install.sh tpu"
}

start() {
  local line
  printf -v line '%q ' .venv/bin/python -m launch.study "--workdir=runs/$name" "${study[@]}"
  on_vm "cd antiimit_jax && mkdir -p runs && { setsid nohup bash launch/cloud/supervise.sh \
runs/$name.code $line> runs/$name.log 2>&1 < /dev/null & }"
}

# Copies the study's folder, which the first host keeps, here; what lay here is replaced once the copy
# is whole.
fetch() {
  mkdir -p runs 2> /dev/null && [ -w runs ] || die "runs: cannot be written; go to another folder"
  local new=runs/.$name.new line="tar -C antiimit_jax/runs -czf - $name"
  if [ -n "$dry_run" ]; then
    on_vm "$line" 0
    return
  fi
  rm -rf "$new"
  mkdir "$new" || die "$new: cannot be written"
  # tar's code 1 says that a file changed meanwhile: a run notices what is not whole in a copy.
  on_vm "$line || [ \$? -eq 1 ]" 0 | tar -C "$new" -xzf - ||
    { rm -rf "$new"; echo "$name: was not copied (is the machine there, is the disk full?)"; return 1; }
  rm -rf "runs/$name" && mv "$new/$name" "runs/$name" && rmdir "$new"
  echo "$name: copied to runs/$name"
}

give_back() { # the copy here, to a new machine
  [ -n "$dry_run" ] || [ -d "runs/$name" ] || return 0
  on_vm "mkdir -p antiimit_jax/runs"
  run "${vm[@]}" scp --recurse "runs/$name" "$name:antiimit_jax/runs/" "${where[@]}" --worker=all
}

again() { # a new machine goes on from the copy here
  delete || true
  create
  await
  install
  give_back
  start
}

watch() {
  local now code ended="cat antiimit_jax/runs/$name.code 2> /dev/null || true"
  if [ -n "$dry_run" ]; then
    state
    on_vm "$ended" 0
    fetch
    echo "# where the machine was taken away:"
    again
    return
  fi
  while :; do
    now=$(state)
    case $now in
      ACTIVE | READY)
        code=$(on_vm "$ended" 0) || code=""
        fetch || true
        if [ -n "$code" ]; then
          echo "$name: the study ended with code $code; delete the machine when all is fetched"
          exit "$code"
        fi
        ;;
      SUSPENDED | PREEMPTED | TERMINATED)
        echo "$name: was taken away; asking for a new one"
        again
        ;;
      FAILED) die "$name: $failed" ;;
      *) echo "$name: ${now:-its state cannot be told}" ;;
    esac
    sleep "$every"
  done
}

"$command"
