"""Stands in for `gcloud`: knows the flags of the commands that we use, and refuses all others.

The flags are those of release 528.0.0 (its surface/compute/tpus). A call is a line of calls.jsonl
in $FAKE_GCLOUD; `describe` answers with the next line of states there; what `ssh` is to run there
is run in its folder vm, where it only reads (cat, tar).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

EVERYWHERE = {"zone": 1, "project": 1, "quiet": 0, "format": 1}
NODE = EVERYWHERE | {"accelerator-type": 1, "spot": 0}
QUEUED = NODE | {"node-id": 1, "runtime-version": 1}
REMOTE = EVERYWHERE | {"worker": 1}
# Command -> flag -> whether it takes a value.
COMMANDS = {
    "compute tpus queued-resources create": QUEUED,
    "alpha compute tpus queued-resources create": QUEUED
    | {"provisioning-model": 1, "max-run-duration": 1},
    "compute tpus queued-resources describe": EVERYWHERE,
    "compute tpus queued-resources delete": EVERYWHERE | {"force": 0},
    "compute tpus tpu-vm create": NODE | {"version": 1},
    "compute tpus tpu-vm describe": EVERYWHERE,
    "compute tpus tpu-vm delete": EVERYWHERE,
    "compute tpus tpu-vm ssh": REMOTE | {"command": 1},
    "compute tpus tpu-vm scp": REMOTE | {"recurse": 0},
}
NEEDED = {"create": ["accelerator-type", "zone"], "ssh": ["command"]}


def parse(argv: list[str]) -> tuple[str, list[str], dict[str, str]]:
    """(command, what it is about, flags)."""
    command = max((c for c in COMMANDS if argv[: len(c.split())] == c.split()), default=None)
    if command is None:
        raise SystemExit(f"ERROR: (gcloud) Invalid choice: {argv}")
    about, given = [], {}
    for arg in argv[len(command.split()) :]:
        if not arg.startswith("--"):
            about.append(arg)
            continue
        name, equals, value = arg[2:].partition("=")
        if bool(equals) != COMMANDS[command].get(name):
            raise SystemExit(f"ERROR: (gcloud) unrecognized arguments: {arg}")
        given[name] = value
    lacking = [name for name in NEEDED.get(command.split()[-1], ["zone"]) if name not in given]
    if lacking or len(about) != (2 if command.endswith("scp") else 1):
        raise SystemExit(f"ERROR: (gcloud) {command}: lacks {lacking}, about {about}")
    return command, about, given


def main() -> None:
    folder = Path(os.environ["FAKE_GCLOUD"])
    command, about, given = parse(sys.argv[1:])
    with (folder / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps([command, about, given]) + "\n")
    if command.endswith("describe"):
        now, *later = (folder / "states").read_text().splitlines()
        (folder / "states").write_text("\n".join(later))
        print(now)
    elif command.endswith("ssh") and given["command"].startswith(("cat ", "tar -C ")):
        sys.exit(subprocess.run(["bash", "-c", given["command"]], cwd=folder / "vm").returncode)


if __name__ == "__main__":
    main()
