"""Where ranks meet: each has a GPU and an interface of its own, they agree, or one sentence says why not."""

import platform
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from refiner_ds.data.index import read_index
from refiner_ds.errors import UserError
from refiner_ds.train import interface, meeting
from refiner_ds.train.interface import interface_towards
from refiner_ds.train.meeting import gpu_of, is_loss_of_peer
from refiner_ds.world import World
from tests.conftest import SQUARE, WIDE
from tests.train.launch import ZERO2, free_port, srun


def test_a_rank_has_a_gpu_of_its_own(monkeypatch):
    assert gpu_of(World(5, 8, 1, 4), 4) == 1
    with pytest.raises(UserError, match=r"has 2 GPUs and is given 4 ranks, but .*; start as many ranks as .*slots in"):
        gpu_of(World(2, 8, 2, 4), 2)
    monkeypatch.setenv("SLURM_GPUS_PER_TASK", "1")
    assert gpu_of(World(3, 8, 3, 4), 1) == 0, "SLURM shows each task only its own"


def test_the_interface_is_the_one_that_leads_to_rank_0(monkeypatch):
    there = {"10.1.0.7": "eth0", "192.168.0.7": "ib0"}
    monkeypatch.setattr(interface, "_interfaces", lambda: there)
    routes = {"node0": "192.168.0.7", interface.ANYWHERE: "10.1.0.7"}
    monkeypatch.setattr(interface, "_own_address_towards", lambda address: routes.get(address, "127.0.0.1"))
    assert interface_towards("node0") == "ib0"
    assert interface_towards("own-name-on-127.0.1.1") == "eth0", "the default route"
    routes.clear()
    with pytest.raises(UserError, match=r"GLOO_SOCKET_IFNAME is not set.*\(eth0, ib0\) none is certain.*on all hosts"):
        interface_towards("own-name-on-127.0.1.1")
    there.update({"10.1.0.7": "docker0"})
    assert interface_towards("own-name-on-127.0.1.1") == "ib0", "the only one that leads anywhere"


def test_the_loopback_is_no_interface_to_meet_on():
    assert "lo" not in interface._interfaces().values()


@pytest.mark.parametrize(
    ("error", "is_loss"),
    [
        (RuntimeError("[../gloo/transport/tcp/pair.cc] Connection closed by peer [10.77.0.2]:4711"), True),
        (RuntimeError("[../gloo/transport/tcp/unbound_buffer.cc] Timed out waiting 30000ms for send"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("Connection closed by peer"), False),
    ],
)
def test_the_loss_of_another_rank_is_told_from_a_fault_of_ones_own(error, is_loss):
    assert is_loss_of_peer(error) == is_loss


def test_the_first_setting_that_differs_is_told_with_what_both_say(monkeypatch):
    others = [
        ({"torch": "2.15", "refiner_ds": "0.1.0 (abc)"}, "hosta"),
        ({"torch": "2.15", "refiner_ds": "0.1.0 (def)"}, "hostb"),
    ]
    monkeypatch.setattr(meeting, "gathered", lambda item: [item, *others])
    with pytest.raises(UserError) as caught:
        meeting.require_agreement({"torch": "2.15", "refiner_ds": "0.1.0 (abc)"}, "install the same.")
    assert str(caught.value) == (
        f"the ranks do not agree on what to train: rank 0 on {platform.node()} has refiner_ds 0.1.0 (abc) and rank 2 "
        "on hostb has refiner_ds 0.1.0 (def); install the same."
    )
    others.pop()
    meeting.require_agreement({"torch": "2.15", "refiner_ds": "0.1.0 (abc)"}, "install the same.")


@pytest.mark.parametrize(
    ("mistakes", "words"),
    [
        ([None, "no GPU there.", None], "rank 1 on {host}: no GPU there."),
        (["no base.", "no base.", "no base."], "no base."),
        ([None, None, None], None),
    ],
)
def test_a_mistake_of_one_rank_is_told_to_all_and_what_all_find_is_told_as_it_is(monkeypatch, mistakes, words):
    """The ranks are threads here; with a store of their own each, as processes have."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", free_port())

    def told(rank: int) -> str | None:
        mistake = UserError(mistakes[rank]) if mistakes[rank] else None
        try:
            stores.append(meeting.share_mistakes(World(rank, 3, rank, 3), mistake, timedelta(seconds=20)))
        except UserError as error:
            return str(error)
        return None

    stores = []  # rank 0's is to be kept
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(told, range(3)))
    assert found == [words and words.format(host=platform.node())] * 3


def test_a_rank_that_meets_nobody_tells_its_own_mistake(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", free_port())
    with pytest.raises(UserError, match=r"^no base\.$"):
        meeting.share_mistakes(World(1, 2, 1, 2), UserError("no base."), timedelta(seconds=1))


@pytest.fixture
def flags(shards, tiny_base, tmp_path):
    """A run of two steps on two ranks."""
    return {
        "--shards": shards,
        "--pretrained_model_name_or_path": tiny_base,
        "--deepspeed_config": ZERO2,
        "--buckets": "1.0:64x64,1.5:96x64",
        "--gradient_accumulation_steps": 2,
        "--max_train_steps": 2,
        "--validation_epochs": 0,
        "--dataloader_num_workers": 1,
        "--tracking_uri": f"sqlite:///{tmp_path}/mlflow.db",
        "--timeout_minutes": 1,
    }


@pytest.mark.slow
def test_ranks_that_were_started_differently_end_in_one_sentence_before_a_model_is_loaded(flags, tmp_path):
    nowhere = {**flags, "--pretrained_model_name_or_path": tmp_path / "no-base"}  # would be told if it were looked for
    (code, output), (other, _) = srun(nowhere, tmp_path / "run", free_port(), "--learning_rate", 5e-3)
    assert (code, other) == (2, 2)
    host = platform.node()
    (line,) = [line for line in output.splitlines() if "refiner-ds train: " in line]
    assert line == (
        f"refiner-ds train: the ranks do not agree on what to train: rank 0 on {host} has learning_rate 0.0001 and "
        f"rank 1 on {host} has learning_rate 0.005; start all with one command."
    )
    assert "Traceback" not in output and "no-base is" not in output
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.slow
def test_nodes_that_see_other_shards_end_in_one_sentence(flags, dataset, pack_dataset, tmp_path):
    other = pack_dataset(dataset(tmp_path / "pictures", [WIDE, SQUARE, WIDE] * 8, seed=1), tmp_path / "other", val=4)
    (code, output), (other_code, _) = srun(flags, tmp_path / "run", free_port(), "--shards", tmp_path / "other")
    assert (code, other_code) == (2, 2)
    assert (
        f"rank 0 on {platform.node()} has shards_digest {read_index(flags['--shards']).digest} and rank 1 on " in output
    )
    assert f" has shards_digest {other.digest}; put shards, base and output folder where all nodes see them" in output


@pytest.mark.slow
def test_a_mistake_that_one_rank_alone_sees_ends_all_and_rank_0_tells_it(flags, tmp_path):
    patient = {**flags, "--timeout_minutes": 60}  # for longer than `srun` here
    tasks = srun(patient, tmp_path / "run", free_port(), "--shards", tmp_path / "not-mounted")
    assert [code for code, _ in tasks] == [2, 2]
    told = "".join(output for _, output in tasks)
    assert f"refiner-ds train: rank 1 on {platform.node()}: shards {tmp_path}/not-mounted has no" in tasks[0][1]
    assert told.count("refiner-ds train: ") == 1 and "Traceback" not in told
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_busy_port_is_told_in_one_sentence(flags, tmp_path):
    with socket.socket() as busy:
        busy.bind(("0.0.0.0", 0))
        busy.listen()
        port = str(busy.getsockname()[1])
        ((code, output),) = srun(flags, tmp_path / "run", port, ranks=[0])
    assert code == 2 and f"port {port} of " in output
    assert "where the ranks are to meet, is in use" in output and "Traceback" not in output
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_rank_that_finds_no_rank_0_gives_up_in_one_sentence(flags, tmp_path):
    port = free_port()
    ((code, output),) = srun({**flags, "--timeout_minutes": 0.1}, tmp_path / "run", port, ranks=[1])
    assert code == 1 and "Traceback" not in output, "a restart may help"
    assert output.count("refiner-ds train: ") == 1, output
    assert f"rank 1 of 2 on {platform.node()} could not meet the others at localhost:{port} within 6 s" in output
