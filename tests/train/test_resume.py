"""Where a run continues: at the newest checkpoint that is whole for all ranks, and never in silence at another."""

from functools import partial

import pytest

from refiner_ds.checkpoint.layout import complete_checkpoints
from refiner_ds.checkpoint.place import Place
from refiner_ds.errors import UserError
from refiner_ds.train.resume import changes, newest_whole
from tests.checkpoint.made import as_ranks, save

FILE = "rank-00001.safetensors"


@pytest.fixture
def run(tmp_path):
    save(tmp_path, 5, 10, 15)
    return tmp_path


def chosen(folder, is_given=False, ranks=2):
    """The step that all ranks choose, and what rank 0 tells."""
    told = []

    def act(rank, gathered):
        found = complete_checkpoints(folder)[::-1]
        tell = told.append if rank == 0 else lambda _: None
        return newest_whole(folder, found, Place(rank, tuple(range(ranks))), gathered, is_given, tell)

    found = as_ranks(ranks, act)
    assert len({checkpoint and checkpoint.step for checkpoint in found}) == 1, "all ranks alike"
    return found[0] and found[0].step, told


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_newest_whole_one_is_chosen_by_any_number_of_ranks(run, ranks):
    assert chosen(run, ranks=ranks) == (15, [])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: flip(path / FILE), "is not what was written"),
        (lambda path: (path / FILE).unlink(), "is missing"),
        (lambda path: (path / FILE).write_bytes(b"short"), "has 5 bytes of"),
        (lambda path: (path / "commit.json").unlink(), "has no commit.json"),
        (lambda path: (path / "commit.json").write_text("{"), "commit.json is damaged"),
    ],
    ids=["flipped", "missing", "cut off", "no commit", "half a commit"],
)
def test_a_damaged_one_is_told_and_kept_and_the_one_before_is_continued(run, damage, words):
    damage(run / "checkpoint-15")
    step, (told,) = chosen(run)
    assert step == 10 and words in told and "kept as damaged-checkpoint-15" in told
    assert (run / "damaged-checkpoint-15").is_dir() and not (run / "checkpoint-15").exists()
    assert chosen(run) == (10, []), "it is told once"


def test_where_nothing_is_whole_the_run_does_not_start_anew_in_silence(run):
    for step in (5, 10, 15):
        flip(run / f"checkpoint-{step}" / FILE)
    with pytest.raises(UserError, match=r"no checkpoint that could be continued is whole .*checkpoint-5.*start afresh"):
        chosen(run, ranks=1)
    assert len(complete_checkpoints(run)) == 3, "nothing is set aside"


def test_a_checkpoint_that_was_named_is_continued_or_nothing(run):
    flip(run / "checkpoint-15" / FILE)
    with pytest.raises(UserError, match=r"checkpoint-15: rank-00001.safetensors is not what was written"):
        chosen(run, is_given=True, ranks=1)


def test_nodes_with_folders_of_their_own_continue_from_what_all_have(tmp_path):
    for node in (0, 1):
        save(tmp_path / str(node), 5, *([10] if node else []), ranks=1)
    told = []

    def act(rank, gathered):
        folder = tmp_path / str(rank)
        found = complete_checkpoints(folder)[::-1]
        return newest_whole(folder, found, Place(rank, (rank,)), gathered, False, partial(told.append))

    assert [checkpoint.step for checkpoint in as_ranks(2, act)] == [5, 5]
    assert "another node has none of this step" in told[0]


def test_what_is_set_otherwise_is_told_and_what_changes_nothing_is_not():
    held = {
        "train": {"snr_gamma": None, "output_dir": "a"},
        "optimizer": {"params": {"weight_decay": 0.01}},
        "num_ranks": 2,
    }
    present = {
        "train": {"snr_gamma": 5.0, "output_dir": "b"},
        "optimizer": {"params": {"weight_decay": 0.1}},
        "num_ranks": 4,
    }
    assert changes(held, present) == [
        "train.snr_gamma is 5.0, was None",
        "optimizer.params.weight_decay is 0.1, was 0.01",
        "num_ranks is 4, was 2",
    ]
    assert changes(held, held) == []
