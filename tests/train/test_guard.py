"""The guard: which updates are events, who is suspected, and what is said and kept."""

import contextlib
import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from refiner_ds.batch import Batch
from refiner_ds.checkpoint.place import Place
from refiner_ds.errors import UserError
from refiner_ds.train.event import folder_of, read_event
from refiner_ds.train.guard import Guard, carried

CPU = torch.device("cpu")
GOOD, BAD = 7, 255
"""Values of pictures; the loss of one is infinite."""


class Family:
    """A refiner whose loss is infinite for samples with BAD pictures."""

    network = nn.Linear(1, 1)

    def encode(self, batch):
        return batch

    def loss(self, network, dtype, features, seed):
        return {"loss": torch.where(features.gt == BAD, math.inf, 0.5).mean()}

    def drawn(self, positions, seed):
        return [{"timestep": 100 + position, "dropped": ["render", "reference"]} for position in positions]


def _batch(values, first=40):
    pictures = torch.stack([torch.full((3, 4, 4), value, dtype=torch.uint8) for value in values])
    positions = tuple(range(first, first + len(values)))
    return Batch(pictures, pictures + 0, pictures // 2, positions, tuple(f"key-{position}" for position in positions))


def _guard(run, batches, allowed=0, count=0, adapts=False, lowest=False):
    """A guard of one rank; `batches` are the micro-batches of any step."""
    engine = SimpleNamespace(
        eagerly=contextlib.nullcontext,
        device=CPU, dtype=torch.float32, scale_adapts=adapts, scale_was_lowest=lowest, loss_scale=4.0,
        gradient_norm=torch.tensor(math.inf),
    )  # fmt: skip
    size = sum(len(batch) for batch in batches)
    stream = SimpleNamespace(
        order=SimpleNamespace(global_batch_size=size), batches=lambda first, last: (batch for batch in batches)
    )
    facts = {"seed": 3, "precision": "bf16"}
    return Guard(Family(), engine, stream, Place(0, (0,)), lambda item: [item], run, facts, allowed, count)


def _losses(*values):
    return tuple(torch.tensor(value) for value in values)


def test_an_overflow_that_lowers_the_loss_scale_is_no_event(tmp_path):
    guard = _guard(tmp_path, [_batch([GOOD])], adapts=True)
    assert guard.look(2, _losses(0.5)) is None
    assert guard.count == 0 and not [*tmp_path.iterdir()]


def test_a_loss_scale_at_its_minimum_ends_the_run_with_advice(tmp_path):
    finding = _guard(tmp_path, [_batch([GOOD])], allowed=9, adapts=True, lowest=True).look(2, _losses(0.5))
    assert finding.ends and not [*tmp_path.iterdir()]
    assert "step 3: gradients overflow in fp16 at loss scale 4, which is min_loss_scale" in finding.sentence
    assert "train on in bf16" in finding.sentence and "lower --learning_rate" in finding.sentence


@pytest.mark.parametrize("adapts", [False, True])
def test_samples_whose_own_loss_is_not_finite_are_named_and_kept(tmp_path, adapts):
    batches = [_batch([GOOD, BAD], 40), _batch([GOOD, GOOD], 42)]
    finding = _guard(tmp_path, batches, adapts=adapts, lowest=True).look(2, _losses(math.nan, 0.5))
    folder = folder_of(tmp_path, 3)
    assert finding.ends and finding.sentence == (
        "step 3: the loss is NaN or infinite for key-41 (timestep 141, dropped render and reference) on rank 0, kept "
        f"in {folder}, and --max_nonfinite_steps 0 allows no such update, so the run ends; look for the cause with "
        f"`refiner-ds replay {folder}`, lower --learning_rate, or allow more to be skipped."
    )
    event, (suspect,) = read_event(folder)
    facts = {name: event[name] for name in ("step", "completed_steps", "seed", "precision", "gradient_norm")}
    assert facts == {"step": 3, "completed_steps": 2, "seed": 3, "precision": "bf16", "gradient_norm": "inf"}
    assert suspect.told["losses"] == {"loss": "inf"} and suspect.batch.keys == ("key-41",)
    for view in ("render", "gt", "cond"):
        assert torch.equal(getattr(suspect.batch, view), getattr(batches[0].alone(1), view))


def test_all_samples_are_suspected_where_every_loss_is_finite(tmp_path):
    finding = _guard(tmp_path, [_batch([GOOD] * 3, 40), _batch([GOOD] * 2, 43)]).look(0, _losses(0.5, 0.5))
    assert "the gradients are NaN or infinite and every loss is finite; the samples are key-40" in finding.sentence
    assert "key-42 (timestep 142, dropped render and reference) on rank 0 and 2 more, kept" in finding.sentence
    assert [suspect.batch.positions for suspect in read_event(folder_of(tmp_path, 1))[1]] == [
        (40 + i,) for i in range(5)
    ]


def test_weights_are_blamed_where_every_sample_is_lost(tmp_path):
    finding = _guard(tmp_path, [_batch([BAD] * 2)]).look(0, _losses(math.inf))
    assert "infinite for every sample, so the weights are to blame: key-40" in finding.sentence


def test_so_many_updates_are_skipped_as_are_allowed_and_those_before_a_resume_count(tmp_path):
    guard = _guard(tmp_path, [_batch([BAD])], allowed=3, count=1)
    found = [guard.look(step, _losses(math.nan)) for step in range(3)]
    assert [finding.ends for finding in found] == [False, False, True] and guard.count == 3
    assert found[0].sentence.endswith("and the update is skipped, 2 of --max_nonfinite_steps 3")
    assert "--max_nonfinite_steps 3 allows no other update, so the run ends" in found[2].sentence


def test_an_event_takes_the_place_of_that_of_an_earlier_attempt(tmp_path):
    folder = folder_of(tmp_path, 1)
    folder.mkdir(parents=True)
    (folder / "rank-00007.safetensors").write_bytes(b"of more ranks")
    (folder.with_name(f".{folder.name}")).mkdir()
    _guard(tmp_path, [_batch([BAD])]).look(0, _losses(math.nan))
    assert sorted(path.name for path in folder.iterdir()) == ["event.json", "rank-00000.safetensors"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_what_cannot_be_written_is_told_and_the_rule_holds_all_the_same(tmp_path):
    (tmp_path / "nonfinite").write_text("in the way")
    finding = _guard(tmp_path, [_batch([BAD])], allowed=1).look(0, _losses(math.nan))
    assert not finding.ends and "on rank 0, which could not be kept (" in finding.sentence


def test_what_is_no_event_and_what_lacks_pictures_is_refused_in_words(tmp_path):
    with pytest.raises(UserError, match=r"has no event.json that can be read, .*OUTPUT_DIR/nonfinite/step-NNNNNNNN"):
        read_event(tmp_path)
    _guard(tmp_path, [_batch([BAD])]).look(0, _losses(math.nan))
    (folder_of(tmp_path, 1) / "rank-00000.safetensors").unlink()
    with pytest.raises(UserError, match=r"rank-00000.safetensors cannot be read .*bring all rank-\*"):
        read_event(folder_of(tmp_path, 1))


def test_an_event_is_json_that_every_reader_knows(tmp_path):
    _guard(tmp_path, [_batch([BAD])]).look(0, _losses(math.nan))

    def refuse(constant):
        raise AssertionError(constant)

    json.loads((folder_of(tmp_path, 1) / "event.json").read_text(), parse_constant=refuse)


@pytest.mark.parametrize(("weight", "gradient"), [(3.7, 7.4), (1e20, math.nan), (math.nan, math.nan)])
def test_a_loss_that_is_not_finite_leaves_no_gradient_finite_and_any_other_every_bit(weight, gradient):
    parameter = torch.tensor(weight, requires_grad=True)
    loss = parameter.square()
    plain = torch.autograd.grad(loss, parameter, retain_graph=True)[0]
    found = torch.autograd.grad(carried(loss), parameter)[0]
    assert torch.equal(found, plain) if loss.isfinite() else found.isnan()
    assert float(found) == pytest.approx(gradient, nan_ok=True)
