"""The processes that started a rank: without them nobody would end it, so it ends with them."""

import contextlib
import os
import platform
import re
from collections.abc import Mapping

import psutil

VARIABLE = "REFINER_DS_LAUNCHER"
"""HOST:PID of the process that started the job, which the scripts of launch/ set: over ssh it is nobody's parent."""
NAMES = re.compile(r"deepspeed|torchrun|torch[./]distributed|accelerate")


def launchers(environment: Mapping[str, str]) -> list[psutil.Process]:
    """This process's parent, its further ancestors as far as they are launchers, and who is named in the environment.

    The deepspeed launcher is two processes, of which the outer one can be killed without a word to the inner. Where it
    is on another host, it is the connection from there that ends with it.
    """
    ancestors = psutil.Process().parents()
    found = ancestors[:1]
    for ancestor in ancestors[1:]:
        if not _is_launcher(ancestor):
            break
        found.append(ancestor)
    host, _, number = environment.get(VARIABLE, "").rpartition(":")
    if host and host != platform.node():
        found += [ancestor for ancestor in ancestors if ancestor.name().startswith("sshd")][:1]
    elif number.isdecimal() and int(number) != os.getpid():
        with contextlib.suppress(psutil.NoSuchProcess):  # then it is one of another container that shares the name
            found.append(psutil.Process(int(number)))
    return found


def _is_launcher(process: psutil.Process) -> bool:
    """True for Python that runs one of the launchers; shells that started one come and go."""
    try:
        program, *arguments = process.cmdline() or [""]
    except psutil.Error:
        return False
    return "python" in os.path.basename(program) and bool(NAMES.search(" ".join(arguments[:3])))


def first_gone(processes: list[psutil.Process]) -> psutil.Process | None:
    """The first that has ended, also where nobody has taken note of its end yet."""
    for process in processes:
        try:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return process
        except psutil.NoSuchProcess:
            return process
    return None
