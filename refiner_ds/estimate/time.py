"""How long a run takes, from a rate that somebody gives or that an earlier run has measured."""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from refiner_ds.errors import UserError
from refiner_ds.tracking.journal import SETTINGS, read_metrics

RATE = "train/pairs_per_s"
"""The journal's figure: pairs per second of all ranks together, without checkpoints and validations."""


@dataclass(frozen=True)
class Rate:
    """Pairs that one rank trains on in a second, and where that is from."""

    per_rank: float
    source: str


def given_rate(pairs_per_second: float) -> Rate:
    """What somebody says of one rank.

    Raises:
        UserError: nothing would ever be trained at it.
    """
    if not 0 < pairs_per_second < float("inf"):
        raise UserError(f"--pairs_per_second {pairs_per_second} trains nothing; give a number above 0, of one rank.")
    return Rate(pairs_per_second, "--pairs_per_second")


def measured_rate(folder: Path) -> Rate:
    """The median rate of a run's steps, of one of its ranks.

    Raises:
        UserError: the folder holds no run, or one that has read no rate yet.
    """
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        ranks = int(settings["num_ranks"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--rate_from {folder} holds no run ({SETTINGS} cannot be read), so there is no rate to take; name the "
            "--output_dir of a run."
        ) from error
    rates = [rate for rate in read_metrics(folder).get(RATE, {}).values() if 0 < rate < float("inf")]
    if not rates:
        raise UserError(
            f"--rate_from {folder} has no {RATE} in its journal yet; wait for its first --logging_steps, or give "
            "--pairs_per_second."
        )
    return Rate(statistics.median(rates) / ranks, f"median of {len(rates)} steps on {ranks} ranks in {folder}")


def hours(pairs: int, rate: Rate, ranks: int) -> float:
    """Hours for so many pairs, if every rank is as fast as one: exchange between ranks and reading are not in it."""
    return pairs / (rate.per_rank * ranks) / 3600
