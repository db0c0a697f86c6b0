"""`refiner-ds pack` as a person types it: several manifests, what is held out, what is left out, and the summary."""

import json
import re

from refiner_ds.cli import main
from refiner_ds.data.index import read_index


def pack(*arguments: object) -> int:
    return main(["pack", *map(str, arguments), "--workers", "1"])


def test_several_manifests_become_one_data_set(dataset, tmp_path, capsys):
    first = dataset(tmp_path / "first", [(64, 48)] * 5)
    second = dataset(tmp_path / "second", [(64, 48)] * 4, seed=1)
    out = tmp_path / "out"
    third = dataset(tmp_path / "third", [(64, 48)], seed=2)
    added = ["--add", f"{second.parent}@2.5", "--add", third]
    assert pack(f"kitti={first}", out, *added, "--val", "20%", "--split", "random") == 0
    index = read_index(out)
    found = [(one.name, one.weight, one.samples) for one in index.datasets]
    assert found == [("kitti", 1.0, 5), ("second", 2.5, 4), ("manifest", 1.0, 1)]
    assert (len(index.rows("train")), len(index.rows("val"))) == (8, 2)
    printed = capsys.readouterr().out
    assert "train: 8 samples in 1 shards, " in printed and "val: 2 samples in 1 shards, " in printed
    assert re.search(r"^second: 4 samples, \d of them held out, weight 2.5$", printed, re.MULTILINE)
    assert re.search(r"^10 samples, 0\.\d MB in \d+\.\d s \(\d+\.\d samples/s, \d+\.\d MB/s\)$", printed, re.MULTILINE)
    assert f"shards and index in {out}, digest {index.digest}" in printed


def test_a_split_of_the_manifest_stays_and_ten_is_the_default(dataset, tmp_path, capsys):
    manifest = dataset(tmp_path / "data", [(64, 48)] * 12)
    lists = json.loads(manifest.read_text())
    rows = [",".join(row) for row in zip(*(lists[view] for view in ("render", "gt", "cond")), strict=True)]
    table = manifest.with_name("table.csv")
    lines = [f"{row},{'val' if n in (3, 4, 5) else 'train'}" for n, row in enumerate(rows)]
    table.write_text("\n".join(["render,gt,cond,split", *lines]) + "\n")
    assert pack(table, tmp_path / "divided") == 0
    index = read_index(tmp_path / "divided")
    assert [index.key(row) for row in index.rows("val")] == ["00000003", "00000004", "00000005"]
    assert pack(manifest, tmp_path / "plain") == 0
    assert len(read_index(tmp_path / "plain").rows("val")) == 10
    capsys.readouterr()
    assert pack(table, tmp_path / "other", "--val", 2) == 2
    assert "--val 2 divides samples that their manifest has divided" in capsys.readouterr().err


def test_whatever_is_left_out_is_counted_and_named(dataset, tmp_path, capsys):
    manifest = dataset(tmp_path / "data", [(64, 48)] * 12)
    (manifest.parent / "cond" / "002.png").unlink()
    (manifest.parent / "gt" / "005.png").write_text("no picture")
    out = tmp_path / "out"
    assert pack(manifest, out, "--val", 2) == 2
    assert pack(manifest, out, "--val", 2, "--on_error", "skip") == 0
    index, output = read_index(out), capsys.readouterr()
    assert [(one.dataset, one.source) for one in index.skipped] == [
        ("manifest", "render/002.png"),
        ("manifest", "render/005.png"),
    ]
    assert f"skipped: 2 samples, listed in {out / 'index.json'}" in output.out and len(index) == 10
    assert "skipped: manifest, render/002.png: cond/002.png cannot be read (No such file or directory)" in output.err
    assert "skipped: manifest, render/005.png: gt/005.png is no readable picture" in output.err


def test_what_is_missing_or_broken_moves_no_other_sample_to_another_side(dataset, tmp_path):
    manifest = dataset(tmp_path / "data", [(64, 48)] * 20)
    drawn = ("--val", 6, "--split", "random")
    assert pack(manifest, tmp_path / "all", *drawn) == 0
    sides = _sides(read_index(tmp_path / "all"))
    for number in (0, 3, 7, 19):
        (manifest.parent / "gt" / f"{number:03d}.png").unlink()
    assert pack(manifest, tmp_path / "left", *drawn, "--on_error", "skip") == 0
    left = _sides(read_index(tmp_path / "left"))
    assert len(left) == 16 and left == {key: side for key, side in sides.items() if key in left}


def _sides(index) -> dict[str, str]:
    return {index.key(row): split for split in ("train", "val") for row in index.rows(split)}


def test_scenes_on_both_sides_are_warned_of_and_held_out_whole_when_asked(dataset, tmp_path, capsys):
    manifest = dataset(tmp_path / "data", [(64, 48)] * 12)
    pattern = ("--scene_pattern", r"0(\d)\d\.png")
    assert pack(manifest, tmp_path / "torn", "--val", 1, *pattern) == 0
    assert "1 of 2 scenes are on both sides of the split" in capsys.readouterr().err
    assert pack(manifest, tmp_path / "whole", "--val", 1, "--split", "scene", *pattern) == 0
    assert "both sides" not in capsys.readouterr().err
    index = read_index(tmp_path / "whole")
    assert {index.key(row)[:7] for row in index.rows("val")} in ({"0000000"}, {"0000001"})
