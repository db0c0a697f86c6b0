"""`refiner-ds encode`: latents as training computes them, whatever the ranks, after a kill, and refused if unfit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from refiner_ds.batch import EncodedBatch
from refiner_ds.checkpoint.place import find_place
from refiner_ds.cli import main
from refiner_ds.data.buckets import parse_buckets
from refiner_ds.data.encode import digest_of
from refiner_ds.data.encoded_samples import training_samples
from refiner_ds.data.index import read_index
from refiner_ds.data.packing.scratch import Scratch
from refiner_ds.data.samples import Samples
from refiner_ds.data.shards import open_shards
from refiner_ds.data.stream import Stream
from refiner_ds.errors import UserError
from refiner_ds.refiners.unclip.options import Recipe
from refiner_ds.refiners.unclip.refiner import UnclipRefiner
from refiner_ds.train.event import Suspect, read_event, write_event
from refiner_ds.world import World

TABLE = "1.0:64x64,1.5:96x64"
CPU = torch.device("cpu")


def encode(shards: Path, out: Path, base: Path, *more: object) -> int:
    fixed = ["--pretrained_model_name_or_path", base, "--buckets", TABLE, "--device", "cpu"]
    return main([str(each) for each in ("encode", shards, out, *fixed, *more)])


@pytest.fixture(scope="module")
def encoded(shards, tiny_base, tmp_path_factory):
    out = tmp_path_factory.mktemp("encoded") / "latent"
    assert encode(shards, out, tiny_base, "--flips") == 0
    return out


@pytest.fixture(scope="module")
def exact(shards, tiny_base, tmp_path_factory):
    out = tmp_path_factory.mktemp("encoded") / "windows"
    assert encode(shards, out, tiny_base, "--crops", "windows", "--windows", 3) == 0
    return out


@pytest.fixture(scope="module")
def refiner(tiny_base):
    refiner = UnclipRefiner(str(tiny_base))
    refiner.place(CPU, torch.float32, whole=True)
    refiner.prepare_training(Recipe())
    return refiner


def stream_of(samples: Samples, workers: int = 0) -> Stream:
    return Stream(samples, samples.order(4), 2, rank=0, num_ranks=1, workers=workers)


def batches(shards: Path, steps: int = 12, workers: int = 0, **more):
    samples = training_samples(open_shards(str(shards)), parse_buckets(TABLE), seed=3, **more)
    return list(stream_of(samples, workers).batches(0, steps))


def test_squares_are_encoded_as_training_encodes_them_and_lose_alike(shards, encoded, refiner):
    pairs = [
        (mine, theirs)
        for mine, theirs in zip(batches(encoded, random_flip=True), batches(shards, random_flip=True), strict=True)
        if mine.keys == theirs.keys and theirs.keys  # the same samples in the same order
    ]
    assert len(pairs) == 24
    squares = 0
    for mine, theirs in pairs:
        assert isinstance(mine, EncodedBatch) and mine.positions == theirs.positions
        if open_bucket(shards, theirs.keys[0]) != "64x64":
            continue
        squares += 1
        own, expected = refiner.encode(mine), refiner.encode(theirs)
        for name in ("render", "gt", "cond", "embedding"):
            torch.testing.assert_close(getattr(own, name), getattr(expected, name), rtol=2e-3, atol=2e-3)
        losses = [float(refiner.loss(refiner.network, torch.float32, each, 0)["loss"]) for each in (own, expected)]
        assert losses[0] == pytest.approx(losses[1], rel=2e-3)
    assert squares >= 4


def open_bucket(shards: Path, key: str) -> str:
    index = read_index(shards)
    row = next(row for row in range(len(index)) if index.key(row) == key)
    return "64x64" if index.records["width"][row] == index.records["height"][row] else "96x64"


def test_windows_are_the_encoded_pixels_of_themselves(shards, exact, refiner):
    index = read_index(exact)
    assert index.encoding is not None
    wide = parse_buckets(TABLE)[1]
    assert index.encoding.offsets(wide) == (0, 16, 32)
    pixels, seen = Samples.of(open_shards(str(shards)), "train", parse_buckets(TABLE), seed=3), set()
    for batch in batches(exact):
        for number, key in enumerate(batch.keys):
            sample = next(s for s in range(len(pixels)) if pixels.key(s) == key)
            views = pixels.whole(sample)
            if views["gt"].shape[1] == views["gt"].shape[0]:
                continue
            own = refiner.encode(batch.alone(number)).gt[0]
            square = {x: torch.tensor(views["gt"][:, x : x + 64]).permute(2, 0, 1)[None] for x in (0, 16, 32)}
            errors = {x: float((refiner.latents(each)[0] - own).abs().max()) for x, each in square.items()}
            closest = min(errors, key=errors.__getitem__)
            assert errors[closest] < 5e-3
            seen.add(closest)
    assert seen == {0, 16, 32}


def test_crops_of_latents_differ_from_encoded_crops_most_at_their_borders(shards, encoded, refiner):
    """Beyond its border the encoder sees the picture, where a crop of pixels has none."""
    samples = Samples.of(open_shards(str(shards)), "train", parse_buckets(TABLE), seed=3)
    wide = [views for views in map(samples.whole, range(len(samples))) if views["gt"].shape[1] == 96]
    border, inside = [], []
    for views in wide:
        picture = torch.tensor(views["gt"]).permute(2, 0, 1)[None]
        factor = refiner.crop_factor
        error = refiner.latents(picture)[..., 16 // factor : 80 // factor] - refiner.latents(picture[..., 16:80])
        columns = error.square().mean(dim=(0, 1, 2)).sqrt()
        border.append(float(columns[[0, -1]].mean()))
        inside.append(float(columns[len(columns) // 2]))
    assert np.mean(inside) < np.mean(border)


def test_workers_fill_what_one_process_fills(encoded):
    for one, other in zip(batches(encoded, 3), batches(encoded, 3, workers=2), strict=True):
        assert one.keys == other.keys
        assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


def test_ranks_write_what_one_process_writes_and_a_killed_run_goes_on(
    shards, encoded, tiny_base, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"

    def run(rank: int) -> str:
        world = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 2, "OMP_NUM_THREADS": 1}
        for name, value in world.items():
            monkeypatch.setenv(name, str(value))
        assert encode(shards, out, tiny_base, "--flips") == 0
        return capsys.readouterr().out

    assert "there already" not in run(1)
    assert not out.exists()
    (left,) = tmp_path.glob(".out.encoding/plan-*")
    (left / "shards" / "train-000000.tar.nowhere-1.partial").write_bytes(b"half")
    assert "2 of 2 shards are there already" in run(1)
    assert "digest" in run(0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {p.name: p.read_bytes() for p in encoded.iterdir()}


def test_a_second_run_into_the_same_folder_is_refused(shards, tiny_base, tmp_path, capsys):
    with Scratch(tmp_path / "out", "encode", "encoding").locked():
        assert encode(shards, tmp_path / "out", tiny_base) == 2
    assert "another process is encoding into" in capsys.readouterr().err


def test_a_run_that_was_killed_after_its_last_rename_is_gone_on_with(shards, encoded, tiny_base, tmp_path):
    out = shutil.copytree(encoded, tmp_path / "out")
    encoding = read_index(encoded).encoding
    assert encoding is not None
    (tmp_path / f".out.encoding/plan-{digest_of(encoding)}/sums").mkdir(parents=True)
    assert encode(shards, out, tiny_base, "--flips") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert encode(shards, out, tiny_base, "--flips") == 2  # what was not left by a kill is not touched


def test_latents_of_a_suspect_are_kept_for_replay(encoded, tmp_path):
    batch = batches(encoded, 1)[0].alone(1)
    told = {"key": batch.keys[0], "position": batch.positions[0], "rank": 0, "losses": {}, "drawn": {}}
    place = find_place(tmp_path, World(), lambda value: [value])
    write_event(tmp_path / "event", {"step": 1}, [Suspect(batch, told)], place, lambda value: [value])
    _, (kept,) = read_event(tmp_path / "event")
    assert kept.batch.keys == batch.keys and kept.batch.tensors.keys() == batch.tensors.keys()
    assert all(torch.equal(kept.batch.tensors[name], batch.tensors[name]) for name in batch.tensors)


def test_verify_finds_what_is_damaged(encoded, tmp_path, capsys):
    assert main(["verify", str(encoded)]) == 0
    copy = shutil.copytree(encoded, tmp_path / "copy")
    tar = copy / "train-000000.tar"
    content = bytearray(tar.read_bytes())
    content[700] ^= 1
    tar.write_bytes(content)
    assert main(["verify", str(copy)]) != 0
    assert ".render.latents has another crc32c than the index says" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--windows", "0"], "--windows 0: no crop would have an embedding"),
        (["--buckets", "1.0:62x62"], "crops of 62 pixels are no whole number of latents"),
    ],
)
def test_what_cannot_be_encoded_is_refused(shards, tiny_base, tmp_path, capsys, more, sentence):
    assert encode(shards, tmp_path / "out", tiny_base, *more) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_encoded_shards_cannot_give_is_refused(encoded, exact, tiny_base, tmp_path, capsys):
    def refused(folder: Path, table: str = TABLE, **more: object) -> str:
        with pytest.raises(UserError) as error:
            training_samples(open_shards(str(folder)), parse_buckets(table), seed=0, **more)
        return str(error.value)

    assert "to which the pictures in" in refused(encoded, "1.0:64x64")
    assert "--resampling window" in refused(encoded, resampling="window")
    assert "encode again with --flips" in refused(exact, random_flip=True)
    with pytest.raises(UserError, match="hold latents of the training pictures and not the pictures"):
        Samples.of(open_shards(str(encoded)), "train", parse_buckets(TABLE), seed=0)
    assert encode(encoded, tmp_path / "again", tiny_base) == 2
    assert "are encoded already" in capsys.readouterr().err


def test_the_index_says_how_they_were_made(shards, encoded):
    said = json.loads((encoded / "index.json").read_text())["encoding"]
    assert said["source"] == read_index(shards).digest and said["flips"] and said["precision"] == "fp16"
    assert parse_buckets(said["buckets"]) == parse_buckets(TABLE)
    held_out = [shard for shard in read_index(encoded).shards if shard.split == "val"]
    assert sum(shard.samples for shard in held_out) == 4
