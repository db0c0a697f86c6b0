"""Recoded packing: every pixel as promised, the same bytes for any workers and after any kill, read by others too."""

import hashlib
import io
import itertools
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL
import pytest
import webdataset
from PIL import Image

from refiner_ds.cli import main
from refiner_ds.config.training import BUCKETS as BUCKETS_OF_TRAINING
from refiner_ds.data import images
from refiner_ds.data.buckets import bucket_of, parse_buckets, require_table
from refiner_ds.data.codecs import decode
from refiner_ds.data.codecs import tiff as tiff_room
from refiner_ds.data.index import Index, read_index
from refiner_ds.data.manifest import VIEWS, read_manifest
from refiner_ds.data.order import Draw
from refiner_ds.data.packing import recode as recode_room
from refiner_ds.data.packing.check import check
from refiner_ds.data.packing.look import problems_of
from refiner_ds.data.packing.plan import make_plan
from refiner_ds.data.packing.recode import Recoding
from refiner_ds.data.packing.write import Job, write, written_before
from refiner_ds.data.samples import Samples
from refiner_ds.data.shards import open_shards
from refiner_ds.data.verify import looks_of, verify
from refiner_ds.errors import UserError

TABLE = "1.0:64x64,1.5:67x60,2.0:97x40"
"""The size of the second one is nearer to the key of the first, so that a stored size does not tell its bucket."""
BUCKETS = parse_buckets(TABLE)
SIZES = [(64, 48), (48, 48), (80, 33), (96, 64), (65, 48), (40, 30)]
RECODINGS = {
    f"{codec}{' resized' * bool(buckets)}": Recoding(codec, 95, buckets)
    for codec, buckets in itertools.product(("tiff", "npy", "jpeg"), ((), BUCKETS))
}


@pytest.fixture(scope="module")
def small(dataset, tmp_path_factory):
    """The manifest of six small triplets; one render is a JPEG and one gt lies on its side and says so in its EXIF."""
    path = dataset(tmp_path_factory.mktemp("small"), SIZES)
    render, gt = path.parent / "render" / "002.png", path.parent / "gt" / "003.png"
    with Image.open(render) as picture:
        picture.convert("RGB").save(render, "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(gt) as picture:
        picture.transpose(Image.Transpose.ROTATE_90).save(gt, "PNG", exif=exif)
    return path


@pytest.fixture(scope="module", params=RECODINGS)
def packed(request, small, pack_dataset, tmp_path_factory) -> tuple[Index, Recoding]:
    """The triplets packed in one of the ways, and which; tests only read them."""
    recoding = RECODINGS[request.param]
    out = tmp_path_factory.mktemp("packed") / "out"
    return pack_dataset(small, out, val=2, shard_size=30_000, recoding=recoding), recoding


@pytest.fixture(scope="module")
def kept(small, pack_dataset, tmp_path_factory) -> Index:
    """The triplets packed as they are."""
    return pack_dataset(small, tmp_path_factory.mktemp("kept") / "out", val=2)


def hashes_of(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def expected_of(manifest: Path, number: int, view: str, recoding: Recoding) -> np.ndarray:
    """The pixels that training would compute from the source file, before it crops them."""
    picture = images.decode(read_manifest(manifest)[number].files[view].read_bytes())
    if recoding.buckets:
        bucket = recoding.buckets[bucket_of(*picture.size, recoding.buckets)]
        picture = picture.resize((bucket.width, bucket.height), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def pixels_of(content: bytes, name: str) -> np.ndarray:
    """As a program that knows nothing of ours reads them."""
    return np.load(io.BytesIO(content)) if name.endswith("npy") else np.asarray(Image.open(io.BytesIO(content)))


def test_every_pixel_is_kept_or_nearly_so(small, packed):
    index, recoding = packed
    shards = open_shards(str(index.folder))
    for row in range(len(index)):
        assert tuple(index.records[["width", "height"]][row]) == SIZES[int(index.key(row))], "those of the source"
        for view in VIEWS:
            kind, content = index.member(row, view).kind, shards.read(row, view)
            assert kind == {"tiff": "tif", "npy": "npy", "jpeg": "jpg"}[recoding.codec]
            expected, found = expected_of(small, int(index.key(row)), view, recoding), decode(content, kind)
            assert found.shape == expected.shape
            if recoding.codec == "jpeg":
                assert np.abs(found.astype(int) - expected).mean() < 2.5
            else:
                assert np.array_equal(found, expected)


def test_the_index_says_how_pictures_are_stored(packed):
    index, recoding = packed
    again = read_index(index.folder)
    assert again.codec == {"jpeg": "jpeg:95"}.get(recoding.codec, recoding.codec)
    assert again.buckets == (TABLE if recoding.buckets else None) == recoding.table


def crops_of(index: Index, resampling: str) -> dict[str, np.ndarray]:
    """Crops of all training samples by key, each drawn at positions that its key decides."""
    samples = Samples.of(open_shards(str(index.folder)), "train", BUCKETS, 5, random_flip=True, resampling=resampling)
    found = {}
    for number, bucket in enumerate(samples.bucket_of_sample):
        draws = [Draw(number, int(bucket), 10 * int(samples.key(number)) + place) for place in range(4)]
        found[samples.key(number)] = np.empty(samples.shape(draws), np.uint8)
        samples.fill(draws, found[samples.key(number)])
    return found


def test_training_on_lossless_ones_is_bit_for_bit_the_same(packed, kept):
    index, recoding = packed
    found, expected = crops_of(index, "exact"), crops_of(kept, "exact")
    assert found.keys() == expected.keys() and len(found) == 4
    most = 20 if recoding.codec == "jpeg" else 0
    assert all(np.abs(found[key].astype(int) - expected[key]).max() <= most for key in found)
    if recoding.buckets and not most:
        windows = crops_of(index, "window")
        assert all(np.array_equal(windows[key], expected[key]) for key in found), "nothing is resized"


def test_held_out_samples_have_the_stored_size(small, packed):
    index, recoding = packed
    held_out = Samples.of(open_shards(str(index.folder)), "val", BUCKETS, 0)
    for number in range(2):
        for view, picture in held_out.whole(number).items():
            expected = expected_of(small, int(held_out.key(number)), view, recoding)
            assert picture.shape == expected.shape and picture.dtype == np.uint8


def test_plain_webdataset_and_pillow_read_them(packed):
    index, _ = packed
    tars = sorted(str(path) for path in index.folder.glob("*.tar"))
    shards = open_shards(str(index.folder))
    rows = {index.key(row): row for row in range(len(index))}
    for sample in webdataset.WebDataset(tars, shardshuffle=False):
        for view in VIEWS:
            member = index.member(rows[sample["__key__"]], view)
            content = sample[f"{view}.{member.kind}"]
            assert content == shards.read(rows[sample["__key__"]], view)
            assert np.array_equal(pixels_of(content, member.kind), decode(content, member.kind))
    for sample in webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8"):
        member = index.member(rows[sample["__key__"]], "gt")
        expected = decode(shards.read(rows[sample["__key__"]], "gt"), member.kind)
        assert np.array_equal(sample[f"gt.{member.kind}"], expected)


@pytest.mark.parametrize("name", ["tiff resized", "jpeg"])
@pytest.mark.parametrize("workers", [2, 3])
def test_the_bytes_do_not_depend_on_the_workers(small, pack_dataset, tmp_path, workers, name):
    recoding = RECODINGS[name]
    one, other = (
        pack_dataset(small, tmp_path / str(n), val=2, shard_size=3_000, workers=n, recoding=recoding)
        for n in (1, workers)
    )
    assert len(one.shards) > 3 and hashes_of(one.folder) == hashes_of(other.folder)
    assert other.digest == one.digest


def test_a_stopped_run_goes_on_and_encodes_no_complete_shard_again(dataset, pack_dataset, tmp_path):
    many = dataset(tmp_path / "many", [(300, 200), (200, 200)] * 6)
    more = {"val": 2, "shard_size": 1, "recoding": RECODINGS["tiff resized"]}
    whole = hashes_of(pack_dataset(many, tmp_path / "whole", **more).folder)
    command = ["pack", f"test={many}", str(tmp_path / "out"), "--val", "2", "--shard_size", "1", "--workers", "1"]
    command += ["--recode", "tiff", "--resize", "--buckets", TABLE]
    process = subprocess.Popen([sys.executable, "-m", "refiner_ds", *command], stdout=subprocess.DEVNULL)
    scratch, deadline = tmp_path / ".out.packing", time.monotonic() + 60
    while not list(scratch.glob("plan-*/sums/train-*.tar")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    time.sleep(0.5)  # its worker ends with it
    names = [path.name for path in scratch.glob("plan-*/sums/train-*.tar")]
    kept = {name: next(scratch.glob(f"plan-*/shards/{name}")).stat().st_ino for name in names}
    assert 1 <= len(kept) < len(whole) - 3
    assert main(command) == 0
    assert hashes_of(tmp_path / "out") == whole
    assert all((tmp_path / "out" / name).stat().st_ino == inode for name, inode in kept.items())


def test_verify_knows_them_and_finds_damage(packed, tmp_path):
    index, _ = packed
    assert [problem for file in verify(index.folder, 1) for problem in file.problems] == []
    copied = tmp_path / "copied"
    copied.mkdir()
    for path in index.folder.iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    member, choose = index.member(0, "gt"), random.Random(0)
    content = bytearray((copied / member.shard).read_bytes())
    places = [0, 1, member.size - 1, *(choose.randrange(member.size) for _ in range(5))]
    look = next(looks_of(read_index(copied), with_lines=True))
    for place in places:
        changed = bytearray(content)
        changed[member.offset + place] ^= 1 << choose.randrange(8)
        (copied / member.shard).write_bytes(changed)
        found = problems_of(look)
        assert f"{member.shard}: {member.name} has another crc32c than the index says" in found
    content[member.offset : member.offset + 40] = bytes(40)
    (copied / member.shard).write_bytes(content)
    found = problems_of(look)
    assert sum(text.startswith(f"{member.shard}: {member.name} ") for text in found) == 2, found


def test_a_lossless_codec_that_loses_something_stops_packing(small, tmp_path, monkeypatch):
    sample, encode = read_manifest(small)[0], recode_room.encode_npy
    monkeypatch.setattr(recode_room, "encode_npy", lambda pixels: encode(pixels ^ np.uint8(1)))
    plan = make_plan([sample], [check(sample).checked], ["train"], ["a"], "list", 0, 1, Recoding("npy"))
    files = [tuple(sample.files[view] for view in VIEWS)]
    job = Job(tmp_path / "a.tar", tmp_path / "note", plan.records, files, plan.cards, plan.recoding)
    words = (
        r"picture .*render/000.png cannot be packed with --recode npy: it reads back from npy with other pixels; pack"
    )
    with pytest.raises(UserError, match=words):
        write(job)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    written = write(job)
    assert written_before(job).sha256 == written.sha256 == hashlib.sha256(job.path.read_bytes()).hexdigest()
    assert np.array_equal(written_before(job).records, written.records)
    job.note_path.write_text("{")
    assert written_before(job) is None


@pytest.mark.parametrize(("codec", "words"), [("jpeg", "1x65536 pixels, too many for JPEG"), ("tiff", "more than 9")])
def test_a_picture_that_is_too_large_for_a_codec_is_told(monkeypatch, codec, words):
    monkeypatch.setattr(tiff_room, "MOST_PIXELS", 9)
    buffer = io.BytesIO()
    Image.new("RGB", (1, 65536)).save(buffer, "PNG")
    with pytest.raises(images.PictureError, match=words):
        recode_room.recode(buffer.getvalue(), "png", Recoding(codec))


def test_other_options_or_libraries_do_not_go_on_with_the_shards_of_these(monkeypatch):
    recodings = [*RECODINGS.values(), Recoding(), Recoding("jpeg", 90), Recoding("tiff", 95, BUCKETS[:2])]
    assert len({recoding.identity for recoding in recodings}) == len(recodings)
    before = Recoding().identity, Recoding("tiff").identity
    monkeypatch.setattr(PIL, "__version__", "99")
    assert Recoding().identity == before[0] and Recoding("tiff").identity != before[1]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--resize", "--resize has no effect with --recode keep, which stores the bytes of the files; give --recode"),
        (
            "--jpeg_quality 90",
            "--jpeg_quality 90 has no effect with --recode keep, which stores no JPEG; give --recode",
        ),
        ("--recode jpeg --jpeg_quality 0", "--jpeg_quality 0 is no quality, so nothing can be encoded; give 1 to 100"),
        ("--recode npy --buckets 1:64x64", "--buckets 1:64x64 has no effect without --resize, as pictures keep their"),
        (
            "--recode npy --resize --buckets 1:64",
            "--buckets '1:64' is no KEY:WIDTHxHEIGHT, so pictures cannot be sized",
        ),
    ],
)
def test_flags_that_contradict_each_other_are_refused(small, tmp_path, capsys, flags, words):
    assert main(["pack", str(small), str(tmp_path / "out"), *flags.split()]) == 2
    assert words in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_the_command_packs_as_it_is_told(small, tmp_path):
    command = ["pack", str(small), str(tmp_path / "out"), "--val", "2", "--workers", "1"]
    assert main([*command, "--recode", "jpeg", "--jpeg_quality", "80", "--resize"]) == 0
    index = read_index(tmp_path / "out")
    assert (index.codec, index.buckets) == ("jpeg:80", BUCKETS_OF_TRAINING)


def test_training_needs_the_buckets_that_pictures_were_resized_to():
    require_table(BUCKETS, None, "shards")
    require_table(BUCKETS, "1:64x64,1.50:67x60,2:97x40", "shards")
    others = parse_buckets("1.0:64x64,1.5:96x64")
    with pytest.raises(UserError) as caught:
        require_table(others, TABLE, "shards/a")
    assert str(caught.value) == (
        f"--buckets 1.0:64x64,1.5:96x64 differs from {TABLE}, to which the pictures in shards/a were resized when they "
        f"were packed, so they would be resized twice or cut from another size; train with --buckets {TABLE}, or pack "
        "again."
    )
