"""A folder of shards, read where they lie."""

import pickle

import pytest

from refiner_ds.data.store.cache import CacheOptions
from refiner_ds.data.store.contract import StoredFile
from refiner_ds.data.store.opening import open_store
from refiner_ds.errors import UserError
from tests.data.store.shard_files import make_files, shards_of

SIZE = 10_001


@pytest.fixture
def packed(tmp_path):
    for name, content in make_files(3, SIZE).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "index.json").write_text("{}")
    return tmp_path


def test_a_folder_is_its_own_cache(packed):
    files = make_files(3, SIZE)
    store = pickle.loads(pickle.dumps(open_store(str(packed), CacheOptions(packed / "cache", SIZE))))
    shards = shards_of(files)
    store.plan(shards, lambda name: 0.0)
    store.prefetch(shards)
    for shard in shards:
        assert store.fetch(shard) == packed / shard.name and store.recheck(shard)
        assert store.read(shard.name, 17, 999) == files[shard.name][17:1016]
        store.release(shard)
    assert store.read_small("index.json") == b"{}" and not (packed / "cache").exists()
    store.close()


def test_what_is_missing_cut_or_damaged_is_told(packed):
    store, shards = open_store(str(packed)), shards_of(make_files(3, SIZE))
    (packed / shards[0].name).unlink()
    for call in (
        lambda: store.fetch(shards[0]),
        lambda: store.read(shards[0].name, 0, 1),
        lambda: store.read_small("a"),
    ):
        with pytest.raises(UserError, match=r"cannot be read \(No such file or directory\); name a folder"):
            call()
    (packed / shards[1].name).write_bytes(bytes(SIZE - 1))
    with pytest.raises(UserError, match=f"has {SIZE - 1} bytes where the index says {SIZE}.*copy it there again"):
        store.fetch(shards[1])
    with pytest.raises(UserError, match="has only 4 of the 5 bytes"):
        store.read(shards[1].name, SIZE - 5, 5)
    (packed / shards[2].name).write_bytes(bytes(SIZE))
    assert store.fetch(shards[2]) and [store.recheck(shard) for shard in shards] == [False] * 3
    assert not store.recheck(StoredFile(shards[2].name, SIZE + 1, shards[2].sha256))
