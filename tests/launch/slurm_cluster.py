"""A SLURM cluster of one node, this machine, that a test has for itself: all of it lies below one folder."""

import contextlib
import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path

import psutil

from tests.train.launch import REPO, free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "sinfo")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
SETTINGS = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """One node that claims to have two GPUs. Its clients find it by `environment`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._daemons: list[subprocess.Popen] = []
        self.environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf")}

    def start(self) -> None:
        """Starts the three daemons and waits until the node takes jobs."""
        folder = self._folder
        for name in ("munge", "state", "spool"):
            (folder / name).mkdir(mode=0o700)
        (folder / "munge" / "key").touch(mode=0o600)
        (folder / "munge" / "key").write_bytes(os.urandom(1024))
        for number in range(2):  # SLURM counts the files of its GPUs, and our jobs do not open them
            (folder / f"gpu{number}").touch()
        (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-1]\n")
        host = platform.node().partition(".")[0]
        ports = {"controller_port": free_port(), "node_port": free_port()}
        text = SETTINGS.format(host=host, folder=folder, cpus=os.cpu_count(), **ports)
        (folder / "slurm.conf").write_text(text)
        munge = [f"--{name}-file={folder}/munge/{name}" for name in ("key", "pid", "log", "seed")]
        self._daemon("munged", "--foreground", "--force", f"--socket={folder}/munge/socket", *munge)
        self._until(lambda: (folder / "munge" / "socket").exists())
        self._daemon("slurmctld", "-D", "-c")
        self._daemon("slurmd", "-D", "-c")
        self._until(lambda: self.ask("sinfo", "--noheader", "--format=%T").strip() == "idle")

    def stop(self) -> None:
        """Ends the daemons, the latest first, and whatever jobs are left below them."""
        for daemon in reversed(self._daemons):
            below = []
            with contextlib.suppress(psutil.NoSuchProcess):
                below = psutil.Process(daemon.pid).children(recursive=True)
            daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
            for process in below:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            daemon.kill()
            daemon.wait()

    def ask(self, *command: str, seconds: float = 60) -> str:
        """What a client of SLURM prints; empty where it fails."""
        return subprocess.run(
            command, env=self.environment, cwd=REPO, capture_output=True, text=True, timeout=seconds, check=False
        ).stdout

    def state(self, job: str) -> str:
        """Such as PENDING, RUNNING, COMPLETED, FAILED; COMPLETING is not over."""
        return self._of(job, "JobState")

    def exit_code(self, job: str) -> int:
        """Of the job's script."""
        return int(self._of(job, "ExitCode").partition(":")[0])

    def wait(self, job: str, *states: str, seconds: float = 90) -> None:
        """Waits until a job is in one of the states."""
        self._until(lambda: self.state(job) in states, seconds, lambda: self.ask("scontrol", "show", "job", job))

    def _of(self, job: str, name: str) -> str:
        found = re.search(rf"\b{name}=(\S+)", self.ask("scontrol", "show", "job", job))
        return found.group(1) if found else ""

    def _daemon(self, *command: str) -> None:
        output = (self._folder / f"{command[0]}.out").open("w")
        self._daemons.append(subprocess.Popen(command, env=self.environment, stdout=output, stderr=subprocess.STDOUT))

    def _until(self, is_so, seconds: float = 30, tell=lambda: "") -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            logs = "\n".join(path.read_text()[-1500:] for path in sorted(self._folder.glob("slurm*.log")))
            assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain\n{tell()}\n{logs}"
            time.sleep(0.1)


def missing() -> str:
    """Why there can be no cluster here; empty if there can."""
    if os.geteuid() != 0:
        return "slurmd and munged of a test need root"
    programs = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
    return f"{', '.join(programs)} missing: install slurm-wlm and munge" if programs else ""
