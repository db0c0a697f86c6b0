"""Who a rank's launchers are: its ancestors, and the one that a script names."""

import os
import platform
import subprocess

import psutil

from refiner_ds.supervise.launcher import VARIABLE, first_gone, launchers


def test_the_launcher_that_a_script_names_is_watched_where_it_runs():
    """Over ssh it is nobody's parent, so that nothing else would tell of its end."""
    started = subprocess.Popen(["sleep", "60"])
    try:
        watched = launchers({VARIABLE: f"{platform.node()}:{started.pid}"})
        assert psutil.Process(started.pid) in watched and first_gone(watched) is None
        assert started.pid not in {one.pid for one in launchers({VARIABLE: f"another-host:{started.pid}"})}
    finally:
        started.kill()
    os.waitid(os.P_PID, started.pid, os.WEXITED | os.WNOWAIT)  # a zombie: its end counts before it is collected
    gone = first_gone(watched)
    assert gone and gone.pid == started.pid
    started.wait()
    assert first_gone(watched) == gone


def test_the_parent_is_watched_whatever_it_is():
    assert launchers({})[0].pid == os.getppid()
