"""The example street: what makes its frames repeatable, stereo, and worth repairing."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from refiner_ds.data.example import draw_frames, write_example
from refiner_ds.data.example.camera import STEP_METRES, Camera, stereo_pair
from refiner_ds.data.example.frames import draw_frame
from refiner_ds.data.example.shade import picture
from refiner_ds.data.example.splats import Splats
from refiner_ds.data.example.splatting import splat
from refiner_ds.data.example.street import solids_of

SMALL = (160, 64)
BASELINE = 0.6


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((first.astype(float) - second) ** 2)))


def pictures(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.glob("*/*.png"))}


def test_a_frame_depends_on_seed_index_and_shape_alone():
    shapes = [SMALL, (96, 72)]
    three, again = list(draw_frames(3, shapes, seed=4)), list(draw_frames(2, shapes, seed=4))
    assert [frame.name for frame in three] == [
        "street0004-000000-160x64",
        "street0004-000001-96x72",
        "street0004-000002-160x64",
    ]
    for frame, twin in zip(three, again, strict=False):
        assert frame.gt.shape == (*shapes[int(frame.name[11:17]) % 2][::-1], 3) and frame.gt.dtype == np.uint8
        for role in ("render", "gt", "cond"):
            assert np.array_equal(getattr(frame, role), getattr(twin, role))
    alone = draw_frame(2, SMALL, 4, BASELINE)
    assert np.array_equal(alone.render, three[2].render)


def test_another_seed_is_another_street():
    first, second = (draw_frame(5, SMALL, seed, BASELINE) for seed in (0, 1))
    assert psnr(first.gt, second.gt) < 16


def test_the_camera_moves_on():
    frames = [draw_frame(index, SMALL, 2, BASELINE) for index in (6, 7, 12)]
    near, far = psnr(frames[0].cond, frames[1].cond), psnr(frames[0].cond, frames[2].cond)
    assert far < near < 30
    ways = [stereo_pair(index, *SMALL, 2, BASELINE)[0].position[2] for index in range(4)]
    assert np.allclose(np.diff(ways), STEP_METRES)


@pytest.mark.parametrize("baseline", [0.6, 1.5])
def test_disparity_takes_the_left_picture_to_the_right_one_along_its_rows(baseline):
    left, right = stereo_pair(14, 320, 96, 3, baseline)
    solids = solids_of(3, 14, left.position[2])
    cond, inverse_left = picture(solids, left, 3)
    gt, inverse_right = picture(solids, right, 3)
    rows, columns = np.mgrid[:96, :320]
    source = columns + left.fx * baseline * inverse_right
    whole = np.clip(source.astype(int), 0, 318)
    share = (source - whole)[..., None]
    warped = cond[rows, whole] * (1 - share) + cond[rows, whole + 1] * share
    sides = np.stack([inverse_left[rows, whole], inverse_left[rows, whole + 1]])
    seen = (source < 319) & (np.abs(sides - inverse_right) < 0.02 * inverse_right + 1e-4).all(axis=0)
    assert seen.mean() > 0.6
    assert psnr(warped[seen], gt[seen]) > psnr(cond[seen], gt[seen]) + 6
    lifted = np.roll(warped, 2, axis=0)
    assert psnr(warped[seen], gt[seen]) > psnr(lifted[seen], gt[seen]) + 3


def test_renders_are_as_broken_as_stated():
    frames = [draw_frame(index, shape, seed, BASELINE) for index, shape, seed in _SPREAD]
    values = [psnr(frame.render, frame.gt) for frame in frames]
    assert 15 < np.mean(values) < 19 and min(values) > 12 and max(values) < 22
    beaten = [psnr(frame.render, np.roll(frame.gt, 40, axis=1)) for frame in frames]
    assert np.mean(values) > np.mean(beaten) + 3, "the render shows the same street"


_SPREAD = [(3, (256, 80), 0), (9, (256, 80), 1), (21, (160, 120), 2), (30, (160, 120), 3), (44, (256, 80), 4)]


def test_renders_have_holes_where_only_the_right_camera_looks():
    frames = [draw_frame(index, (256, 80), seed, BASELINE) for index, seed in ((8, 1), (20, 2), (33, 5))]
    edges = [frame.render[:, -4:].max(axis=2) < 24 for frame in frames]
    true = [frame.gt[:, -4:].max(axis=2) < 24 for frame in frames]
    assert np.mean(edges) > 0.4 and np.mean(true) < 0.2


def test_a_lone_gaussian_lands_where_it_projects_and_fades_by_its_covariance():
    camera = Camera(64, 48, 40.0, 32.0, 24.0, (0.0, 1.0, 0.0), 0.0)
    mean = np.array([[0.5, 1.2, 4.0]], np.float32)
    axes = np.diag([0.4, 0.2, 0.1]).astype(np.float32)[None]
    rgb, left = splat(Splats(mean, axes, np.ones((1, 3), np.float32), np.full(1, 0.9, np.float32)), camera)
    column, row = 32 + 40 * 0.5 / 4, 24 - 40 * 0.2 / 4
    assert np.unravel_index(left.argmin(), left.shape) in [(int(row), int(column)), (int(row) - 1, int(column))]
    x, y = np.arange(64) + 0.5 - column, np.arange(48)[:, None] + 0.5 - row
    wide = (40 * 0.4 / 4) ** 2 + (40 * 0.5 / 16 * 0.1) ** 2 + 0.3
    tall = (40 * 0.2 / 4) ** 2 + (40 * 0.2 / 16 * 0.1) ** 2 + 0.3
    expected = 1 - 0.9 * np.exp(-0.5 * (x**2 / wide + y**2 / tall))
    assert np.abs(left - expected).max() < 0.02
    assert rgb[int(row), int(column)].min() > 200 and rgb[0, 0].max() < 24


def test_nearer_gaussians_cover_farther_ones_whatever_their_order():
    camera = Camera(64, 48, 40.0, 32.0, 24.0, (0.0, 0.0, 0.0), 0.0)
    mean = np.array([[0, 0, 6.0], [0, 0, 3.0]], np.float32)
    axes = np.broadcast_to(np.eye(3, dtype=np.float32) * 0.5, (2, 3, 3))
    colour, opacity = np.array([[1, 0, 0], [0, 0, 1]], np.float32), np.full(2, 0.99, np.float32)
    rgb, _ = splat(Splats(mean, axes, colour, opacity), camera)
    swapped, _ = splat(Splats(mean[::-1], axes, colour[::-1], opacity), camera)
    assert rgb[24, 32, 2] > 230 and rgb[24, 32, 0] < 20
    assert np.array_equal(rgb, swapped)


def test_the_manifest_is_aligned_relative_and_the_same_for_any_workers(tmp_path):
    calls = []
    path = write_example(
        tmp_path / "one", 3, [(96, 72), (128, 48)], seed=1, progress=lambda done, total: calls.append((done, total))
    )
    assert path == tmp_path / "one" / "manifest.json" and calls == [(1, 3), (2, 3), (3, 3)]
    manifest = json.loads(path.read_text())
    assert sorted(manifest) == ["cond", "gt", "render"]
    for entries in zip(manifest["render"], manifest["gt"], manifest["cond"], strict=True):
        assert len({entry.split("/")[1] for entry in entries}) == 1
        sizes = {Image.open(path.parent / entry).size for entry in entries}
        assert sizes == {tuple(int(side) for side in re.findall(r"(\d+)x(\d+)", entries[0])[0])}
    write_example(tmp_path / "two", 3, [(96, 72), (128, 48)], seed=1, workers=2)
    assert pictures(tmp_path / "one") == pictures(tmp_path / "two") and len(pictures(tmp_path / "two")) == 9
    assert not list(tmp_path.rglob("*.partial"))


def test_writing_twice_draws_once_and_mends_what_is_missing(tmp_path):
    drawn = []
    arguments = {"frames": 2, "shapes": [(64, 48)], "progress": lambda done, total: drawn.append(done)}
    first = pictures(write_example(tmp_path, **arguments).parent)
    write_example(tmp_path, **arguments)
    assert drawn == [1, 2]
    (tmp_path / "gt" / "street0000-000001-64x48.png").unlink()
    write_example(tmp_path, **arguments)
    assert pictures(tmp_path) == first and drawn == [1, 2, 1, 2]


def test_a_killed_run_leaves_no_manifest(tmp_path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_example(tmp_path, 2, [(64, 48)], progress=stop)
    assert list(tmp_path.glob("*/*.png")) and not list(tmp_path.glob("*.json"))


def test_a_folder_with_other_pictures_is_refused_and_left_alone(tmp_path):
    write_example(tmp_path, 1, [(64, 48)], seed=1)
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(ValueError, match=r"belongs to other pictures.*name another folder"):
        write_example(tmp_path, 1, [(64, 48)], seed=2)
    with pytest.raises(ValueError, match="belongs to other pictures"):
        write_example(tmp_path, 1, [(64, 48)], seed=1, baseline=0.9)
    assert (tmp_path / "manifest.json").read_bytes() == before and len(pictures(tmp_path)) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"frames": 0}, "frames is 0.*ask for 1 or more"),
        ({"frames": 1, "shapes": []}, "shapes is empty.*give at least one"),
        ({"frames": 1, "shapes": [(64, 48), (64, 47)]}, "shape 64x47 is too small.*at least 64x48"),
        ({"frames": 1, "baseline": 0.0}, "baseline is 0 metres.*more than 0"),
        ({"frames": 1, "baseline": float("nan")}, "baseline is nan metres.*more than 0"),
        ({"frames": 1, "seed": -1}, "seed is -1.*give 0 or"),
        ({"frames": 1, "workers": 0}, "workers is 0.*give 1 or more"),
    ],
)
def test_bad_requests_are_refused_in_words_before_anything_is_written(tmp_path, arguments, words):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=words):
        write_example(out, **arguments)
    assert not out.exists()
    if "workers" not in arguments:
        with pytest.raises(ValueError, match=words):
            draw_frames(**arguments)
