#!/usr/bin/env bash
# Measures the benches on a bare GPU machine without a network: nvidia-smi, doctor, the quick tests of what is measured,
# `refiner-ds bench all`, and the training step at micro-batches of 1 and 8 in bf16 and fp16. Logs, tables and figures
# are in out/ afterwards. A part that fails is told and ends no other, and the exit code is then 1.
#
#   bash launch/bench_gpu.sh wheels/ out/ [--only step,encode] [--rounds 2]
#
# Further arguments go to `bench all`. torch is the machine's own, that of PYTHON (default python3). What else is needed
# comes as wheels, or is there too. Collect them where there is a network, with the same Python, in an environment that
# the project is installed in:
#
#   python -m pip freeze --exclude-editable | grep -vE '^(torch|triton|nvidia-[^=]*|cuda-[^=]*)==' > needed.txt
#   DS_BUILD_OPS=0 python -m pip wheel --no-deps --wheel-dir wheels --requirement needed.txt setuptools
#
# or, for another Python or platform, with what comes as a source alone (deepspeed) taken out of needed.txt:
#
#   python -m pip download --no-deps --only-binary :all: --python-version 3.12 --platform manylinux_2_28_x86_64 \
#       --platform manylinux_2_17_x86_64 --dest wheels --requirement needed.txt setuptools
#   DS_BUILD_OPS=0 python -m pip wheel --no-deps --wheel-dir wheels deepspeed
set -euo pipefail
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=${PYTHON:-python3}

# Says what is wrong with the command, and ends.
refuse() {
    echo "$1" >&2
    exit 2
}

[ $# -ge 2 ] || refuse "bench_gpu.sh takes two folders, of the wheels and for what is measured: bash launch/bench_gpu.sh wheels/ out/"
compgen -G "$1/*.whl" >/dev/null || refuse "$1 holds no wheels, so nothing can be installed; collect them as the head of this script says."
[ -z "$(ls -A "$2" 2>/dev/null)" ] || refuse "$2 is not empty, and the figures of two runs would be mixed; name another folder."
mkdir -p "$2"
wheels=$(cd "$1" && pwd)
out=$(cd "$2" && pwd)
shift 2
cd "$REPO"

echo "=== install"
environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
python=$environment/bin/python
"$PYTHON" -m venv --system-site-packages "$environment"
# where PYTHON is of a virtual environment itself, what is installed there would not be seen else
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$PYTHON" -c 'import site; print(*site.getsitepackages(), sep="\n")' >"$packages/outer.pth"
install=("$python" -m pip install --quiet --no-index --find-links "$wheels" --no-deps)
"${install[@]}" "$wheels"/*.whl
"${install[@]}" --no-build-isolation --editable "$REPO"
"$python" -m pip list >"$out/packages.txt"
"$python" -m pip check >"$out/pip-check.txt" || echo "note: the packages do not fit in all, see pip-check.txt; it is tried with them"
export PATH=$environment/bin:$PATH HF_HUB_OFFLINE=1

failed=()
# Runs a command ($2...) with its output in $1.log; shows the end of it, all of it where it is short.
part() {
    local name=$1 began=$SECONDS code=0
    shift
    echo "=== $name: $*"
    "$@" >"$out/$name.log" 2>&1 || code=$?
    tail -n 40 "$out/$name.log"
    [ "$code" -eq 0 ] || failed+=("$name")
    echo "=== $name: exit code $code after $((SECONDS - began)) s"
}

part nvidia-smi nvidia-smi
part doctor "$python" -m refiner_ds doctor
part tests "$python" -m pytest -m "not slow" tests/bench tests/train/test_work.py
part all "$python" -m refiner_ds bench all --output "$out/all" "$@"
for size in 1 8; do
    for precision in bf16 fp16; do
        name=step-$size-$precision
        part "$name" "$python" -m refiner_ds bench step --train_batch_size "$size" --precision "$precision" \
            --compile --json "$out/$name.json" --markdown "$out/$name.md"
    done
done

if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}; their logs are in $out" >&2
    exit 1
fi
