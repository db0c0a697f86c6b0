#!/usr/bin/env bash
# Runs the tests: sets itself up in .venv with the development tools, then lint, types and pytest. Extra arguments go to
# pytest, e.g. `bash launch/test.sh -m "not slow"`.
set -euo pipefail
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$REPO/launch/common.sh"
cd "$REPO"
ensure_environment '[dev]'
ruff check .
ruff format --check .
mypy
exec pytest "$@"
