"""Packing that is stopped, even by kill -9: the same command goes on, and nobody can tell from the result."""

import hashlib
import multiprocessing
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from refiner_ds.data.index import Dataset, read_index
from refiner_ds.data.manifest import Sample, read_manifest
from refiner_ds.data.pack import Recipe, pack
from refiner_ds.data.packing.check import Checked, Finding, Findings, check
from refiner_ds.errors import UserError

COUNT = 40


@pytest.fixture(scope="module")
def many(dataset, tmp_path_factory):
    """The manifest of forty small triplets."""
    return dataset(tmp_path_factory.mktemp("many"), [(96, 64)] * COUNT)


@pytest.fixture(scope="module")
def whole(many, tmp_path_factory):
    """Hashes of what an uninterrupted run packs, each sample in a shard of its own."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    pack_many(many, folder)
    return hashes_of(folder)


def pack_many(manifest: Path, out: Path, workers: int = 2, shard_size: int = 1, **more):
    samples = read_manifest(manifest)
    splits = ["train"] * (COUNT - 4) + ["val"] * 4
    datasets = [Dataset("manifest", 1.0, str(manifest), 0)]
    return pack(samples, splits, datasets, out, Recipe(shard_size=shard_size), workers, **more)


def hashes_of(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def stop_at(phase: str, count: int):
    def tell(what: str, done: int, total: int, size: int) -> None:
        if what == phase and done >= count:
            raise KeyboardInterrupt

    return tell


@pytest.mark.parametrize("stop", [("checking", 8), ("checking", COUNT), ("writing", 1), ("writing", COUNT)])
def test_a_run_that_is_stopped_is_gone_on_with(many, whole, tmp_path, stop):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        pack_many(many, out, tell=stop_at(*stop))
    assert [path.name for path in tmp_path.iterdir()] == [".out.packing"]
    scratch = tmp_path / ".out.packing"
    checked = len(scratch.joinpath("checked.jsonl").read_text().split())
    assert checked >= min(stop[1], COUNT)
    kept = {path.name: path.stat().st_ino for path in scratch.glob("plan-*/shards/train-*.tar")}
    assert len(kept) >= (stop[0] == "writing")
    pack_many(many, out)
    assert hashes_of(out) == whole and [path.name for path in tmp_path.iterdir()] == ["out"]
    assert all((out / name).stat().st_ino == inode for name, inode in kept.items()), "complete shards are kept"


def test_what_was_decoded_is_not_decoded_again_unless_its_file_changes(many, tmp_path):
    sample = read_manifest(many)[0]
    found = check(sample)
    assert isinstance(found.checked, Checked) and found.problem is None
    path = tmp_path / "checked.jsonl"
    with Findings(path) as findings:
        findings.add([sample], [found])
    path.write_text(path.read_text() + '["cut off by a k')
    with Findings(path) as findings:
        assert findings.of(sample) == found
    invented = Finding(found.times, Checked(1, 1, (1, 1, 1), (1, 1, 1), (0, 0, 0)))
    assert check(sample, invented) is invented, "nothing is decoded"
    other = Sample({**sample.files, "gt": tmp_path / "gt.png"}, sample.sources)
    (tmp_path / "gt.png").write_bytes(sample.files["gt"].read_bytes())
    assert check(other, invented) != invented
    known = check(other)
    os.utime(tmp_path / "gt.png", ns=(5, 5))
    assert check(other, known) == known._replace(times=(known.times[0], (known.times[1][0], 5), known.times[2]))


def test_other_pictures_or_options_clear_what_another_plan_has_written(many, whole, tmp_path):
    said = []
    out, scratch = tmp_path / "out", tmp_path / ".out.packing"
    with pytest.raises(KeyboardInterrupt):
        pack_many(many, out, shard_size=40_000, tell=stop_at("writing", 1))
    (other,) = scratch.glob("plan-*")
    pack_many(many, out, say=said.append)
    assert said == [f"{other} holds shards of other pictures or options; clearing them"]
    assert hashes_of(out) == whole


def test_a_picture_that_changes_between_check_and_writing_is_not_packed(dataset, tmp_path):
    manifest = dataset(tmp_path / "data", [(96, 64)] * COUNT)
    picture = tmp_path / "data" / "gt" / "003.png"
    content = picture.read_bytes()

    def meddle(what: str, done: int, total: int, size: int) -> None:
        if (what, done) == ("checking", COUNT):
            picture.write_bytes((tmp_path / "data" / "gt" / "004.png").read_bytes())

    with pytest.raises(UserError, match=rf"picture {picture} has changed since it was checked.*pack again, which goes"):
        pack_many(manifest, tmp_path / "out", tell=meddle)
    picture.write_bytes(content)
    pack_many(manifest, tmp_path / "out")
    fresh = pack_many(manifest, tmp_path / "fresh")
    assert read_index(tmp_path / "out").digest == fresh.digest


def test_two_packers_at_once_are_kept_apart(many, tmp_path):
    out, sentences = tmp_path / "out", []

    def pack_too(what: str, done: int, total: int, size: int) -> None:
        if (what, done) == ("checking", COUNT):
            with pytest.raises(UserError) as caught:
                pack_many(many, out)
            sentences.append(str(caught.value))

    pack_many(many, out, tell=pack_too)
    words = f"another process is packing into {out}, and two would undo each other's work; wait for it, or name another"
    assert len(sentences) == 1 and sentences[0].startswith(words)
    with pytest.raises(UserError, match="is not empty, and packing would mix two data sets"):
        pack_many(many, out)


def start(manifest: Path, out: Path, **more) -> subprocess.Popen:
    command = ["pack", str(manifest), str(out), "--val", "4", "--shard_size", "1", "--workers", "2"]
    return subprocess.Popen(
        [sys.executable, "-m", "refiner_ds", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def test_a_worker_that_is_killed_is_told_and_gone_on_with(many, whole, tmp_path):
    def kill(what: str, done: int, total: int, size: int) -> None:
        if what == "writing":
            for child in multiprocessing.active_children():
                child.kill()

    with pytest.raises(
        UserError, match=r"one of the --workers 2 processes was killed \(out of memory\?\).*start it again"
    ):
        pack_many(many, tmp_path / "out", tell=kill)
    pack_many(many, tmp_path / "out")
    assert hashes_of(tmp_path / "out") == whole


def test_a_disk_that_takes_no_more_is_told_in_one_sentence(many, whole, tmp_path):
    def take_no_large_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000))

    process = start(many, tmp_path / "out", preexec_fn=take_no_large_files)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 2 and len(error.splitlines()) == 1
    assert re.search(
        r"^refiner-ds pack: shard .*000000.tar cannot be written \(File too large\); make room or mend", error
    )
    pack_many(many, tmp_path / "out")
    assert hashes_of(tmp_path / "out") == whole


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def progress_in(scratch: Path) -> int:
    """Samples checked and shards written by now."""
    findings = scratch / "checked.jsonl"
    checked = findings.read_text().count("]\n") if findings.exists() else 0
    return checked + len(list(scratch.glob("plan-*/sums/*")))


@pytest.mark.slow
def test_after_kills_at_any_moment_the_result_is_the_same_byte_for_byte(many, whole, tmp_path):
    out, scratch, choose = tmp_path / "out", tmp_path / ".out.packing", random.Random(0)
    kills = 0
    for goal in sorted(choose.randrange(2 * COUNT) for _ in range(8)):
        process = start(many, out)
        while process.poll() is None and progress_in(scratch) < goal:
            time.sleep(0.001)
        time.sleep(choose.random() * 0.01)
        children = children_of(process.pid) if process.poll() is None else []
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        kills += process.returncode == -signal.SIGKILL
        deadline = time.monotonic() + 10
        while any(map(is_alive, children)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not any(map(is_alive, children)), "workers end with their parent"
        if out.exists():
            break
    assert kills >= 4
    if not out.exists() or scratch.exists():
        process = start(many, out)
        assert (process.wait(timeout=120), process.communicate()[1]) == (0, "")
    assert hashes_of(out) == whole and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_kill_right_after_the_last_rename_is_gone_on_with_too(many, whole, tmp_path):
    out, scratch = tmp_path / "out", tmp_path / ".out.packing"
    with pytest.raises(KeyboardInterrupt):
        pack_many(many, out, tell=stop_at("checking", COUNT))
    kept = scratch.joinpath("checked.jsonl").read_bytes()
    index = pack_many(many, out)
    scratch.mkdir()
    scratch.joinpath("checked.jsonl").write_bytes(kept)
    with pytest.raises(UserError, match="is not empty"):
        pack_many(many, out)
    # as it is between the rename and the end
    assert pack_many_after_rename(many, out, scratch).digest == index.digest
    assert hashes_of(out) == whole and not scratch.exists()


def pack_many_after_rename(manifest: Path, out: Path, scratch: Path):
    out.rename(out.with_name("aside"))
    with pytest.raises(KeyboardInterrupt):
        pack_many(manifest, out, tell=stop_at("writing", 1))
    (plan,) = scratch.glob("plan-*")
    for path in plan.joinpath("shards").iterdir():
        path.unlink()
    plan.joinpath("shards").rmdir()
    out.with_name("aside").rename(out)
    with pytest.raises(UserError, match="is not empty"):
        pack_many(manifest, out, shard_size=40_000)
    return pack_many(manifest, out)
