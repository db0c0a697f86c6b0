"""The stream: the same batches for any workers and from any step on, one crop for all views, broken samples named."""

import os
import random
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from refiner_ds.batch import Batch
from refiner_ds.data import shards as shards_room
from refiner_ds.data.buckets import parse_buckets
from refiner_ds.data.index import read_index
from refiner_ds.data.manifest import VIEWS, read_manifest
from refiner_ds.data.samples import Samples
from refiner_ds.data.shards import open_shards
from refiner_ds.data.stream import Stream, whole
from refiner_ds.errors import UserError

BUCKETS = parse_buckets("1.0:64x64,1.5:96x64")
GLOBAL_BATCH_SIZE = 4
STEPS = 6


def stream_of(
    folder, workers=0, micro_batch_size=2, rank=0, num_ranks=1, seed=3, random_flip=False, replaces=False
) -> Stream:
    samples = Samples.of(open_shards(str(folder)), "train", BUCKETS, seed, random_flip, replaces)
    order = samples.order(GLOBAL_BATCH_SIZE)
    return Stream(samples, order, micro_batch_size, rank, num_ranks, workers)


def assert_equal(first: list[Batch], second: list[Batch]) -> None:
    assert [batch.keys for batch in first] == [batch.keys for batch in second]
    assert [batch.positions for batch in first] == [batch.positions for batch in second]
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(getattr(one, view), getattr(other, view)) for view in VIEWS)


@pytest.fixture(scope="module")
def batches(shards):
    """Twelve micro-batches of two, read without workers: what everything else is compared with."""
    return list(stream_of(shards).batches(0, STEPS))


def test_batches_are_aligned_bytes_of_one_bucket(batches):
    assert len(batches) == STEPS * GLOBAL_BATCH_SIZE // 2
    for batch in batches:
        assert len(batch) == 2
        for view in VIEWS:
            pictures = getattr(batch, view)
            assert pictures.dtype == torch.uint8 and pictures.shape == (2, 3, 64, 64)
            assert float(pictures.float().std()) > 5
    assert [position for batch in batches for position in batch.positions] == list(range(STEPS * GLOBAL_BATCH_SIZE))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(shards, batches, workers):
    assert_equal(list(stream_of(shards, workers).batches(0, STEPS)), batches)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_from_a_later_step_goes_on_as_the_whole_does(shards, batches, workers):
    assert_equal(list(stream_of(shards, workers).batches(4, STEPS)), batches[4 * GLOBAL_BATCH_SIZE // 2 :])


def test_ranks_and_micro_batches_do_not_change_the_pictures(shards, batches):
    of_one_sample = [
        list(stream_of(shards, micro_batch_size=1, rank=rank, num_ranks=2).batches(0, STEPS)) for rank in range(2)
    ]
    found = {batch.positions[0]: batch for stream in of_one_sample for batch in stream}
    assert sorted(found) == list(range(STEPS * GLOBAL_BATCH_SIZE))
    for batch in batches:
        for place, position in enumerate(batch.positions):
            assert found[position].keys == (batch.keys[place],)
            assert torch.equal(found[position].render[0], batch.render[place])


def test_flips_mirror_about_half_of_the_samples_all_views_alike(shards):
    plain, flipped = (list(stream_of(shards, random_flip=on).batches(0, 4 * STEPS)) for on in (False, True))
    mirrored = 0
    for one, other in zip(plain, flipped, strict=True):
        assert one.positions == other.positions
        for place in range(len(one)):
            pairs = [(getattr(one, view)[place], getattr(other, view)[place]) for view in VIEWS]
            is_mirrored = torch.equal(pairs[0][1], pairs[0][0].flip(-1))
            assert all(torch.equal(after, before.flip(-1) if is_mirrored else before) for before, after in pairs)
            mirrored += is_mirrored
    assert 0.3 < mirrored / (4 * STEPS * GLOBAL_BATCH_SIZE) < 0.7
    assert_equal(list(stream_of(shards, workers=1, random_flip=True).batches(0, 4 * STEPS)), flipped)


def test_another_seed_is_another_stream(shards, batches):
    other = list(stream_of(shards, seed=4).batches(0, STEPS))
    assert [batch.keys for batch in other] != [batch.keys for batch in batches]


def test_all_views_are_cut_at_one_place_that_varies(dataset, pack_dataset, tmp_path):
    manifest = dataset(tmp_path / "same", [(120, 80)] * 2)
    for sample in read_manifest(manifest):
        for view in ("render", "cond"):
            shutil.copy(sample.files["gt"], sample.files[view])
    pack_dataset(manifest, tmp_path / "out", val=0)
    resized = [
        np.asarray(Image.open(sample.files["gt"]).resize((96, 64), Image.Resampling.LANCZOS)).transpose(2, 0, 1)
        for sample in read_manifest(manifest)
    ]
    places = []
    for batch in stream_of(tmp_path / "out").batches(0, 15):
        assert torch.equal(batch.render, batch.gt) and torch.equal(batch.cond, batch.gt)
        for key, picture in zip(batch.keys, batch.gt.numpy(), strict=True):
            windows = [x for x in range(33) if np.array_equal(resized[int(key)][:, :, x : x + 64], picture)]
            assert len(windows) == 1
            places += windows
    assert len(set(places)) > 15 and min(places) < 4 and max(places) > 28


def test_a_held_out_sample_is_read_at_its_own_size(shards, manifest):
    samples = Samples.of(open_shards(str(shards)), "val", BUCKETS, 0)
    assert len(samples) == 4
    for number, sample in enumerate(read_manifest(manifest)[-4:]):
        batch = whole(samples, number)
        assert batch.positions == (number,) and batch.keys == (f"{20 + number:08d}",)
        for view in VIEWS:
            expected = np.asarray(Image.open(sample.files[view])).transpose(2, 0, 1)
            assert np.array_equal(getattr(batch, view)[0].numpy(), expected)


@pytest.fixture
def damaged(shards, tmp_path):
    """Shards whose cond pictures of all training samples are overwritten."""
    folder = tmp_path / "damaged"
    shutil.copytree(shards, folder)
    index = read_index(folder)
    for row in index.rows("train"):
        shard, _, offset, size, _ = index.member(row, "cond")
        with (folder / shard).open("r+b") as file:
            file.seek(offset)
            file.write(random.Random(0).randbytes(size))
    return folder


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_sample_is_named_with_its_shard(damaged, workers):
    stream = stream_of(damaged, workers)
    draw = stream.order.global_batch(0)[0]
    member = stream.samples.shards.index.member(stream.samples.rows[draw.sample], "cond")
    with pytest.raises(UserError) as caught:
        next(iter(stream.batches(0, 1)))
    sentence = str(caught.value)
    assert sentence.startswith(f"sample {member.name} in {damaged / member.shard} cannot be used: has other bytes")
    assert sentence.endswith(f"`refiner-ds verify {damaged}` lists all that is broken.")


def test_few_shards_are_open_at_once_however_many_there_are(shards, monkeypatch):
    monkeypatch.setattr(shards_room, "OPEN_SHARDS", 2)
    samples = Samples.of(open_shards(str(shards)), "train", BUCKETS, 0)
    assert len(set(samples.shards.index.records["shard"][samples.rows])) > 2
    before = len(os.listdir("/dev/fd"))
    for number in [*range(len(samples)), *reversed(range(len(samples)))]:
        assert whole(samples, number).keys == (samples.key(number),)
        assert len(os.listdir("/dev/fd")) <= before + 2


def test_shards_that_end_early_or_are_gone_are_named(shards, tmp_path):
    folder = tmp_path / "shards"
    shutil.copytree(shards, folder)
    samples = Samples.of(open_shards(str(folder)), "val", BUCKETS, 0)
    key, (shard, _, offset, size, _) = samples.key(0), samples.shards.index.member(samples.rows[0], "gt")
    os.truncate(folder / shard, offset + 100)
    with pytest.raises(UserError, match=rf"{key}.gt.png in {folder / shard} .* ends after 100 of {size} bytes"):
        whole(samples, 0)
    (folder / shard).unlink()
    with pytest.raises(UserError, match=rf"{key}.render.png in {folder / shard} cannot be used: .*No such file"):
        whole(Samples.of(open_shards(str(folder)), "val", BUCKETS, 0), 0)


def test_a_broken_sample_is_replaced_by_one_of_its_bucket_and_told(shards, tmp_path):
    """By the same one whatever workers and ranks there are; the other samples stay as they were."""
    folder = shutil.copytree(shards, tmp_path / "shards")
    index = read_index(folder)
    row = int(index.rows("train")[5])
    member = index.member(row, "gt")
    with (folder / member.shard).open("r+b") as file:
        file.seek(member.offset + member.size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(UserError, match=rf"{member.name} in .*{member.shard} cannot be used: has other bytes"):
        list(stream_of(folder).batches(0, STEPS))
    whole = list(stream_of(shards).batches(0, STEPS))
    for workers in (0, 1):
        found = list(stream_of(folder, workers, replaces=True).batches(0, STEPS))
        met = 0
        for before, after in zip(whole, found, strict=True):
            assert before.positions == after.positions
            for place, key in enumerate(before.keys):
                if key == index.key(row):
                    met += 1
                    assert after.keys[place] != key and after.render[place].shape == before.render[place].shape
                else:
                    assert after.keys[place] == key and torch.equal(after.gt[place], before.gt[place])
            assert len(after.replaced) == before.keys.count(index.key(row))
            assert all(member.name in sentence for sentence in after.replaced)
        assert met
