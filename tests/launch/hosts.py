"""Two hosts on this machine, for a test alone: own networks, processes, names and sshd; their files are shared."""

import contextlib
import os
import platform
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

PROGRAMS = ("unshare", "nsenter", "ip", "ssh", "ssh-keygen", "sshd", "pdsh")
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
NETWORK = "10.77.0"
LIFE_SECONDS = 1200  # a forgotten host ends by itself
TRACKING = "refiner_ds.tracking.ship"  # the tracking process outlives a run on purpose
# Debian's installer gives a host's own name the address 127.0.1.1, where no other host reaches it
NAMES = "127.0.0.1 localhost\n127.0.1.1 {own}\n{others}\n"
SSHD = """
ListenAddress 0.0.0.0
HostKey {folder}/hostkey
AuthorizedKeysFile {folder}/ssh/authorized_keys
PasswordAuthentication no
UsePAM no
StrictModes no
PidFile none
MaxStartups 100
"""
BOOT = """
mount --make-rprivate /
hostname {name}
mount --bind {folder}/ssh {ssh}
mount --bind {folder}/hosts /etc/hosts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
ip link set lo up
until ip link show net0 >/dev/null 2>&1; do sleep 0.05; done
ip addr add {address}/24 dev net0
ip link set net0 up
exec {sshd} -D -e -f {folder}/sshd.conf
"""


class Host:
    """One of the hosts; `pid` is its first process, and gone when its power is off."""

    def __init__(self, name: str, number: int, folder: Path) -> None:
        self.name, self.address, self.folder = name, f"{NETWORK}.{number}", folder
        self._namespaces: subprocess.Popen | None = None
        self.pid = 0

    def prepare(self, ssh: Path, others: str) -> None:
        """Writes what the host boots from: its keys, its names, its sshd's settings."""
        (self.folder / "ssh").mkdir(parents=True, mode=0o700)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / "hostkey"], check=True)
        (self.folder / "hosts").write_text(NAMES.format(own=self.name, others=others))
        (self.folder / "sshd.conf").write_text(SSHD.format(folder=self.folder))
        words = {"name": self.name, "address": self.address, "folder": self.folder, "ssh": ssh}
        (self.folder / "boot.sh").write_text(BOOT.format(**words, sshd=shutil.which("sshd", path=PATH)))

    def boot(self) -> None:
        """Starts it up to the wait for its network card."""
        kinds = ["--net", "--pid", "--uts", "--ipc", "--mount", "--fork", "--mount-proc", "--kill-child"]
        self._namespaces, self.pid = in_namespaces(kinds, ["bash", "-e", str(self.folder / "boot.sh")], self.folder)

    def run(self, *command: object, seconds: float = 120, **more: str) -> subprocess.CompletedProcess:
        """Runs a command on the host to its end, its two outputs in one."""
        process = self.start(*command, **more)
        try:
            output, _ = process.communicate(timeout=seconds)
        finally:
            process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def start(self, *command: object, cwd: Path | None = None, **more: str) -> subprocess.Popen:
        """Starts a command on the host, in this folder, with an environment that has `more`."""
        enter = ["nsenter", "-t", str(self.pid), "-n", "-p", "-u", "-i", "-m", f"--wd={cwd or Path.cwd()}", "--"]
        environment = {**os.environ, "PATH": PATH, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", **more}
        return subprocess.Popen(
            [*enter, *map(str, command)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def processes(self, word: str) -> list[psutil.Process]:
        """The host's processes with a word among their arguments, the oldest first."""
        if not self.pid or not psutil.pid_exists(self.pid):
            return []
        found, own = [], os.readlink(f"/proc/{self.pid}/ns/pid")
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                line = " ".join(process.cmdline())
                if word in line and TRACKING not in line and os.readlink(f"/proc/{process.pid}/ns/pid") == own:
                    found.append(process)
        return sorted(found, key=lambda process: process.create_time())

    def power_off(self) -> None:
        """Ends all of its processes at once."""
        if self._namespaces:
            end(self._namespaces, self.pid)
        self._namespaces = None


class Hosts:
    """hosta and hostb on one switch, each known to the other's ssh."""

    def __init__(self, folder: Path) -> None:
        self.a, self.b = Host("hosta", 1, folder / "a"), Host("hostb", 2, folder / "b")
        self._folder = folder
        self._ssh = Path(pwd.getpwuid(0).pw_dir) / ".ssh"  # where ssh looks, whatever HOME says
        self._has_ssh = self._ssh.exists()
        self._switch: subprocess.Popen | None = None
        self._switch_pid = 0

    def up(self) -> None:
        """Brings both up and waits until each reaches the other by ssh."""
        self._ssh.mkdir(mode=0o700, exist_ok=True)
        for host, other in ((self.a, self.b), (self.b, self.a)):
            host.prepare(self._ssh, f"{other.address} {other.name}")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._folder / "id"], check=True)
        for host in (self.a, self.b):
            shutil.copy(self._folder / "id", host.folder / "ssh" / "id_ed25519")
            shutil.copy(self._folder / "id.pub", host.folder / "ssh" / "authorized_keys")
            self.know_keys(host)
        # an own namespace, so that a host that is gone leaves the other's network alone
        kinds = ["--net", "--fork", "--kill-child"]
        self._switch, self._switch_pid = in_namespaces(kinds, ["sleep", "infinity"], self._folder)
        self._on_switch("link", "add", "br0", "type", "bridge")
        self._on_switch("link", "set", "br0", "up")
        for host in (self.a, self.b):
            self._connect(host)
        self._reach_each_other()

    def down(self) -> None:
        """Ends both hosts and the switch."""
        for host in (self.a, self.b):
            host.power_off()
        if self._switch:
            end(self._switch, self._switch_pid)
        if not self._has_ssh:
            self._ssh.rmdir()

    def know_keys(self, host: Host) -> None:
        """Makes both hosts known to one's ssh."""
        lines = [f"{one.name},{one.address} {(one.folder / 'hostkey.pub').read_text()}" for one in (self.a, self.b)]
        (host.folder / "ssh" / "known_hosts").write_text("".join(lines))

    def unplug(self, host: Host) -> None:
        """Takes its cable out: no packet arrives any more, and nobody is told."""
        self._on_switch("link", "set", f"to-{host.name}", "down")

    def power_off(self, host: Host) -> None:
        """Ends all of its processes at once, and no connection of theirs is closed."""
        self.unplug(host)
        host.power_off()

    def plug(self, host: Host) -> None:
        """Puts its cable back in, and waits until each reaches the other by ssh."""
        self._on_switch("link", "set", f"to-{host.name}", "up")
        self._reach_each_other()

    def boot_again(self, host: Host) -> None:
        """Brings one up that was off, and waits until each reaches the other by ssh."""
        self._on_switch("link", "delete", f"to-{host.name}")
        self._connect(host)
        self._reach_each_other()

    def _connect(self, host: Host) -> None:
        host.boot()
        cable = f"to-{host.name}"
        self._on_switch("link", "add", cable, "type", "veth", "peer", "name", "net0", "netns", str(host.pid))
        self._on_switch("link", "set", cable, "master", "br0", "up")

    def _reach_each_other(self) -> None:
        for host, other in ((self.a, self.b), (self.b, self.a)):
            asked = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=2", other.address, "true"]
            until(lambda host=host, asked=asked: host.run(*asked, seconds=10).returncode == 0, 20)

    def _on_switch(self, *words: str) -> None:
        command = ["nsenter", "-t", str(self._switch_pid), "-n", "--", "ip", *words]
        subprocess.run(command, env={**os.environ, "PATH": PATH}, check=True, timeout=10)


def in_namespaces(kinds: list[str], command: list[str], folder: Path) -> tuple[subprocess.Popen, int]:
    """Starts a command in namespaces of its own, for LIFE_SECONDS at most: what holds them, and the command's id."""
    with (folder / "boot.log").open("w") as log:
        limited = ["timeout", "--signal=KILL", str(LIFE_SECONDS), "unshare", *kinds, *command]
        holder = subprocess.Popen(limited, env={**os.environ, "PATH": PATH}, stdout=log, stderr=log)
    until(lambda: _only_child(_only_child(holder.pid)), 10)
    return holder, _only_child(_only_child(holder.pid))


def end(holder: subprocess.Popen, pid: int) -> None:
    """Ends what `in_namespaces` started, and with the command all that was started in its namespaces."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 9)
    holder.wait(timeout=20)


def _only_child(pid: int) -> int:
    """The first process that this one has started; 0 if it has started none."""
    with contextlib.suppress(OSError):
        return int([*Path(f"/proc/{pid}/task/{pid}/children").read_text().split(), 0][0])
    return 0


def until(is_so, seconds: float) -> None:
    """Waits for something, or fails."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain"
        time.sleep(0.1)


def missing() -> str:
    """Why there can be no two hosts here; empty if there can."""
    if platform.system() != "Linux" or os.geteuid() != 0:
        return "namespaces of a test need Linux and root"
    programs = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
    if programs:
        return f"{', '.join(programs)} missing: install iproute2, openssh-server and pdsh"
    may = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False).returncode == 0
    return "" if may else "this root may make no namespaces, as in a container without privileges"


@contextlib.contextmanager
def two_hosts(folder: Path) -> Iterator[Hosts]:
    """Two hosts as long as the block lasts."""
    hosts = Hosts(folder)
    try:
        hosts.up()
        yield hosts
    finally:
        hosts.down()
