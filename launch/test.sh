#!/usr/bin/env bash
# Runs the tests: sets itself up in .venv with the development tools, then lint, types and pytest, the quick tests on all
# cores and then the slow ones one by one, but for the long ones (`bash launch/test.sh -m long`). With arguments it runs one
# pytest with these, e.g. `bash launch/test.sh -m "not slow"`. The tests of two hosts and of Slurm need root and Debian's
# packages, those of the report Chromium; it says which of them will be skipped, and where CI is set, as continuous
# integration does, installs what is missing.
set -euo pipefail
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/common.sh
source "$REPO/launch/common.sh"
cd "$REPO"
TWO_HOSTS="ip:iproute2 sshd:openssh-server pdsh:pdsh"
SLURM="slurmctld:slurm-wlm slurmd:slurm-wlm munged:munge"
BROWSER="chromium:chromium"

# Prints the missing ones of `program:package` ($2...): programs or packages, as $1 says.
missing() {
    local what=$1 pair
    shift
    for pair in "$@"; do
        command -v "${pair%:*}" >/dev/null || if [ "$what" = programs ]; then echo "${pair%:*}"; else echo "${pair#*:}"; fi
    done | sort -u | paste -s -d ' ' -
}

# Says that tests ($1) will be skipped, if one of their `program:package` ($2...) is missing.
tell_skipped() {
    local tests=$1 programs
    shift
    programs=$(missing programs "$@")
    [ -z "$programs" ] || echo "SKIPPED: the tests of $tests, for lack of $programs (Debian: apt install $(missing packages "$@"))"
}

# Installs what is missing, in continuous integration, and says what will be skipped.
# shellcheck disable=SC2086  # lists of words
prepare_tools() {
    local packages
    packages=$(missing packages $TWO_HOSTS $SLURM $BROWSER)
    if [ "$(id -u)" -ne 0 ]; then
        echo "SKIPPED: the tests of two hosts and of Slurm, which make both on this machine, for lack of root"
        tell_skipped "the report in a browser" $BROWSER
        return
    fi
    if [ -n "${CI:-}" ] && [ -n "$packages" ]; then
        echo "installing $packages"
        { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $packages >/dev/null; } ||
            echo "apt-get could not install them" >&2
    fi
    tell_skipped "two hosts" $TWO_HOSTS
    tell_skipped Slurm $SLURM
    tell_skipped "the report in a browser" $BROWSER
}

ensure_environment '[dev]'
prepare_tools
ruff check .
ruff format --check .
mypy
if [ $# -gt 0 ]; then
    exec pytest "$@"
fi
result=0
pytest -m "not slow" -n auto --maxprocesses 8 --dist loadfile || result=$?
pytest -m "slow and not long" || result=$?
exit "$result"
