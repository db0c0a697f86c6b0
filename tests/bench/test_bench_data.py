"""`refiner-ds bench data`: a tiny run of everything that the tests' own environment has."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from refiner_ds.batch import EncodedBatch
from refiner_ds.bench.contenders import CONTENDERS
from refiner_ds.bench.encoded import write_encoded
from refiner_ds.bench.peers.samples import cropped
from refiner_ds.bench.pictures import HEIGHT, WIDTH, write_triplets
from refiner_ds.bench.recipe import recipe
from refiner_ds.chance import generator_of
from refiner_ds.cli import main
from refiner_ds.data.buckets import parse_buckets
from refiner_ds.data.encoded_samples import training_samples
from refiner_ds.data.manifest import VIEWS, read_manifest
from refiner_ds.data.packing.crew import tell_nobody
from refiner_ds.data.samples import Samples
from refiner_ds.data.shards import open_shards
from refiner_ds.data.stream import Stream

BUCKETS = "1.0:64x64,1.5:128x96"


@pytest.fixture(scope="module")
def pictures(dataset, tmp_path_factory):
    """Manifest of 6 triplets of the second bucket, which are resized to it, and 1 of the first."""
    return dataset(tmp_path_factory.mktemp("pictures"), [(96, 64)] * 6 + [(64, 64)])


@pytest.fixture
def bench(refiner_ds_command, pictures, tmp_path):
    """`bench(*arguments)` runs it and returns the process and what it wrote as JSON and Markdown."""

    def run(*arguments: object, **environment: str):
        files = tmp_path / "figures.json", tmp_path / "figures.md"
        done = refiner_ds_command(
            *("bench", "data", "--manifest", pictures, "--buckets", BUCKETS, "--samples", 8, "--rounds", 1),
            *("--json", files[0], "--markdown", files[1], *arguments),
            **environment,
        )
        return done, json.loads(files[0].read_text()), files[1].read_text()

    return run


READERS = {
    "baseline": "float32",
    "ours/kept/exact": "uint8",
    "ours/npy-bucket": "uint8",
    "ours/encoded/latent": "float16",
    "webdataset/kept/recipe": "float32",
    "webdataset/npy-bucket": "uint8",
}
"""Rows of the quick run, and what they hand on."""


def test_a_run_tells_figures_of_every_row_and_leaves_nothing_behind(bench, tmp_path):
    done, told, page = bench("--only", ",".join([*READERS, "packing/webdataset"]), TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in told["rows"]}
    assert list(rows) == [*READERS, "packing/webdataset"]
    require_figures(rows)
    for name, dtype in READERS.items():
        (figures,) = rows[name]["rounds"]
        shape = [4, 12, 12, 4] if name.startswith("ours/encoded") else [4, 96, 96, 3]
        assert (figures["samples"], figures["shape"], figures["dtype"]) == (8, shape, dtype)
        assert figures["first_batch_seconds"] > 0 and rows[name]["ratio_to_baseline"]
        assert rows[name]["mb_per_sample"] > 0
    assert page in done.stdout and all(f"| {name} |" in page for name in rows)
    assert f"`refiner-ds bench data --manifest manifest.json --buckets {BUCKETS} --samples 8 --rounds 1" in page
    assert str(tmp_path) not in page
    assert {path.name for path in tmp_path.iterdir()} == {"figures.json", "figures.md"}


def require_figures(rows: dict[str, dict]) -> None:
    for row in rows.values():
        assert row["state"] == "measured" and row["samples_per_cpu_second"]["median"] > 0
        for figures in row["rounds"]:
            assert min(figures["cpu_seconds"], figures["wall_seconds"]) > 0 and 20 < figures["peak_mb"] < 2000


@pytest.mark.slow
@pytest.mark.long
def test_all_that_is_installed_delivers_alike_over_laps(bench, tmp_path):
    done, told, _ = bench("--samples", 80, "--output", tmp_path / "kept", timeout=500)
    assert done.returncode == 0, done.stderr
    assert [row["name"] for row in told["rows"]] == [contender.name for contender in CONTENDERS]
    rows = {row["name"]: row for row in told["rows"] if row["state"] != "not installed"}
    assert {"baseline", "ours/tiff/window", "webdataset/tiff-bucket", "packing/ours/2"} <= rows.keys()
    require_figures(rows)
    loaders = {name: row for name, row in rows.items() if not name.startswith("packing")}
    encoded = {name: loaders.pop(name) for name in ("ours/encoded/latent", "ours/encoded/windows")}
    for shape, those in ((96, 96, 3), loaders), ((12, 12, 4), encoded):
        assert {(each["samples"], *each["shape"]) for row in those.values() for each in row["rounds"]} == {
            (80, 4, *shape)
        }
    packers = [row for name, row in rows.items() if name.startswith("packing")]
    assert len({each["samples"] for row in packers for each in row["rounds"]}) == 1
    assert (tmp_path / "kept/shards/tiff-bucket/index.json").exists()


def test_what_is_not_installed_is_told_and_what_fails_does_not_stop_the_others(bench, tmp_path):
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    done, told, page = bench("--only", "webdataset/kept,litdata/kept", "--peers_python", bare / "bin/python")
    assert done.returncode == 0 and page.count("| not installed |") == 2
    assert [(row["state"], row["rounds"]) for row in told["rows"]] == [("not installed", [])] * 2

    (tmp_path / "path").mkdir()
    (tmp_path / "path/webdataset.py").write_text("raise RuntimeError('no room')")
    done, told, _ = bench("--only", "webdataset/kept,baseline", PYTHONPATH=str(tmp_path / "path"))
    assert done.returncode == 1 and "webdataset/kept/recipe failed: RuntimeError: no room" in done.stderr
    states = [row["state"] for row in told["rows"]]
    assert states == ["measured", "failed: RuntimeError: no room"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rounds", "0"], "--rounds 0, --samples 192 and --workers 1 must be at least 1; else nothing is measured."),
        (["--peers_python", "nothing-of-this-name"], "--peers_python nothing-of-this-name runs no Python"),
        (["--only", "wds"], "--only 'wds' names no loader"),
        (["--output", "."], "output folder . is not empty, and the bench would mix its files with them"),
        (["--json", "taken/figures.json"], "output folder taken cannot be made"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(refiner_ds_command, tmp_path, arguments, words):
    (tmp_path / "taken").write_text("a file")
    done = refiner_ds_command("bench", "data", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_baselines_pixels_are_ours_where_ours_are_exact(pictures, pack_dataset, tmp_path):
    index = pack_dataset(pictures, tmp_path / "shards")
    buckets, samples = parse_buckets(BUCKETS), read_manifest(pictures)
    ours = Samples.of(open_shards(str(index.folder)), "train", buckets, seed=3, resampling="exact")
    draws = ours.order(2).global_batch(0)
    filled = np.empty(ours.shape(draws), np.uint8)
    ours.fill(draws, filled)
    for number, draw in enumerate(draws):
        bucket = buckets[draw.bucket]
        x = int(generator_of(3, "crop", draw.position).integers(0, bucket.width - bucket.height + 1))
        sample = samples[int(ours.key(draw.sample))]
        theirs = recipe({view: str(path) for view, path in sample.files.items()}, bucket, x)
        for view, picture in zip(VIEWS, filled[:, number], strict=True):
            assert np.array_equal(np.rint((theirs[view].movedim(0, -1).numpy() + 1) * 127.5), picture)


@pytest.mark.parametrize("crops", ["latent", "windows"])
def test_encoded_shards_of_the_bench_are_whole_and_deliver_the_numbers_that_the_full_model_trains_on(
    pictures, pack_dataset, tmp_path, crops
):
    (bucket,) = parse_buckets("1.5:1917x512")
    kept = pack_dataset(pictures, tmp_path / "kept")
    write_encoded(kept.folder, tmp_path / "encoded", crops, bucket)
    assert main(["verify", str(tmp_path / "encoded")]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "encoded"}
    samples = training_samples(open_shards(str(tmp_path / "encoded")), (bucket,), seed=0)
    assert len(samples) == len(kept.rows("train"))
    # sides of 1917x512 / 8, and 4 channels of 2 bytes; of cond 4 embeddings more
    whole = 4 * 64 * 239 if crops == "latent" else 4 * 4 * 64 * 64
    record = samples.shards.index.records[0]
    assert [int(size) for size in record["size"]] == [2 * whole, 2 * whole, 2 * (whole + 4 * 1024)]
    batch = next(Stream(samples, samples.order(4), 4, 0, 1, 0).batches(0, 1))
    assert isinstance(batch, EncodedBatch)
    assert {view.shape for view in (batch.render, batch.gt, batch.cond)} == {(4, 4, 64, 64)}
    assert batch.embedding.shape == (4, 1024)
    for numbers in batch.tensors.values():
        assert numbers.dtype == torch.float16 and 0.9 < float(numbers.float().std()) < 1.1


def test_what_peers_cut_from_pixels_is_what_the_baseline_cuts(pictures):
    (bucket,) = parse_buckets("1.5:128x96")
    files = read_manifest(pictures)[0].files
    random.seed(5)
    theirs = recipe({view: str(path) for view, path in files.items()}, bucket)
    random.seed(5)
    cut = cropped({view: path.read_bytes() for view, path in files.items()}, "png", bucket, "exact")
    for view in VIEWS:
        assert np.array_equal(np.rint((theirs[view].movedim(0, -1).numpy() + 1) * 127.5), cut[view])


def test_synthetic_pictures_take_as_many_bytes_as_photographs_of_streets(tmp_path):
    (sample,) = write_triplets(tmp_path / "pictures", tell_nobody, count=1)
    for view in VIEWS:
        assert 0.65e6 < sample.files[view].stat().st_size < 0.85e6
        with Image.open(sample.files[view]) as picture:
            assert picture.size == (WIDTH, HEIGHT) and picture.mode == "RGB"
            picture.save(tmp_path / "as.jpg", quality=95, subsampling=0)
        assert 0.15e6 < (tmp_path / "as.jpg").stat().st_size < 0.25e6
