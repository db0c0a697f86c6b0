"""Started as a process: runs a verb and prints the bytes of memory that it took at most beyond what its imports take.

Arguments are the verb's. What counts is resident memory, mapped files included.
"""

import importlib
import sys
import threading
import time
from pathlib import Path

from refiner_ds.cli import VERBS, main


def resident_bytes(field: str = "VmRSS") -> int:
    """A figure of this process that the system keeps in kilobytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    importlib.import_module(VERBS[sys.argv[1]][1])
    before, anonymous, ends = resident_bytes(), [0], threading.Event()

    def watch() -> None:
        while not ends.is_set():
            anonymous.append(resident_bytes("RssAnon"))
            time.sleep(0.01)

    own = resident_bytes("RssAnon")
    threading.Thread(target=watch, daemon=True).start()
    code = main(sys.argv[1:])
    ends.set()
    print(resident_bytes("VmHWM") - before, max(anonymous) - own)
    sys.exit(code)
