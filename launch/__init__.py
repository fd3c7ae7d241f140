"""Programs: parse flags, build, call. All run as `python -m launch.NAME`."""

import os

# transformers advises at every import to install torch, which these programs do not need.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
