"""launch/bench_gpu.sh: what it runs, where it leaves it, and that no failure is hidden."""

import os
import subprocess

import pytest

from tests.train.launch import REPO

PYTHON = """#!/bin/bash
# a Python: makes itself into an environment, notes what it is asked to run, and fails where told to
echo "$*" >> "$NOTES/ran"
case $* in
    "-m venv "*) mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python" ;;
    *sysconfig*) echo "$NOTES" ;;
    *) echo "words of $*" ;;
esac
[ -z "$FAILS" ] || [[ $* != *$FAILS* ]]
"""


@pytest.fixture
def bare(tmp_path):
    """`bare(*more, fails="", ...)` runs bench_gpu.sh as on a machine with a GPU, a wheel and nothing else."""
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "deepspeed-1-py3-none-any.whl").touch()
    for name, content in (("python", PYTHON), ("nvidia-smi", "#!/bin/bash\necho one GPU\n")):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)

    def run(*more: str, fails: str = "", wheels: str = "wheels", out: str = "out") -> subprocess.CompletedProcess:
        given = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": str(tmp_path / "python"), "NOTES": str(tmp_path)}
        return subprocess.run(
            ["bash", REPO / "launch" / "bench_gpu.sh", wheels, out, *more],
            env={**os.environ, **given, "FAILS": fails, "TMPDIR": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_a_bare_gpu_machine_is_measured_from_wheels_alone(bare, tmp_path):
    done = bare("--only", "step")
    assert done.returncode == 0, done.stderr
    ran, out = (tmp_path / "ran").read_text(), tmp_path / "out"
    installs = [line for line in ran.splitlines() if "pip install" in line]
    assert len(installs) == 2 and all("--no-index" in line for line in installs)
    assert "deepspeed-1-py3-none-any.whl" in installs[0] and f"--editable {REPO}" in installs[1]
    steps = [f"step-{size}-{precision}" for size in (1, 8) for precision in ("bf16", "fp16")]
    for name in ("nvidia-smi", "doctor", "tests", "all", *steps):
        assert (out / f"{name}.log").exists() and f"=== {name}: exit code 0" in done.stdout
    assert f"-m refiner_ds bench all --output {out}/all --only step\n" in ran
    for name in steps:
        _, size, precision = name.split("-")
        assert f"--train_batch_size {size} --precision {precision} --compile --json {out}/{name}.json" in ran
    assert "one GPU" in done.stdout and not list(tmp_path.glob("tmp.*"))


@pytest.mark.parametrize(
    ("fails", "name"), [("doctor", "doctor"), ("bench all", "all"), ("--precision fp16", "step-8-fp16")]
)
def test_a_part_that_fails_ends_no_other_and_is_told_at_the_end(bare, tmp_path, fails, name):
    done = bare(fails=fails)
    assert done.returncode == 1
    assert (
        done.stderr.startswith("failed: ")
        and name in done.stderr
        and f"their logs are in {tmp_path}/out" in done.stderr
    )
    assert f"=== {name}: exit code 1" in done.stdout and "=== step-8-bf16: exit code 0" in done.stdout
    assert (tmp_path / "out" / "step-8-fp16.log").exists()


def test_an_installation_that_fails_ends_at_once(bare, tmp_path):
    done = bare(fails="deepspeed-1-py3")
    assert done.returncode == 1 and "doctor" not in (tmp_path / "ran").read_text()


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        ({"wheels": "none"}, "none holds no wheels, so nothing can be installed; collect them as the head"),
        ({"out": "wheels"}, "wheels is not empty, and the figures of two runs would be mixed; name another folder."),
    ],
)
def test_folders_that_are_of_no_use_are_refused_in_one_sentence(bare, tmp_path, folders, words):
    done = bare(**folders)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "ran").exists()
