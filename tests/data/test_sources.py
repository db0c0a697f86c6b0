"""Several manifests as one dataset: how they are spelled, and whose samples are whose."""

import json
import random
import string
from pathlib import Path

import pytest

from refiner_ds.data.manifest import VIEWS, Source, parse_source, parse_sources, read_datasets
from refiner_ds.errors import UserError


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("data/kitti.json", Source("kitti", Path("data/kitti.json"), 1.0)),
        ("kitti.v2.CSV", Source("kitti.v2", Path("kitti.v2.CSV"), 1.0)),
        ("data/kitti.v2/", Source("kitti.v2", Path("data/kitti.v2"), 1.0)),
        ("k=data/kitti.json", Source("k", Path("data/kitti.json"), 1.0)),
        ("k=data/kitti.json@2", Source("k", Path("data/kitti.json"), 2.0)),
        ("k=data/kitti@.5", Source("k", Path("data/kitti"), 0.5)),
        ("kitti.json@1e-1", Source("kitti", Path("kitti.json"), 0.1)),
        ("k=a=b.json", Source("k", Path("a=b.json"), 1.0)),
        ("./a=b.json", Source("a=b", Path("a=b.json"), 1.0)),
        ("/mnt/me@host/kitti.json", Source("kitti", Path("/mnt/me@host/kitti.json"), 1.0)),
        ("k=a@b.json@3", Source("k", Path("a@b.json"), 3.0)),
    ],
)
def test_a_source_is_a_path_with_a_name_and_a_weight(text, source):
    assert parse_source(text) == source


def test_what_is_spelled_is_what_is_read():
    rng = random.Random(0)
    for _ in range(500):
        name = "".join(rng.choices(string.ascii_letters + "._- ", k=rng.randint(1, 9)))
        path = "/".join("".join(rng.choices(string.ascii_letters + "=@_ ", k=5)) for _ in range(rng.randint(1, 4)))
        weight = rng.choice([1.0, 0.25, 3.0, rng.uniform(1e-6, 1e6)])
        assert parse_source(f"{name}={path}@{weight}") == (name, Path(path), weight)


def test_the_working_folder_has_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_source(".") == (tmp_path.name, Path("."), 1.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "manifest '' has no path; write PATH, NAME=PATH"),
        ("k=", "manifest 'k=' has no path"),
        ("=m.json", "manifest '=m.json' has no name"),
        ("/", "manifest '/' has no name"),
        ("k=m.json@0", "weight '0' is no number above 0"),
        ("k=m.json@-1", "weight '-1' is no number above 0"),
        ("k=m.json@nan", "weight 'nan'"),
        ("k=m.json@inf", "weight 'inf'"),
        ("k=m.json@", "weight ''"),
        ("k=m@2.json", r"weight '2.json' is no number .*\(and @1 behind a path that ends in an @ part"),
    ],
)
def test_a_source_that_is_none_is_refused_in_words(text, words):
    with pytest.raises(UserError, match=words):
        parse_source(text)


def test_names_are_unique():
    assert [source.name for source in parse_sources(["a/m.json", "n=b/m.json"])] == ["m", "n"]
    with pytest.raises(UserError, match=r"2 manifests are named 'm' \(a/m.json and b/m.json\).*first=PATH second=PATH"):
        parse_sources(["a/m.json", "c.json", "b/m.json"])
    with pytest.raises(UserError, match="no manifest is given"):
        parse_sources([])


@pytest.fixture
def two(tmp_path) -> list[Source]:
    """Two manifests of two and three samples."""
    sources = []
    for name, count in (("few", 2), ("many", 3)):
        lists = {view: [f"{name}-{view}-{i}.png" for i in range(count)] for view in VIEWS}
        for file in (file for files in lists.values() for file in files):
            (tmp_path / file).touch()
        (tmp_path / f"{name}.json").write_text(json.dumps(lists))
        sources.append(Source(name, tmp_path / f"{name}.json", 1.0))
    return sources


def test_samples_know_their_dataset(two):
    assert [(s.dataset, s.name) for s in read_datasets(two)] == [
        *((0, f"few-render-{i}.png") for i in range(2)),
        *((1, f"many-render-{i}.png") for i in range(3)),
    ]


def test_what_is_left_out_is_told_with_its_dataset(two):
    lists = json.loads(two[1].path.read_text())
    lists["render"][1] = lists["render"][0]
    two[1].path.write_text(json.dumps(lists))
    told = []
    samples = read_datasets(two, skip=lambda *what: told.append(what))
    assert [s.dataset for s in samples] == [0, 0, 1, 1]
    assert told == [(1, "many-render-0.png", "repeats the render of an earlier sample")]


def test_a_render_in_two_manifests_is_refused(two):
    lists = json.loads(two[1].path.read_text())
    lists["render"][2] = "few-render-0.png"
    two[1].path.write_text(json.dumps(lists))
    with pytest.raises(UserError, match=r"few.json and \S*many.json share renders \(1 in all: few-render-0.png\)"):
        read_datasets(two)
