"""`.OUT.packing` beside OUT: what is done of packing OUT, so that a killed run goes on; OUT appears by one rename.

For encoding it is `.OUT.encoding`. It holds checked.jsonl (what was found in each sample), problems.txt (what cannot be
packed), and for the plan that is being written plan-DIGEST/shards, which becomes OUT, and plan-DIGEST/sums with a note
of what each complete shard holds.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from refiner_ds.data.index import FILE_NAME
from refiner_ds.errors import UserError
from refiner_ds.folders import require_free, sync


class Scratch:
    """The scratch folder of one output folder, for what is done to it in two words: `verb` and `doing`."""

    def __init__(self, out: Path, verb: str = "pack", doing: str = "packing"):
        self.out, self._verb, self._doing = out.resolve(), verb, doing
        self.folder = self.out.with_name(f".{self.out.name}.{doing}")
        self.findings = self.folder / "checked.jsonl"
        self.problems = self.folder / "problems.txt"

    def require_free(self, digest: str = "*") -> None:
        """Refuses an output folder that holds something else than what this folder's plan has become.

        Raises:
            UserError: the output folder is taken, or cannot be made.
        """
        if not self.is_committed(digest):
            require_free(self.out, f"{self._doing} would mix two data sets")

    def is_committed(self, digest: str) -> bool:
        """Whether a run that ended right after its last rename left this plan, whose shards are the output now."""
        plans = self.folder.glob(f"plan-{digest}")
        return (self.out / FILE_NAME).exists() and any(not (plan / "shards").exists() for plan in plans)

    def list_problems(self, problems: Mapping[int, str]) -> None:
        """Writes a line for each sample that cannot be packed: its number in the manifest, and why."""
        text = "".join(f"{number}\t{problem}\n" for number, problem in problems.items())
        self.problems.write_text(text, encoding="utf-8")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other packers out of this folder while the block runs; the lock of a killed one is gone with it.

        Raises:
            UserError: another process works on the same folder, or files in it cannot be read or written.
        """
        descriptor = self._lock()
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.folder}, which keeps what is done, cannot be worked in ({error.filename}: {error.strerror}); "
                f"make room or mend it and {self._verb} again, which goes on from here."
            ) from error
        finally:
            os.close(descriptor)

    def _lock(self) -> int:
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / "lock"
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:  # another run has just ended and taken the folder away
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(descriptor)
                raise UserError(
                    f"another process is {self._doing} into {self.out}, and two would undo each other's work; "
                    "wait for it, or name another folder."
                ) from error
            except OSError:
                pass  # a file system without locks, as some clusters mount theirs: nothing keeps two apart there
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
            os.close(descriptor)  # of a folder that was taken away

    def begin(self, digest: str, say: Callable[[str], None]) -> "Writing":
        """The place of a plan's shards; those of another plan are cleared."""
        for other in self.folder.glob("plan-*"):
            if other.name != f"plan-{digest}":
                say(f"{other} holds shards of other pictures or options; clearing them")
                shutil.rmtree(other)
        return self.join(digest)

    def join(self, digest: str) -> "Writing":
        """The place of a plan's shards, for processes that help the one that has the lock."""
        writing = Writing(self, self.folder / f"plan-{digest}")
        writing.shards.mkdir(parents=True, exist_ok=True)
        writing.sums.mkdir(exist_ok=True)
        return writing

    def remove(self) -> None:
        """Takes the folder away, once the output is in place."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Writing:
    """The shards of one plan while they are written."""

    def __init__(self, scratch: Scratch, folder: Path):
        self._scratch = scratch
        self.shards, self.sums = folder / "shards", folder / "sums"

    def commit(self, names: set[str]) -> None:
        """Makes the shards folder the output folder; what is not in `names` was left by a killed process and goes."""
        for path in self.shards.iterdir():
            if path.name not in names:
                path.unlink()
        sync(self.shards)
        self.shards.replace(self._scratch.out)
        sync(self._scratch.out.parent)
