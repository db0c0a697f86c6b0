"""What is installed here, as far as what is trained can depend on it; training and doctor tell it alike."""

import hashlib
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from refiner_ds import __version__

PACKAGES = ("torch", "deepspeed", "diffusers", "transformers")
"""What is trained can depend on these."""


def versions(beside: Iterable[str] = ()) -> dict[str, str]:
    """Of Python, this package with a digest of its code, PACKAGES and those beside; "none" of what is not installed."""
    found = {"python": platform.python_version(), "refiner_ds": f"{__version__} ({digest_of(Path(__file__).parent)})"}
    for name in (*PACKAGES, *beside):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def git_commit() -> str | None:
    """The commit of the checkout that this code runs from, "-dirty" behind it where files differ; None outside one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        # an installation below another project's checkout is none of that
        _said([*git, "ls-files", "--error-unmatch", Path(__file__).name])
        return _said([*git, "describe", "--always", "--dirty", "--abbrev=40", "--match=-"])
    except (OSError, subprocess.SubprocessError):
        return None


def _said(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()


def digest_of(folder: Path) -> str:
    """Tells the Python files below a folder from any others: two checkouts may have one version."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]
