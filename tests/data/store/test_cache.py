"""The cache in one process: its limit, what is held, what somebody deleted or damaged, and what does not fit."""

import hashlib
import os
import pickle
import threading
import warnings

import pytest

from refiner_ds.data.store.cache import Answer, Cache, CacheOptions
from refiner_ds.data.store.contract import StoredFile
from refiner_ds.data.store.files import Part
from refiner_ds.data.store.opening import open_store
from refiner_ds.errors import UserError
from tests.data.store.shard_files import BLOCK, QUICK, bytes_in, kinds_in, make_files, shards_of
from tests.data.store.web_server import Web

SIZE = 16 * BLOCK


@pytest.fixture
def web():
    with Web(make_files(6, SIZE)) as server:
        yield server


@pytest.fixture
def shards(web):
    return shards_of(web.files)


@pytest.fixture
def opened(web, tmp_path):
    """`opened(room)` opens a store whose cache holds `room` shards."""
    stores = []

    def open_one(room: float = 3, **more):
        stores.append(open_store(web.url, CacheOptions(tmp_path / "cache", int(room * SIZE)), QUICK, **more))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


def test_the_limit_is_kept_and_what_is_held_stays(opened, web, shards, tmp_path):
    said = []
    store = opened(3, warn=said.append)
    paths = [store.fetch(shard) for shard in shards[:3]]
    assert all(paths) and bytes_in(tmp_path / "cache") == 3 * SIZE
    assert store.fetch(shards[3]) is None and store.fetch(shards[4]) is None, "all three are in use"
    assert len(said) == 1 and "has no room for" in said[0] and "give the cache more room" in said[0]
    store.release(shards[1])
    path = store.fetch(shards[3])
    assert path and path.read_bytes() == web.files[shards[3].name] and bytes_in(tmp_path / "cache") == 3 * SIZE
    assert not paths[1].exists() and paths[0].read_bytes() == web.files[shards[0].name] and paths[2].exists()


def test_every_fetch_needs_its_release(opened, shards):
    store = opened(1)
    assert store.fetch(shards[0]) == store.fetch(shards[0])
    store.release(shards[0])
    assert store.fetch(shards[1]) is None
    store.release(shards[0])
    store.release(shards[0])  # one too many does nothing
    assert store.fetch(shards[1]) and store.fetch(shards[0]) is None


@pytest.mark.parametrize("room", [0.5, 1 - 1 / SIZE])
def test_a_shard_that_does_not_fit_is_read_by_ranges_with_one_warning(opened, web, shards, room):
    store = opened(room)
    with pytest.warns(UserWarning, match=f"has {SIZE} bytes, more than the cache limit of .*one by one.*more room[.]$"):
        assert store.fetch(shards[0]) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.fetch(shards[1]) is None
        assert store.read(shards[1].name, 77, 1000) == web.files[shards[1].name][77:1077]
    assert len(web.asked) == 1


def test_one_shard_of_room_is_enough(opened, web, shards, tmp_path):
    store = opened(1)
    for shard in [*shards, *shards[::-1]]:
        path = store.fetch(shard)
        assert path and path.read_bytes() == web.files[shard.name] and bytes_in(tmp_path / "cache") == SIZE
        store.release(shard)
    assert len(web.asked) == 2 * len(shards) - 1


def test_equal_names_of_two_datasets_never_meet(opened, web, tmp_path):
    with Web(make_files(6, SIZE, seed=9)) as other:
        options = CacheOptions(tmp_path / "cache", 20 * SIZE)
        mine, theirs = open_store(web.url, options, QUICK), open_store(other.url, options, QUICK)
        for shard, twin in zip(shards_of(web.files), shards_of(other.files), strict=True):
            assert shard.name == twin.name
            for store, wanted, server in ((mine, shard, web), (theirs, twin, other)):
                path = store.fetch(wanted)
                assert path and path.read_bytes() == server.files[wanted.name]
        mine.close()
        theirs.close()


def test_the_same_shard_at_two_places_is_downloaded_once(opened, web, shards):
    with Web(dict(web.files)) as mirror:
        assert opened(3).fetch(shards[0])
        store = open_store(mirror.url, CacheOptions(opened(3).cache.folder, 3 * SIZE), QUICK)
        assert store.fetch(shards[0]) and mirror.asked == []
        store.close()


def test_a_deleted_shard_is_fetched_again_even_while_held(opened, web, shards):
    store = opened(2)
    path = store.fetch(shards[0])
    path.unlink()
    assert store.fetch(shards[0]).read_bytes() == web.files[shards[0].name] and web.times(shards[0].name) == 2
    store.release(shards[0])
    store.release(shards[0])
    assert store.fetch(shards[1]) and store.fetch(shards[2]), "nothing is held by mistake"


def test_a_deleted_folder_is_made_again(opened, web, shards, tmp_path):
    store = opened(2)
    path = store.fetch(shards[0])
    (tmp_path / "cache").rename(tmp_path / "away")
    assert store.fetch(shards[0]) == path and store.fetch(shards[1]) and len(web.asked) == 3


def test_a_shard_that_was_cut_is_noticed_by_every_fetch(opened, web, shards):
    for store in (opened(3), opened(3)):
        path = store.fetch(shards[0])
        os.truncate(path, SIZE // 2)
        again = store.fetch(shards[0])
        assert again == path and again.read_bytes() == web.files[shards[0].name]
    assert web.times(shards[0].name) == 3


def test_a_shard_that_was_changed_is_noticed_by_a_recheck_and_then_fetched_again(opened, web, shards, tmp_path):
    store, other = opened(2), opened(2)
    path = store.fetch(shards[0])
    assert other.fetch(shards[0]) == path and store.recheck(shards[0])
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(bytes(8))
    assert not store.recheck(shards[0])
    assert kinds_in(tmp_path / "cache") == {".old": 1}, "it is in use, so its space still counts"
    assert store.fetch(shards[0]).read_bytes() == web.files[shards[0].name]
    assert store.recheck(shards[0]) and store.fetch(shards[1]) is None
    other.release(shards[0])
    assert store.fetch(shards[1]) and kinds_in(tmp_path / "cache") == {".shard": 2}
    assert other.fetch(shards[0]).read_bytes() == web.files[shards[0].name] and web.times(shards[0].name) == 2
    (tmp_path / "cache" / f"{shards[0].sha256}.shard").unlink()
    assert not store.recheck(shards[0]), "a copy that is gone is worth fetching again"


def test_what_dead_processes_left_goes_and_what_is_not_ours_stays(opened, shards, tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    for name in (f"{shards[0].sha256}.part", f"{'0' * 64}.part", f"{'1' * 64}-77.old"):
        (folder / name).write_bytes(bytes(SIZE))
    (folder / "notes.txt").write_text("mine")
    store = opened(1)
    assert kinds_in(folder) == {".txt": 1}
    (folder / f"{shards[0].sha256}.part").write_bytes(bytes(SIZE))
    assert store.fetch(shards[0]) and kinds_in(folder) == {".txt": 1, ".shard": 1}


def test_a_smaller_limit_evicts_at_once_and_the_least_recently_used_first(opened, shards, tmp_path):
    store = opened(6)
    for shard in [*shards, shards[0]]:
        store.fetch(shard)
        store.release(shard)
    opened(2.5)
    assert {path.stem for path in (tmp_path / "cache").glob("*.shard")} == {shards[5].sha256, shards[0].sha256}


def test_the_plan_decides_what_goes(opened, web, shards, tmp_path):
    store, now = opened(3), [0]
    order = [0, 1, 2, 3, 0, 4, 1, 2, 5, 0]
    uses = {shard.name: [place for place, number in enumerate(order) if shards[number] == shard] for shard in shards}
    store.plan(shards, lambda name: next((place for place in uses[name] if place > now[0]), float("inf")))
    for now[0], number in enumerate(order):
        assert store.fetch(shards[number])
        store.release(shards[number])
    # 2 makes room for 3, then 3 for 4 and 4 for 2, neither of which comes again; last 1 or 2 goes for 5
    assert len(web.asked) == 7 and web.times(shards[0].name) == web.times(shards[1].name) == 1


def test_a_store_can_be_sent_to_a_worker(opened, web, shards):
    store = opened(2, progress=lambda *told: None)
    store.plan(shards, len)
    path = store.fetch(shards[0])
    sent = pickle.loads(pickle.dumps(store))
    assert sent.fetch(shards[0]) == path and len(web.asked) == 1
    store.release(shards[0])
    assert sent.fetch(shards[1]) and sent.fetch(shards[2]) is None, "what it holds is its own"
    sent.close()
    assert store.fetch(shards[2])


def test_a_part_that_somebody_deletes_is_started_again(opened, web, shards, tmp_path):
    cache = Cache(CacheOptions(tmp_path / "cache", 2 * SIZE))
    part = cache.request(shards[0], lambda name: 0.0)
    assert isinstance(part, Part) and cache.request(shards[0], lambda name: 0.0) is Answer.BUSY
    part.path.unlink()
    store = opened(2)
    assert store.fetch(shards[0])
    assert cache.finish(part) is None and kinds_in(tmp_path / "cache") == {".shard": 1}


def test_a_disk_with_less_room_than_the_limit_sets_the_limit(tmp_path):
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail * disk.f_frsize
    cache = Cache(CacheOptions(tmp_path / "cache", 100 * free))
    huge = StoredFile("huge.tar", 2 * free, hashlib.sha256(b"").hexdigest())
    assert cache.request(huge, lambda name: 0.0) is Answer.FULL and kinds_in(tmp_path / "cache") == {}


def test_a_cache_that_cannot_be_is_refused_in_words(tmp_path, web):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        open_store(web.url, CacheOptions(tmp_path / "file", SIZE))
    with pytest.raises(UserError, match=r"cache limit is 0 bytes.*at least a shard's size"):
        open_store(web.url, CacheOptions(tmp_path / "cache", 0))


def test_one_who_waits_takes_over_when_the_first_gives_up(opened, web, shards, tmp_path):
    cache = Cache(CacheOptions(tmp_path / "cache", SIZE))
    part = cache.request(shards[0], lambda name: 0.0)
    assert isinstance(part, Part)
    threading.Timer(0.3, cache.abandon, [part]).start()
    assert opened(1).fetch(shards[0]).read_bytes() == web.files[shards[0].name]


def test_small_files_beside_the_shards_count_and_stay_as_long_as_they_are_of_use(opened, shards, tmp_path):
    store, folder = opened(3), tmp_path / "cache"
    for shard in shards[:3]:
        store.fetch(shard)
        store.release(shard)
    cache = Cache(CacheOptions(folder, 3 * SIZE))
    cache.place("one.index/samples.npy", b"i" * BLOCK).release()
    plan = cache.place("run.plan", b"p" * BLOCK)
    assert kinds_in(folder) == {".shard": 2, ".index": 1, ".plan": 1}
    assert cache.place("run.plan", b"q").path.read_bytes() == b"q", "in place of the one before"
    plan.release()
    with pytest.raises(
        UserError, match=r"has no room for the 196609 bytes of big.plan, as its limit is 196608 bytes.*"
    ):
        cache.place("big.plan", bytes(3 * SIZE + 1))
    (folder / "cut.placing").write_bytes(b"by a kill")
    Cache(CacheOptions(folder, 3 * SIZE))
    assert kinds_in(folder) == {".shard": 2, ".index": 1, ".plan": 1}
    assert store.fetch(shards[3]) and kinds_in(folder)[".shard"] == 2
