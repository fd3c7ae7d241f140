"""Programs: parse flags, build, call. All run as `python -m launch.NAME` or `aij-NAME`.

What must be settled before anything else is imported is settled here.
"""

import os

from launch.allocator import settle
from launch.interrupt import before_imports

# transformers advises at every import to install torch, which these programs do not need.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
settle()
before_imports()
