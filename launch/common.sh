# shellcheck shell=bash
# What the scripts of this folder share: a virtual environment in the checkout that holds this project. Source it.

# Makes or reuses .venv, installs the project ($1: extras such as [dev]) when setup.py or the extras changed, and puts it first on PATH.
ensure_environment() {
    local extras=${1:-} python=${PYTHON:-python3} venv=$REPO/.venv stamp
    "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || {
        echo "$("$python" --version) is not Python 3.10 to 3.13; set PYTHON to one that is." >&2
        return 2
    }
    if [ ! -x "$venv/bin/python" ]; then
        echo "making a virtual environment in .venv"
        "$python" -m venv "$venv" || {
            rm -rf "$venv"
            echo "this Python cannot make virtual environments; install its venv module (Debian: apt install python3-venv)" >&2
            return 2
        }
    fi
    export PATH=$venv/bin:$PATH
    stamp=$venv/installed-$(cat "$REPO/setup.py" <(echo "$extras") | sha256sum | cut -c1-12)
    [ -e "$stamp" ] && return
    python -c 'import torch' 2>/dev/null || install_torch
    echo "installing refiner_ds$extras and what it needs into .venv (a few minutes the first time)"
    python -m pip install --quiet --editable "$REPO$extras"
    touch "$stamp"
}

# Installs torch: a CPU build where there is no NVIDIA GPU, if pip finds one where it looks anyway.
install_torch() {
    local cpu=
    if ! command -v nvidia-smi >/dev/null || ! nvidia-smi --list-gpus 2>/dev/null | grep -q GPU; then
        cpu=$(python -m pip index versions torch 2>/dev/null | grep -o '[0-9.]*+cpu' | head -n 1 || true)
        [ -n "$cpu" ] || echo "no GPU here, and no CPU build of torch where pip looks: taking the default build, several GB"
    fi
    echo "installing torch ${cpu:-(default build)}"
    python -m pip install --quiet "torch${cpu:+==$cpu}"
}
