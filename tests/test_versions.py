"""What is installed: told so that two checkouts of one version are two."""

from pathlib import Path

import torch

import refiner_ds
from refiner_ds.versions import digest_of, versions


def test_another_line_of_code_is_another_digest_and_what_is_no_code_counts_for_nothing(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "step.py").write_text("pass\n")
    before = digest_of(tmp_path)
    (tmp_path / "notes.txt").write_text("to be read")
    assert digest_of(tmp_path) == before
    (tmp_path / "train" / "step.py").write_text("pass\n# and more\n")
    changed = digest_of(tmp_path)
    (tmp_path / "train" / "step.py").rename(tmp_path / "step.py")
    assert len({before, changed, digest_of(tmp_path)}) == 3


def test_the_version_of_this_package_is_told_with_its_code_and_what_is_not_installed_is_none():
    found = versions(["numpy", "no-such-package"])
    assert found["refiner_ds"] == f"{refiner_ds.__version__} ({digest_of(Path(refiner_ds.__file__).parent)})"
    assert found["torch"] == torch.__version__ and found["no-such-package"] == "none" and found["numpy"] != "none"
