"""What ends a part of a job over two hosts ends all of it: soon, with the reason, and with nothing left on either."""

import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.launch.hosts import Host, Hosts, until
from tests.train.launch import REPO, free_port, losses

pytestmark = pytest.mark.slow
START_WITHIN_SECONDS = 240
"""Six ranks at once, each of which loads torch and deepspeed, on two cores."""
WITHIN_SECONDS = 20
SILENT_WITHIN_SECONDS = 60  # with a timeout of 30
HOSTFILES = {
    "pdsh": "hosta slots=1\nhostb slots=1\n",
    "pdsh from hostb": "hostb slots=1\nhosta slots=1\n",
    "pdsh from outside": "hostb slots=2\n",
}
"""By the kind of a job."""


class Job:
    """A run over both hosts: by pdsh from hosta, or from hostb, where rank 0 is then, or by torchrun.sh on each.

    Or over hostb alone, by pdsh from hosta.
    """

    def __init__(self, hosts: Hosts, kind: str, folder: Path, flags: dict[str, object]) -> None:
        self.kind, self.folder, self._hosts, self._said = kind, folder / "run", hosts, ""
        folder.mkdir(exist_ok=True)
        (folder / "hostfile").write_text(HOSTFILES.get(kind, ""))
        given = {**flags, "--output_dir": self.folder, "--master_port": free_port()}
        if kind.startswith("pdsh"):
            script, where = "deepspeed_multinode.sh", [hosts.b if kind == "pdsh from hostb" else hosts.a]
            given |= {"--hostfile": folder / "hostfile"}
        else:
            script, where = "torchrun.sh", [hosts.a, hosts.b]
            given |= {"--nnodes": 2, "--master_addr": "10.77.0.1"}
        self.scripts = []
        for number, host in enumerate(where):
            own = {**given, "--node_rank": number} if len(where) > 1 else given
            command = ["bash", REPO / "launch" / script, *(part for pair in own.items() for part in pair)]
            self.scripts.append(host.start(*command, cwd=REPO, PYTHON=sys.executable))

    def has_trained(self) -> bool:
        """True from the first checkpoint on."""
        assert not self._is_over(), self.outputs()
        return (self.folder / "checkpoint-2" / "commit.json").exists()

    def kill(self, host: Host, which: str) -> None:
        """Kills its rank or its launcher on a host."""
        everything = host.processes(str(self.folder))
        if which == "rank":
            mine = [one for one in everything if "REFINER_DS_WARDEN" in one.environ()]
        else:
            program = "torch.distributed.run" if self.kind == "torchrun" else "deepspeed.launcher"
            mine = [one for one in everything if program in " ".join(one.cmdline())]
        mine[0].kill()

    def ends(self, seconds: float) -> None:
        """Waits until nothing of it runs anywhere."""
        until(lambda: self._is_over() and not self._everywhere(), seconds)

    def ranks(self) -> list[psutil.Process]:
        """Its ranks on both hosts."""
        return [one for one in self._everywhere() if "REFINER_DS_WARDEN" in one.environ()]

    def logs(self) -> str:
        """What its ranks have said."""
        return "".join(path.read_text() for path in sorted((self.folder / "logs").iterdir()))

    def end(self) -> None:
        """Kills what is left of it."""
        for one in self._everywhere():
            one.kill()

    def outputs(self) -> str:
        """What its scripts have said; they have ended."""
        self._said += "".join(
            script.communicate(timeout=10)[0] for script in self.scripts if script.stdout and not script.stdout.closed
        )
        return self._said

    def _everywhere(self) -> list[psutil.Process]:
        return [one for host in (self._hosts.a, self._hosts.b) for one in host.processes(str(self.folder))]

    def _is_over(self) -> bool:
        return all(script.poll() is not None for script in self.scripts)


@pytest.fixture
def jobs(hosts: Hosts, flags, tmp_path):
    """`jobs("pdsh", "torchrun", **more)` starts a run by each, and does `then` to each as soon as it has trained."""
    started: list[Job] = []

    def run(*kinds: str, then: Callable[[Job], object] = lambda job: None, **more: object) -> list[Job]:
        given = {**flags, **{f"--{name}": value for name, value in more.items()}}
        started.extend(Job(hosts, kind, tmp_path / f"{number}-{kind}", given) for number, kind in enumerate(kinds))
        waiting = list(started)
        while waiting:
            until(lambda: any(job.has_trained() for job in waiting), START_WITHIN_SECONDS)
            for job in [job for job in waiting if job.has_trained()]:
                then(job)
                waiting.remove(job)
        return started

    yield run
    for job in started:
        job.end()


def test_a_killed_rank_ends_both_hosts_and_a_restart_continues_exactly(hosts, jobs, expected):
    first = []

    def kill(job: Job) -> None:
        first.extend(job.ranks())
        job.kill(hosts.b, "rank")

    both = jobs("pdsh", "torchrun", then=kill, max_restarts=1)
    until(lambda: not any(one.is_running() for one in first), WITHIN_SECONDS)
    for job in both:
        job.ends(120)
        told = job.outputs()
        assert "rank 1 of 2 on hostb was killed by SIGKILL" in told, told[-3000:]
        assert "restart 1 of 1: continues from the newest checkpoint" in told
        assert [script.returncode for script in job.scripts] == [0] * len(job.scripts), told[-3000:]
        assert losses(job.folder) == expected


@pytest.mark.long
def test_a_killed_launcher_ends_both_hosts(hosts, jobs):
    """The deepspeed launcher on a host without ranks, what another one started over ssh, and torchrun on hostb."""
    started = jobs("pdsh from outside", "pdsh", "torchrun", max_train_steps=100_000)
    for job, host in zip(started, (hosts.a, hosts.b, hosts.b), strict=True):
        job.kill(host, "launcher")
    for job in started:
        job.ends(WITHIN_SECONDS)
        assert 0 not in [script.returncode for script in job.scripts]
        assert "was ended because its launcher, process " in job.outputs() + job.logs()


@pytest.mark.long
def test_a_cable_that_comes_out_ends_both_hosts(hosts, jobs):
    (job,) = jobs("torchrun", max_train_steps=100_000, timeout_minutes=0.5)
    hosts.unplug(hosts.b)
    try:
        job.ends(SILENT_WITHIN_SECONDS)
    finally:
        hosts.plug(hosts.b)
    assert 0 not in [script.returncode for script in job.scripts]
    told = job.outputs()
    assert "rank 1 of 2 on hostb has not been heard of for 30 s" in told
    assert f"{job.folder}/logs/rank-00001.log and ends with:" in told


@pytest.mark.long
def test_a_host_whose_power_goes_ends_the_other_which_tells_it(hosts, jobs):
    by_pdsh, by_torchrun = jobs("pdsh from hostb", "torchrun", max_train_steps=100_000, timeout_minutes=0.5)
    hosts.power_off(hosts.a)
    try:
        for job in (by_pdsh, by_torchrun):
            job.ends(SILENT_WITHIN_SECONDS)
    finally:
        hosts.boot_again(hosts.a)
    for job, rank in ((by_pdsh, 1), (by_torchrun, 0)):
        assert job.scripts[-1].returncode != 0
        told = job.outputs()
        assert f"rank {rank} of 2 on hosta has not been heard of for 30 s" in told, told[-3000:]
        assert f"{job.folder}/logs/rank-0000{rank}.log and ends with:" in told
