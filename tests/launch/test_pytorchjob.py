"""launch/pytorchjob.yaml: the schema takes it, and launch/torchrun.sh takes what it starts and ends as it needs."""

import copy
import re

import pytest
import tyro
import yaml

from refiner_ds.config.training import Train
from tests.launch.manifest import problems
from tests.launch.test_scripts import LAUNCH, notes, run  # noqa: F401 - a fixture
from tests.train.launch import REPO, free_port

JOB = yaml.safe_load((LAUNCH / "pytorchjob.yaml").read_text())
REPLICAS = JOB["spec"]["pytorchReplicaSpecs"]


def container(job: dict) -> dict:
    return job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]


def arguments(**variables: object) -> list[str]:
    """The job's arguments as the kubelet gives them, with $(NAME) replaced."""
    given = container(JOB)["args"]
    return [re.sub(r"\$\((\w+)\)", lambda name: str(variables[name[1]]), argument) for argument in given]


def test_the_schema_takes_the_job():
    assert problems(JOB) == []
    assert (JOB["apiVersion"], JOB["kind"]) == ("kubeflow.org/v1", "PyTorchJob")


MISTAKES = {
    "a misspelled key": (lambda job: container(job).update(imagee="x"), "unknown key imagee"),
    "a key of another place": (lambda job: job["spec"].update(backoffLimit=3), ".spec: unknown key backoffLimit"),
    "a wrong type": (lambda job: job["spec"]["runPolicy"].update(backoffLimit="3"), "'3' is not of type int"),
    "a number as a value": (lambda job: container(job)["env"][0].update(value=138), "138 is not of type str"),
    "a mapping for a list": (lambda job: container(job).update(args={}), "{} is not a list"),
    "no containers": (
        lambda job: job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"].pop("containers"),
        "Invalid value for `containers`, must not be `None`",
    ),
    "no replicas": (lambda job: job["spec"].pop("pytorchReplicaSpecs"), "Invalid value for `pytorch_replica_specs`"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_schema_refuses(mistake):
    job = copy.deepcopy(JOB)
    make, words = MISTAKES[mistake]
    make(job)
    assert any(words in problem for problem in problems(job)), problems(job)


def test_pods_and_the_launcher_agree_on_the_nodes_and_gpus():
    assert REPLICAS["Master"]["template"] == REPLICAS["Worker"]["template"]
    assert f"--nnodes={sum(replica['replicas'] for replica in REPLICAS.values())}" in container(JOB)["args"]
    assert f"--nproc_per_node={container(JOB)['resources']['limits']['nvidia.com/gpu']}" in container(JOB)["args"]
    assert REPLICAS["Master"]["replicas"] == 1 and container(JOB)["name"] == "pytorch"  # the operator requires both


def test_torchrun_sh_takes_the_command_line(notes):  # noqa: F811
    assert container(JOB)["command"] == ["bash", "launch/torchrun.sh"]
    port = free_port()
    done = run(
        notes,
        "torchrun.sh",
        *arguments(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=5),
        FINISHES=str(notes / "run"),  # the last --output_dir counts
        PET_NNODES="8",
        PET_NODE_RANK="3",
    )
    assert done.returncode == 0, done.stderr
    launched = (notes / "arguments").read_text().split("\0")[:-1]
    cut = launched.index("refiner_ds.train")
    assert launched[launched.index("--nnodes") + 1] == "8" and launched[launched.index("--nproc-per-node") + 1] == "8"
    assert launched[launched.index("--node-rank") + 1] == "5"
    assert launched[launched.index("--master-addr") + 1] == "127.0.0.1"
    flags = tyro.cli(Train, args=launched[cut + 1 :], use_underscores=True)
    assert (REPO / flags.deepspeed_config).exists()


@pytest.mark.parametrize(("code", "seen"), [("2", 2), ("1", 138), ("0", 138)])
def test_a_mistake_stays_and_a_failure_starts_anew(notes, code, seen):  # noqa: F811
    """The operator makes a pod anew for exit codes from 128 on; 0 without a finished run is a failure too."""
    variables = {variable["name"]: variable["value"] for variable in container(JOB)["env"]}
    assert all(replica["restartPolicy"] == "ExitCode" for replica in REPLICAS.values())
    # one node: over several the script waits half a minute for a late finished.json
    assert run(notes, "torchrun.sh", CODE=code, **variables).returncode == seen
