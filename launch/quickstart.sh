#!/usr/bin/env bash
# From a fresh clone to a repaired picture: sets itself up in .venv, then runs `refiner-ds quickstart` (about 15 minutes
# on two CPU cores). Extra arguments go to quickstart. Start it again at any time: what is done is not done again.
set -euo pipefail
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$REPO/launch/common.sh"
cd "$REPO"
ensure_environment ""
exec refiner-ds quickstart "$@"
