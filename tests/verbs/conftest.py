"""What the tests of `repair` share: a refiner, folders of pictures, and the verb as a person starts it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from refiner_ds.cli import main
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from tests.verbs.listing import contents

SIZE = (64, 48)


@pytest.fixture(scope="module")
def model(tiny_base, tmp_path_factory) -> Path:
    """An exported refiner that samples in one step without guidance. Tests only read it."""
    folder = tmp_path_factory.mktemp("refiner") / "model"
    UnclipRefiner(str(tiny_base)).save(folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "num_inference_steps": 1, "guidance_scale": 1.0}))
    return folder


@pytest.fixture
def folders(dataset, tmp_path) -> dict[str, Path]:
    """render/ and cond/ with a/000, a/deep/001 and b/000, of equal file name and of other extensions."""
    dataset(tmp_path / "drawn", [SIZE] * 3)
    names = {"000": ("a/000.png", "a/000.jpg"), "001": ("a/deep/001.webp", "a/deep/001.png"), "002": ("b/000.png",) * 2}
    for drawn, paths in names.items():
        for view, path in zip(("render", "cond"), paths, strict=True):
            (tmp_path / view / path).parent.mkdir(parents=True, exist_ok=True)
            Image.open(tmp_path / "drawn" / view / f"{drawn}.png").save(tmp_path / view / path)
    return {view: tmp_path / view for view in ("render", "cond")}


@pytest.fixture
def repair(model, capsys) -> Callable[..., tuple[int, str]]:
    """`repair(output, *more, render=..., cond=...)` runs the verb; returns its exit code and its one line."""

    def run(output: Path, *more: object, **files: Path) -> tuple[int, str]:
        given = [part for view, path in files.items() for part in (f"--{view}", path)]
        code = main(["repair", "--model", str(model), "--output", str(output), *map(str, [*given, *more])])
        told = capsys.readouterr()
        (line,) = (told.out + told.err).splitlines()
        return code, line

    return run


@pytest.fixture
def refused(repair, tmp_path) -> Callable[..., str]:
    """`refused(output, ...)` as `repair`, which must refuse it and leave everything as it was; returns its sentence."""

    def run(output: Path, *more: object, **files: Path) -> str:
        before = contents(tmp_path)
        code, line = repair(output, *more, **files)
        assert code == 2 and line.startswith("refiner-ds repair: ") and line.endswith(".")
        assert contents(tmp_path) == before
        return line

    return run
