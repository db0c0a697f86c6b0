"""verify and evaluate from a URL: what they say is what they say of the folder."""

import json
import shutil

import pytest

from refiner_ds.cli import main
from refiner_ds.data.index import read_index
from tests.data.store.web_server import Web


@pytest.fixture
def web(shards):
    with Web({path.name: path.read_bytes() for path in shards.iterdir()}) as server:
        yield server


def problems_of(capsys, *arguments: object) -> tuple[int, list[str], str]:
    """Exit code, problems in order, and the first words of the summary."""
    code = main(["verify", *map(str, arguments)])
    told = capsys.readouterr()
    return code, sorted(told.err.splitlines()), told.out.rpartition(": ")[2].partition(" in ")[0]


def test_verify_finds_at_a_url_what_it_finds_in_the_folder(web, shards, tmp_path, capsys):
    assert problems_of(capsys, web.url, "--workers", 1) == problems_of(capsys, shards, "--workers", 1)
    damaged = shutil.copytree(shards, tmp_path / "damaged")
    first, second, third, *_ = read_index(damaged).shards
    for shard, place in ((first, 700), (first, first.bytes // 2), (second, second.bytes - 3)):
        with (damaged / shard.name).open("r+b") as file:
            file.seek(place)
            file.write(b"?!")
    (damaged / "sources.jsonl").write_text("{}\n")
    web.files = {path.name: path.read_bytes() for path in damaged.iterdir()}
    found = problems_of(capsys, web.url, "--workers", 2, "--scratch", tmp_path / "scratch")
    assert found == problems_of(capsys, damaged, "--workers", 1) and found[0] == 1 and len(found[1]) > 4
    assert not list((tmp_path / "scratch").iterdir())
    web.files[third.name] = web.files[third.name][:-5000]
    del web.files[second.name], web.files["sources.jsonl"]
    code, problems, _ = problems_of(capsys, web.url, "--workers", 1)
    assert code == 1 and any("sources.jsonl cannot be read" in problem for problem in problems)
    assert any(f"{second.name} cannot be had: {web.url}/{second.name}" in problem for problem in problems)
    assert any(f"{third.name} cannot be had" in one and "is shorter than the index says" in one for one in problems)


def test_verify_refuses_what_has_no_index_and_a_scratch_folder_for_nothing(web, shards, tmp_path, capsys):
    web.files = {}
    assert main(["verify", web.url]) == 2
    assert f"{web.url}/index.json is answered with 404" in capsys.readouterr().err
    assert main(["verify", str(shards), "--scratch", str(tmp_path)]) == 2
    assert "--scratch" in capsys.readouterr().err


def test_evaluate_gives_the_same_figures_from_a_url(web, shards, model, tmp_path):
    figures = []
    cache = ["--shard_cache", tmp_path / "cache", "--shard_cache_limit", "1MB"]
    for name, arguments in (("local", [shards]), ("remote", [web.url, *cache])):
        given = ["evaluate", "--model", model, "--output", tmp_path / name, "--device", "cpu", "--shards", *arguments]
        assert main([str(part) for part in given]) == 0
        figures.append((tmp_path / name / "metrics.json").read_text())
    assert figures[0] == figures[1] and json.loads(figures[0])["samples"] == 4
    assert any((tmp_path / "cache").glob("*.shard"))


def test_evaluate_refuses_a_cache_for_nothing(shards, model, tmp_path, capsys):
    common = ["evaluate", "--model", str(model), "--output", str(tmp_path), "--shard_cache", "cache"]
    assert main([*common, "--shards", str(shards), "--shard_cache_limit", "1GB"]) == 2
    assert "is a folder that is read where it lies" in capsys.readouterr().err
    assert main([*common, "--manifest", "manifest.json"]) == 2
    assert "would have no effect, as --manifest names pictures" in capsys.readouterr().err
