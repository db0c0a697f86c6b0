"""launch/test.sh says what it will skip, and installs Debian's packages where it may."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.train.launch import REPO

BORROWED = ("bash", "cat", "cp", "cut", "dirname", "paste", "rm", "sha256sum", "sort", "touch")
TOOLS = {"ip": "iproute2", "sshd": "openssh-server", "pdsh": "pdsh"}
BROWSER = {"chromium": "chromium"}
SLURM = {"slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "munged": "munge"}
APT = """echo "apt-get $*" >> {folder}/apt
for package in "$@"; do
    for pair in {pairs}; do
        [ "$package" != "${{pair#*:}}" ] || cp -p {folder}/tools/id {folder}/tools/"${{pair%:*}}"
    done
done
"""


def program(path: Path, text: str = "") -> None:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def start(tmp_path):
    """Starts a copy of test.sh among programs of ours: `start(user, *present, **variables)`."""
    tools, venv = tmp_path / "tools", tmp_path / "checkout" / ".venv" / "bin"
    for folder in (tools, venv, tmp_path / "checkout" / "launch"):
        folder.mkdir(parents=True)
    for name in ("launch/test.sh", "launch/common.sh", "setup.py"):
        shutil.copy(REPO / name, tmp_path / "checkout" / name)
    for name in BORROWED:
        (tools / name).symlink_to(shutil.which(name))
    for name in ("python", "ruff", "mypy"):
        program(venv / name)
    program(venv / "pytest", 'echo "pytest $*"')
    pairs = " ".join(f"{name}:{package}" for name, package in {**TOOLS, **SLURM, **BROWSER}.items())
    program(tools / "apt-get", APT.format(folder=tmp_path, pairs=pairs))

    def start(user: int, *present: str, **variables: str) -> str:
        program(tools / "id", f"echo {user}")
        for name in present:
            program(tools / name)
        command = [tools / "bash", tmp_path / "checkout" / "launch" / "test.sh", "-m", "not slow"]
        variables = {"PATH": str(tools), "PYTHON": str(venv / "python"), **variables}
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("pytest -m not slow\n")
        return done.stdout

    return start


def test_what_is_missing_is_named_with_its_package(start, tmp_path):
    said = start(0, "ip", *SLURM)
    assert "SKIPPED: the tests of two hosts, for lack of pdsh sshd (Debian: apt install openssh-server pdsh)" in said
    assert "the tests of the report in a browser, for lack of chromium (Debian: apt install chromium)" in said
    assert "the tests of Slurm" not in said and not (tmp_path / "apt").exists()


def test_without_root_both_are_skipped(start, tmp_path):
    said = start(1000, CI="true")
    assert "SKIPPED: the tests of two hosts and of Slurm, which make both on this machine, for lack of root" in said
    assert not (tmp_path / "apt").exists()


def test_continuous_integration_installs_what_is_missing(start, tmp_path):
    said = start(0, "pdsh", CI="true")
    assert "installing chromium iproute2 munge openssh-server slurm-wlm" in said and "SKIPPED" not in said
    packages = "chromium iproute2 munge openssh-server slurm-wlm"
    assert f"install -y --no-install-recommends {packages}" in (tmp_path / "apt").read_text()


def test_where_nothing_is_missing_nothing_is_said(start, tmp_path):
    said = start(0, *TOOLS, *SLURM, *BROWSER, CI="true")
    assert "SKIPPED" not in said and not (tmp_path / "apt").exists()


def test_continuous_integration_says_that_it_is_one():
    lines = (REPO / ".ci" / "run").read_text().splitlines()
    assert "export CI=true" in lines and os.access(REPO / ".ci" / "run", os.X_OK)
