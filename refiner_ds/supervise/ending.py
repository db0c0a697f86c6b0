"""What ended a job: the rank that was first, and how, in words for a person."""

import re
import signal
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

COMMAND = "refiner-ds train: "
"""What begins a sentence of training on how it ended."""
MISTAKE = 2
"""Exit code of what a person can mend, whose sentence has been said."""
LOST_PEER = re.compile(r"[Cc]onnection (closed|reset)|Broken pipe|Timed out|timed out|connectFullMesh|NCCL|gloo")
"""What gloo and NCCL say when another rank is gone."""


@dataclass(frozen=True)
class Ending:
    """How one rank ended.

    Attributes:
        how: what follows "rank 1 on hostb".
        code: exit code that the job ends with.
        tail: the last lines of its output.
        is_consequence: it failed because another was gone, as far as it can tell.
        is_untold: the others have noticed it, and it has told nobody.
    """

    rank: int
    host: str
    how: str
    code: int = 1
    log: str = ""
    tail: tuple[str, ...] = ()
    is_consequence: bool = False
    is_untold: bool = False

    def sentence(self, num_ranks: int) -> str:
        """Which rank, where, how, and where its log is; then the last lines of that."""
        said = f"rank {self.rank} of {num_ranks} on {self.host} {self.how}, and the job ends with it"
        if self.log:
            said += f"; its log is {self.log}"
        if not self.tail:
            return f"{said}."
        return "\n".join([f"{said} and ends with:", *(f"    {line}" for line in self.tail)])

    def cause(self, num_ranks: int) -> str:
        """The same in one line: of a rank that has said in a sentence why it ends that sentence alone."""
        said = self.tail[-1].strip() if self.tail else ""
        if self.code == MISTAKE and said.startswith(COMMAND):
            return said.removeprefix(COMMAND)
        how = f"rank {self.rank} of {num_ranks} on {self.host} {self.how}"
        return f"{how}: {said}" if said else how

    def as_json(self) -> dict[str, Any]:
        """Plain values, for `from_json` on another host."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Ending":
        """What `as_json` gave."""
        return cls(**{**values, "tail": tuple(values["tail"])})


def first_cause(endings: Iterable[Ending]) -> Ending:
    """Of what ended at about the same time the one that began it: the first that is no consequence, if any."""
    return min(endings, key=lambda ending: ending.is_consequence)


def is_abort_for_peer(code: int, tail: Iterable[str]) -> bool:
    """True for a child that NCCL's watchdog has ended because another rank is gone: there is no exception to tell it.

    The watchdog ends a rank for a fault of its own GPU too, which CUDA names.
    """
    said = "\n".join(tail)
    return code == -signal.SIGABRT and bool(LOST_PEER.search(said)) and "CUDA error" not in said


def how_it_ended(code: int) -> str:
    """A child's return code in words; negative ones are signals."""
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    why = " (by hand, or by the kernel for lack of memory)" if name == "SIGKILL" else ""
    return f"was killed by {name}{why}"


def exit_code_of(code: int) -> int:
    """The exit code that tells a child's end as a shell would: 128 + the signal."""
    return code if code >= 0 else 128 - code
