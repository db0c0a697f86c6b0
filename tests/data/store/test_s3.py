"""Shards on S3, through s3fs and a real server; other file systems of fsspec, and those that are not installed."""

import sys

import boto3
import fsspec
import pytest

from refiner_ds.data.store import filesystem
from refiner_ds.data.store.cache import CacheOptions
from refiner_ds.data.store.contract import StoredFile
from refiner_ds.data.store.opening import open_store
from refiner_ds.data.store.retry import Retry
from refiner_ds.errors import UserError
from tests.data.store.s3_server import BUCKET, S3
from tests.data.store.shard_files import QUICK, kinds_in, make_files, shards_of

SIZE = 300_007
URL = f"s3://{BUCKET}/packed"
FILES = make_files(4, SIZE)


@pytest.fixture(scope="module")
def server():
    """An S3 server that holds FILES, found as anyone's is: by the variables of AWS."""
    with S3() as s3, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", s3.url)
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        for name, content in {**FILES, "index.json": b"{}"}.items():
            client.put_object(Bucket=BUCKET, Key=f"packed/{name}", Body=content)
        fsspec.filesystem("s3").clear_instance_cache()
        yield s3
        fsspec.filesystem("s3").clear_instance_cache()


@pytest.fixture
def s3(server):
    server.asked.clear()
    server.faults.clear()
    return server


@pytest.fixture
def store(s3, tmp_path):
    opened = open_store(URL, CacheOptions(tmp_path / "cache", 3 * SIZE), QUICK)
    yield opened
    opened.close()


def test_shards_come_through_the_cache_and_ranges_past_it(s3, store, tmp_path):
    shards = shards_of(FILES)
    assert store.read_small("index.json") == b"{}"
    for shard in [*shards[:2], *shards[:2]]:
        path = store.fetch(shard)
        assert path and path.read_bytes() == FILES[shard.name]
    assert store.read(shards[3].name, 1000, 5000) == FILES[shards[3].name][1000:6000]
    assert s3.asked == [
        ("packed/index.json", ""),
        (f"packed/{shards[0].name}", f"bytes=0-{SIZE - 1}"),
        (f"packed/{shards[1].name}", f"bytes=0-{SIZE - 1}"),
        (f"packed/{shards[3].name}", "bytes=1000-5999"),
    ]
    assert kinds_in(tmp_path / "cache") == {".shard": 2}


def test_a_shard_comes_in_pieces_and_ahead(s3, store, monkeypatch):
    monkeypatch.setattr(filesystem, "PIECE", 100_000)
    shards = shards_of(FILES)
    store.prefetch(shards[:2])
    for shard in shards[:2]:
        assert store.fetch(shard).read_bytes() == FILES[shard.name]
    assert len(s3.asked) == 8


@pytest.mark.parametrize(
    "faults", [[503] * 3, [500, 503], [429], ["cut"] * 3, ["corrupt"] * 2, ["cut", 503, "corrupt"]]
)
def test_faults_are_survived(s3, store, faults):
    shard = shards_of(FILES)[0]
    s3.faults.extend(faults)
    assert store.fetch(shard).read_bytes() == FILES[shard.name] and not s3.faults


@pytest.mark.parametrize(
    ("fault", "said"), [("cut", r"only \d+ of 300007 bytes came"), (503, r"OSError \(Service Unavailable\)")]
)
def test_what_stays_broken_is_told_in_one_sentence(s3, tmp_path, fault, said):
    store = open_store(URL, CacheOptions(tmp_path, SIZE), Retry(first_wait=0.01, deadline=2.0, slowest_rate=1e9))
    s3.faults.extend([fault] * 500)
    name = next(iter(FILES))
    with pytest.raises(
        UserError, match=rf"^{URL}/{name}, bytes 0-300006, could not be read in \d+ attempt.*{said}.*[.]$"
    ):
        store.fetch(shards_of(FILES)[0])
    assert kinds_in(tmp_path) == {}


def test_what_is_missing_or_forbidden_or_shorter_is_told_at_once(s3, store):
    name, content = next(iter(FILES.items()))
    for url in (f"{URL}/elsewhere", "s3://no-such-bucket"):
        with pytest.raises(UserError, match=f"^{url}/index.json is not there; check the path[.]$"):
            open_store(url, retry=QUICK).read_small("index.json")
    s3.asked.clear()
    s3.faults.append(403)
    with pytest.raises(UserError, match=r"index.json may not be read \(.*\); check the path and the credentials[.]$"):
        store.read_small("index.json")
    with pytest.raises(UserError, match=r"cannot be read \(.*range.*\); check .* as long as the index says[.]$"):
        store.read(name, len(content) + 5, 10)
    assert len(s3.asked) == 2


def test_without_credentials_it_says_so(s3, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    fsspec.filesystem("s3").clear_instance_cache()
    try:
        with pytest.raises(UserError, match=r"may not be read \(.*credentials.*\); check the path and the credentials"):
            open_store(URL, retry=QUICK).read_small("index.json")
    finally:
        fsspec.filesystem("s3").clear_instance_cache()


def test_a_slow_disk_goes_through_the_cache_as_a_url(tmp_path):
    shards = shards_of(FILES)
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    store = open_store(f"file://{tmp_path}", CacheOptions(tmp_path / "cache", 2 * SIZE), QUICK)
    path = store.fetch(shards[0])
    assert path and path.parent == tmp_path / "cache" and path.read_bytes() == FILES[shards[0].name]
    assert store.read(shards[1].name, 7, 9) == FILES[shards[1].name][7:16]
    with pytest.raises(UserError, match="could not be read"):
        short = Retry(first_wait=0.01, deadline=0.05, slowest_rate=1e9)
        open_store(f"file://{tmp_path}", retry=short).read(shards[1].name, SIZE - 5, 9)
    with pytest.raises(UserError, match=r"none.tar, bytes 0-4, is not there; check the path[.]$"):
        store.fetch(StoredFile("none.tar", 5, "0" * 64))
    store.close()


def test_a_file_system_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match=r"^shards gs://bucket/set need a package for gs://.*; pip install gcsfs[.]$"):
        open_store("gs://bucket/set")
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(UserError, match=r"need a package for abfs://.*adlfs"):
        open_store("abfs://bucket/set")
    with pytest.raises(UserError, match=r"shards carrier://pigeon cannot be opened .*such as s3://bucket/folder[.]$"):
        open_store("carrier://pigeon")
