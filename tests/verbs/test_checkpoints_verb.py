"""`refiner-ds checkpoints`: says what lies in a run's folder, by files that were written as training writes them."""

import fcntl
import json
import re
import time
from pathlib import Path

import pytest

from refiner_ds.checkpoint.store import set_aside
from refiner_ds.cli import main
from refiner_ds.tracking.journal import Journal
from refiner_ds.train.lock import LOCK, Lock
from tests.checkpoint.made import save


@pytest.fixture
def run_folder(tmp_path) -> Path:
    """A run of two ranks with three checkpoints, of which the middle one is the best."""
    folder = tmp_path / "run"
    save(folder, 10, 20, 30)
    journal = Journal(folder)
    for step, psnr in ((10, 20.5), (20, 21.25), (30, 21.0)):
        journal.metrics(step, {"val/psnr": psnr, "val/ssim": 0.5 + step / 1000})
    return folder


@pytest.fixture
def listed(capsys):
    """`listed(folder, *flags)` gives exit code, lines of the table, and the JSON's entries by name."""

    def run(folder: Path, *flags: str) -> tuple[int, list[str], dict[str, dict]]:
        path = folder.parent / "listing.json"
        code = main(["checkpoints", str(folder), "--json", str(path), *flags])
        told = {entry["name"]: entry for entry in json.loads(path.read_text())["checkpoints"]}
        return code, capsys.readouterr().out.splitlines(), told

    return run


def spoil(path: Path) -> None:
    """Changes one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_run_is_listed_by_step_with_size_images_metrics_and_who_wrote_it(run_folder, listed):
    code, (head, *lines), told = listed(run_folder)
    assert code == 0 and re.split(r"\s{2,}", head)[:4] == ["step", "size", "age", "images seen"]
    assert [line.split()[0] for line in lines] == ["10", "20", "30"]
    assert all("2 x bf16 ZeRO-2" in line for line in lines)
    assert re.search(r"^ +20  +\d\.\d kB  +\d+ s  +80  21\.25  0\.5200  .*complete, best$", lines[1])
    assert lines[0].endswith("  complete") and lines[2].endswith("complete, newest")
    middle = told["checkpoint-20"]
    assert (middle["val/psnr"], middle["images_seen"], middle["num_ranks"], middle["stage"]) == (21.25, 80, 2, 2)
    assert [entry["is_best"] for entry in told.values()] == [False, True, False]
    assert [entry["is_newest"] for entry in told.values()] == [False, False, True]
    size = sum(path.stat().st_size for path in (run_folder / "checkpoint-20").iterdir())
    assert middle["bytes"] == size and abs(middle["written"] - time.time()) < 60


def test_the_newest_is_what_was_written_last_and_the_best_what_the_run_calls_best(run_folder, listed):
    save(run_folder, 15, settings={"train": {"best_metric": "ssim"}})  # after a return to an older one
    _, _, told = listed(run_folder)
    assert [name for name, entry in told.items() if entry["is_newest"]] == ["checkpoint-15"]
    assert [name for name, entry in told.items() if entry["is_best"]] == ["checkpoint-30"]


def test_what_is_no_checkpoint_is_told_with_what_became_of_it(run_folder, listed):
    (run_folder / "checkpoint-10" / "rank-00001.safetensors").unlink()
    spoil(run_folder / "checkpoint-20" / "rank-00000.safetensors")
    set_aside(run_folder / "checkpoint-20")
    (run_folder / ".writing-checkpoint-40").mkdir()
    (run_folder / ".deleting-checkpoint-5").mkdir()
    (run_folder / "checkpoint-last").mkdir()
    code, (_, *lines), told = listed(run_folder)
    assert code == 0
    assert {name: entry["state"] for name, entry in told.items()} == {
        ".deleting-checkpoint-5": "being deleted",
        "checkpoint-10": "incomplete",
        "damaged-checkpoint-20": "set aside",
        "checkpoint-30": "complete",
        ".writing-checkpoint-40": "being written",
    }
    for line, words in zip(
        lines,
        ("half deleted; the next start deletes the rest", "incomplete: rank-00001.safetensors is missing",
         "set aside as damaged-checkpoint-20", "complete, newest, best", "half written; the next start deletes it"),
        strict=True,
    ):  # fmt: skip
        assert words in line


def test_while_a_job_holds_the_lock_its_checkpoint_is_being_written(run_folder, listed):
    (run_folder / ".writing-checkpoint-40").mkdir()
    with (run_folder / LOCK).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert listed(run_folder)[1][-1].endswith("  being written")
    assert listed(run_folder)[1][-1].endswith("half written; the next start deletes it")


def test_looking_neither_takes_the_lock_nor_makes_one(run_folder, listed):
    before = sorted(run_folder.iterdir())
    listed(run_folder)
    assert sorted(run_folder.iterdir()) == before
    Lock(run_folder, print)
    listed(run_folder)
    assert json.loads((run_folder / LOCK).read_text())["ends"] is False


def test_a_committed_folder_without_its_name_is_not_called_lost(run_folder, listed):
    (run_folder / "checkpoint-30").rename(run_folder / ".writing-checkpoint-30")
    _, lines, told = listed(run_folder)
    assert "complete but for its name; the next start gives it" in lines[-1]
    assert told["checkpoint-20"]["is_newest"]


def test_verify_reads_every_byte_and_its_exit_code_tells_what_it_found(run_folder, listed):
    assert listed(run_folder, "--verify")[0] == 0
    spoil(run_folder / "checkpoint-20" / "rank-00001.safetensors")
    code, lines, told = listed(run_folder)
    assert code == 0 and told["checkpoint-20"]["state"] == "complete", "nothing was read"
    code, lines, told = listed(run_folder, "--verify")
    fault = "rank-00001.safetensors is not what was written (its CRC-32C differs)"
    assert code == 1 and told["checkpoint-20"]["state"] == "damaged" and told["checkpoint-20"]["fault"] == fault
    assert lines[2].endswith(f"damaged: {fault}")
    assert [told[f"checkpoint-{step}"]["state"] for step in (10, 30)] == ["complete"] * 2


def test_what_was_read_and_is_damaged_is_neither_the_newest_nor_the_best(run_folder, listed):
    for step in (20, 30):
        spoil(run_folder / f"checkpoint-{step}" / "rank-00000.safetensors")
    _, lines, told = listed(run_folder, "--verify")
    assert lines[1].endswith("complete, newest, best") and told["checkpoint-10"]["is_newest"]


def test_verify_counts_what_lacks_a_part_as_damage(run_folder, listed):
    path = run_folder / "checkpoint-10" / "rank-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert listed(run_folder, "--verify")[0] == 1
    assert listed(run_folder)[0] == 0


def test_parts_on_other_nodes_are_told(run_folder, listed):
    path = run_folder / "checkpoint-30" / "commit.json"
    commit = json.loads(path.read_text())
    path.write_text(json.dumps({**commit, "elsewhere": {"rank-00002.safetensors": "node7"}}))
    assert listed(run_folder)[1][-1].endswith("complete, newest; rank-00002.safetensors on node7")


def test_a_run_without_a_checkpoint_and_without_metrics_is_listed(tmp_path, listed, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    assert listed(run)[:2] == (0, [f"{run} has no checkpoint yet"])
    save(run, 5)
    assert re.search(r"80     -     -  2 x bf16.*complete, newest$", listed(run)[1][-1])
    assert main(["checkpoints", str(run), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["is_running"] is False


def test_a_figure_that_is_not_finite_is_valid_json(run_folder, capsys):
    Journal(run_folder).metrics(20, {"val/psnr": float("nan")})
    assert main(["checkpoints", str(run_folder), "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["checkpoints"]
    assert told[1]["val/psnr"] == "nan" and told[2]["is_best"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty", "empty holds no run (run.json is not there), so there are no checkpoints to list; name the"),
        ("nowhere", "nowhere cannot be read (No such file or directory), so nothing tells its checkpoints; name the"),
        ("file", "file cannot be read (Not a directory), so nothing tells its checkpoints; name the"),
        ("run/checkpoint-10", "checkpoint-10 is one checkpoint and no run, so there is nothing to list in it; name"),
    ],
)
def test_what_is_no_run_is_refused_in_one_sentence(run_folder, tmp_path, capsys, name, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert main(["checkpoints", str(tmp_path / name)]) == 2
    told = capsys.readouterr()
    assert words in told.err and len(told.err.splitlines()) == 1 and told.out == ""


def test_piped_lines_are_plain_and_whole_whatever_the_width(run_folder, refiner_ds_command):
    done = refiner_ds_command("checkpoints", run_folder, COLUMNS="40")
    assert done.returncode == 0 and done.stderr == ""
    assert len(done.stdout.splitlines()) == 4 and done.stdout.isascii() and "\x1b" not in done.stdout
    assert "complete, newest" in done.stdout.splitlines()[-1]
