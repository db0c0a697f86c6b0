"""What facts mean: states and remedies, as a function of plain values."""

import pytest

from refiner_ds.doctor import checks, needs
from refiner_ds.doctor.environment import check_environment
from refiner_ds.doctor.hosts import Clock
from refiner_ds.doctor.lines import Line
from refiner_ds.doctor.report import as_json, as_table
from refiner_ds.estimate.disk import checkpoint_bytes, checkpoints_to_come

GB = 10**9
VERSIONS = dict.fromkeys(("python", "refiner_ds", "torch", "deepspeed", "diffusers", "transformers", "numpy"), "1")


def machine(gpus: int = 0, name: str = "H100", size: int = 80 * GB, **more) -> dict:
    return {
        **{"gpus": [{"name": name, "bytes": size}] * gpus, "cores": 16, "memory_bytes": 64 * GB, "nccl": "2.27"},
        **{"driver": "580.1" if gpus else None, "driver_gpus": gpus, "used_bytes": [0] * gpus, "cuda": "13.0"},
        **more,
    }


def found(lines) -> list[tuple[str, str]]:
    """What is not green, and every such line must have a remedy."""
    lines = [line for line in lines if line.state != "ok"]
    assert all(line.remedy for line in lines)
    return [(line.host, line.state) for line in lines]


@pytest.mark.parametrize(
    ("package", "state"), [("python", "fail"), ("refiner_ds", "fail"), ("torch", "fail"), ("numpy", "warn")]
)
def test_other_versions_are_red_where_training_refuses_them(package, state):
    said = {"a": VERSIONS, "b": VERSIONS, "c": {**VERSIONS, package: "2"}}
    assert found(checks.check_versions(said)) == [("c", state)]


@pytest.mark.parametrize(
    ("slots", "devices", "expected"),
    [
        (8, machine(8), []),
        (8, machine(2), [("b", "fail")]),
        (2, machine(8), [("b", "warn")]),
        (8, machine(0), [("b", "fail")]),
        (8, machine(8, used_bytes=[0] * 7 + [9 * GB]), [("b", "warn")]),
        (8, machine(8, size=40 * GB), [("b", "warn")]),
    ],
)
def test_slots_are_held_against_gpus_and_gpus_against_each_other(slots, devices, expected):
    lines = checks.check_devices({"a": machine(8), "b": devices}, {"a": 8, "b": slots}, False)
    assert found(lines) == expected


def test_slots_beyond_the_gpus_name_the_number_to_write():
    (line,) = checks.check_devices({"a": machine(2)}, {"a": 8}, False)
    assert "slots=8, and a rank needs a GPU of its own: 2 x H100, 80.0 GB" in line.text
    assert line.remedy == "write slots=2 for a in the hostfile"


def test_gpus_that_torch_does_not_see_are_red():
    assert found(checks.check_driver({"a": machine(0, driver="470.0", driver_gpus=8)})) == [("a", "fail")]
    assert found(checks.check_driver({"a": machine(8), "b": machine(8, driver="470.0")})) == [("b", "warn")]


@pytest.mark.parametrize(("ahead", "state"), [(0.5, None), (-3.0, "warn"), (100.0, "fail"), (-100.0, "fail")])
def test_a_clock_that_is_off_is_told_beyond_what_the_question_took(ahead, state):
    clocks = {"a": Clock(0.0, 0.01), "b": Clock(ahead, 0.01), "slow": Clock(ahead / 100, 5.0)}
    assert found(checks.check_clocks(clocks)) == ([("b", state)] if state else [])


def test_an_own_name_on_the_loopback_and_a_missing_interface_are_told():
    well = {
        "name": "a",
        "own_address": "10.0.0.1",
        "interface": "eth0",
        "no_interface": None,
        "nccl": "eth",
        "no_nccl": None,
    }
    ill = {**well, "own_address": "127.0.1.1", "no_interface": "none is certain; set GLOO_SOCKET_IFNAME."}
    lines = list(checks.check_network({"a": well, "b": ill}))
    assert found(lines) == [("b", "warn"), ("b", "fail")]
    assert lines[-1].remedy == "set GLOO_SOCKET_IFNAME"
    (line,) = (line for line in checks.check_network({"a": {**well, "no_nccl": "fits none; name one."}}) if line.remedy)
    assert (line.check, line.state, line.remedy) == ("interface", "fail", "name one")


def test_hosts_that_cannot_reach_each_other_are_named_in_pairs():
    (line, well) = checks.check_pairs({"a": {"b": "timed out"}, "b": {}})
    assert (line.host, line.state) == ("a", "fail") and "does not get through to b: timed out" in line.text
    assert well.state == "ok"


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({"fault": None, "ninja": True, "nvcc": "nvcc"}, None),
        ({"fault": "no Python.h", "ninja": True, "nvcc": "nvcc"}, "warn"),
        ({"fault": None, "ninja": False, "nvcc": "nvcc"}, "warn"),
        ({"fault": None, "ninja": True, "nvcc": None}, "warn"),
    ],
)
def test_what_no_configuration_of_ours_compiles_is_never_red(facts, state):
    assert found(checks.check_compiler({"a": {"name": "c++", **facts}}, True)) == ([("a", state)] if state else [])


@pytest.mark.parametrize(
    ("digests", "expected"),
    [
        ({"a": None, "b": "1", "c": "1"}, [("a", "fail")]),
        ({"a": "1", "b": None, "c": "2"}, [("b", "fail"), ("c", "fail")]),
        ({"a": None, "b": None}, [("a", "warn"), ("b", "warn")]),
        ({"a": "1", "b": "1"}, []),
    ],
)
def test_a_base_that_some_hosts_lack_is_their_fault_and_not_that_of_who_has_it(digests, expected):
    lines = list(checks.check_base("hub/base", {host: {"digest": digest} for host, digest in digests.items()}))
    assert found(lines) == expected and len(lines) == len(digests)


def test_a_checkpoint_is_counted_from_the_weights_and_one_more_than_the_limit_lies_on_the_disk():
    assert checkpoint_bytes(1000, False) == 12_000 and checkpoint_bytes(1000, True) == 16_000
    assert checkpoints_to_come(2, 10_000, 500) == 3 and checkpoints_to_come(9, 1_001, 500) == 3
    assert checkpoints_to_come(None, 1_001, 500) == 3 and checkpoints_to_come(None, 1_001, 0) == 1
    assert checkpoints_to_come(None, None, 500) is None
    assert checkpoints_to_come(2, 10_000, 500, keep_best=3) == 6
    assert (
        checkpoints_to_come(2, 10_000, 500, keep_every=2_000) == 8 and checkpoints_to_come(2, 1_000, 500, 5, 500) == 7
    )
    assert checkpoints_to_come(2, None, 500, keep_every=2_000) is None


@pytest.mark.parametrize(
    ("free", "count", "state"),
    [(23, 2, "fail"), (24, 2, None), (11, None, "fail"), (100, None, "warn"), (120, None, None)],
)
def test_free_disk_is_held_against_the_checkpoints_to_come(free, count, state):
    lines = needs.check_disk({"a": {"free_bytes": free}}, checkpoint_bytes(1), count)
    assert found(lines) == ([("a", state)] if state else [])


@pytest.mark.parametrize(
    ("config", "micro", "words"),
    [
        ({}, 4, None),
        ({"train_batch_size": 120}, 2, None),
        ({"train_batch_size": 100}, None, "train_batch_size 100 cannot be shared by 3 ranks"),
        ({"train_batch_size": 99}, 2, "train_batch_size 99 is not micro-batch 2 x accumulation 20 x 3 ranks = 120"),
        ({"train_micro_batch_size_per_gpu": 8}, 4, "--train_batch_size 4 contradicts"),
    ],
)
def test_a_global_batch_that_the_ranks_cannot_share_is_red(config, micro, words):
    line = needs.check_batch(config, micro, None, 3)
    assert (line.state, bool(line.remedy)) == (("fail", True) if words else ("ok", False))
    assert (words or "3 ranks = ") in line.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NCCL_DEBUG=INFO\nHF_HOME=/data\n", []),
        ("NCCL_DEBUG=INFO\n\nHF_HOME=/data\n", [("all", "warn")]),
        ("# ours=1\n", [("all", "warn")]),
        ("MLFLOW_TRACKING_PASSWORD=tell-nobody\n", [("all", "fail")]),
    ],
)
def test_what_deepspeed_cannot_read_or_would_show_is_told_without_its_value(text, expected):
    lines = list(check_environment({".deepspeed_env": text}))
    assert found(lines) == expected and len(lines) == 1
    assert "tell-nobody" not in lines[0].text + lines[0].remedy


def test_hosts_that_agree_share_a_row_and_each_red_row_has_its_remedy_below():
    lines = [Line("clock", host, "ok", "well") for host in "abc"] + [Line("shards", "b", "fail", "others", "copy them")]
    first, second, remedy, last = as_table(lines, 3, False).splitlines()
    assert first.split() == ["ok", "clock", "all", "hosts", "well"]
    assert second.split() == ["fail", "shards", "b", "others"] and remedy.strip() == "-> copy them"
    assert last == "1 red, 0 yellow, 3 green on 3 hosts"
    assert as_json(lines, "abc")["healthy"] is False and as_json(lines[:3], "abc")["healthy"] is True
