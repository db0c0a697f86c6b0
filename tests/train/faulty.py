"""Started by a launcher in place of refiner_ds.train: kills one rank at one moment, as the kernel would.

FAULT names it: the moment, the rank, and the checkpoint's step (the number of a micro-batch for "step").
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from refiner_ds.cli import main
from refiner_ds.supervise.link import LINK


def kill_at(owner: Any, name: str, is_time: Callable[..., bool]) -> None:
    """Puts a SIGKILL to this very process before a function's work, once it is time."""
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        if is_time(*arguments):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **named)

    setattr(owner, name, wrapped)


def prepare(moment: str, number: int) -> None:
    """Arms one moment of a save, or of a step."""
    if moment == "step":
        from refiner_ds.train.engine import Engine

        count = iter(range(1, 1_000_000))
        kill_at(Engine, "backward", lambda *_: next(count) == number)
        return
    from refiner_ds.checkpoint import store, tensor_file

    checkpoint = f"checkpoint-{number}"
    if moment == "write":  # its file has begun: the header is there
        kill_at(tensor_file, "_write", lambda file, chunk: checkpoint in file.name and file.tell() > 0)
    elif moment == "commit":  # all parts are on disk
        kill_at(store.Saver, "_commit", lambda saver, _: saver.step == number)
    elif moment == "rename":  # and the commit too
        kill_at(store, "publish", lambda scratch, *_: scratch.name.endswith(checkpoint))
    elif moment == "retention":  # the doomed checkpoint has lost its name
        kill_at(store.shutil, "rmtree", lambda path, *_: path.name == f".deleting-{checkpoint}")


if __name__ == "__main__":
    moment, rank, number = os.environ.get("FAULT", "none:-1:0").split(":")
    if LINK in os.environ and os.environ["RANK"] == rank:
        prepare(moment, int(number))
    sys.exit(main(["train", *sys.argv[1:]]))
