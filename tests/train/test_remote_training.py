"""Training from a URL, two ranks on the CPU: to the bit the losses of the folder, in a cache of half its size."""

import json

import boto3
import pytest

from refiner_ds.data.index import read_index
from tests.data.store.s3_server import BUCKET, S3
from tests.data.store.shard_files import kinds_in
from tests.data.store.test_cache_processes import watched
from tests.data.store.web_server import Web
from tests.train.launch import ZERO2, losses, start, torchrun

pytestmark = pytest.mark.slow
STEPS = 12


@pytest.fixture(scope="module")
def packed(dataset, pack_dataset, tmp_path_factory):
    """Eight shards of training samples, which 12 steps go through once and a bit, and two held-out samples."""
    folder = tmp_path_factory.mktemp("packed") / "shards"
    manifest = dataset(tmp_path_factory.mktemp("dataset"), [(96, 64)] * 42)
    pack_dataset(manifest, folder, val=2, shard_size=110_000)
    assert len(read_index(folder).shards) > 6
    return folder


@pytest.fixture(scope="module")
def files(packed):
    return {path.name: path.read_bytes() for path in packed.iterdir()}


@pytest.fixture(scope="module")
def limit(packed):
    """Fewer bytes than half of the shards."""
    return sum(shard.bytes for shard in read_index(packed).shards) // 2


@pytest.fixture(scope="module")
def train(tiny_base, tmp_path_factory):
    """`train(shards, **more)` trains from there, and returns the run's folder and what was said."""

    def run(shards: object, **more: object):
        folder = tmp_path_factory.mktemp("runs") / "run"
        flags = {
            "--shards": shards,
            "--pretrained_model_name_or_path": tiny_base,
            "--output_dir": folder,
            "--deepspeed_config": ZERO2,
            "--buckets": "1.5:96x64",
            "--gradient_accumulation_steps": 1,
            "--train_batch_size": 2,
            "--max_train_steps": STEPS,
            "--validation_epochs": 0,
            "--dataloader_num_workers": 1,
            "--shuffle_window_shards": 2,
            "--tracking_uri": f"sqlite:///{folder.parent}/mlflow.db",
            **{f"--{name}": value for name, value in more.items()},
        }
        done = start(torchrun(), flags)
        assert done.returncode == 0, done.stdout[-3000:]
        return folder, done.stdout

    return run


@pytest.fixture(scope="module")
def local(packed, train):
    return train(packed)


def test_a_web_server_is_as_good_as_a_folder(train, local, files, limit, tmp_path):
    with Web(files) as web, watched(tmp_path / "cache") as seen:
        address = web.url.replace("http://", "http://me:secret@") + "?signature=secret"
        folder, said = train(address, shard_cache=tmp_path / "cache", shard_cache_limit=limit)
        asked = [name for name, _ in web.asked]
    assert losses(folder) == losses(local[0]) and len(losses(folder)) == STEPS
    assert limit / 2 < max(seen) <= limit, "of which each file takes whole blocks"
    assert {name for name in asked if name.startswith("train")} == {name for name in files if name.startswith("train")}
    assert asked.count("samples.npy") == 1 and kinds_in(tmp_path / "cache").get(".part", 0) == 0
    settings = json.loads((folder / "run.json").read_text())
    assert settings["train"]["shards"] == web.url
    assert settings["identity"] == json.loads((local[0] / "run.json").read_text())["identity"]
    assert "secret" not in said + (folder / "run.json").read_text()


def test_s3_is_as_good_as_a_folder(train, local, files, limit, tmp_path, monkeypatch):
    with S3() as s3:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        for name, content in files.items():
            client.put_object(Bucket=BUCKET, Key=f"set/{name}", Body=content)
        folder, _ = train(f"s3://{BUCKET}/set", shard_cache=tmp_path / "cache", shard_cache_limit=limit)
        asked = [name for name, _ in s3.asked]
    assert losses(folder) == losses(local[0])
    assert asked.count("set/samples.npy") == 1 and len(asked) < 3 * len(files), "shards come whole"
