"""`refiner-ds VERB`: finds the verb, reads its options, hands them on. Heavy libraries load only once a verb runs."""

import contextlib
import io
import itertools
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import tyro

from refiner_ds import __version__
from refiner_ds.config import training
from refiner_ds.config.known import require_known_flags
from refiner_ds.config.verbs import benches, data, models, planning
from refiner_ds.errors import Failure, UserError
from refiner_ds.loading import load

VERBS: dict[str, tuple[type, str]] = {
    "example": (data.Example, "refiner_ds.verbs.example"),
    "base": (models.Base, "refiner_ds.verbs.base"),
    "pack": (data.Pack, "refiner_ds.verbs.pack"),
    "verify": (data.Verify, "refiner_ds.verbs.verify"),
    "index": (data.Index, "refiner_ds.verbs.index"),
    "encode": (data.Encode, "refiner_ds.verbs.encode"),
    "train": (training.Train, "refiner_ds.train.start"),
    "status": (models.Status, "refiner_ds.verbs.status"),
    "tracking sync": (models.TrackingSync, "refiner_ds.verbs.tracking_sync"),
    "tracking register": (models.TrackingRegister, "refiner_ds.verbs.tracking_register"),
    "checkpoints": (models.Checkpoints, "refiner_ds.verbs.checkpoints"),
    "export": (models.Export, "refiner_ds.verbs.export"),
    "import-legacy": (models.ImportLegacy, "refiner_ds.verbs.import_legacy"),
    "repair": (models.Repair, "refiner_ds.verbs.repair"),
    "evaluate": (models.Evaluate, "refiner_ds.verbs.evaluate"),
    "replay": (models.Replay, "refiner_ds.verbs.replay"),
    "bench data": (benches.BenchData, "refiner_ds.verbs.bench_data"),
    "bench step": (benches.BenchStep, "refiner_ds.verbs.bench_step"),
    "bench exchange": (benches.BenchExchange, "refiner_ds.verbs.bench_exchange"),
    "bench encode": (benches.BenchEncode, "refiner_ds.verbs.bench_encode"),
    "bench repair": (benches.BenchRepair, "refiner_ds.verbs.bench_repair"),
    "bench crops": (benches.BenchCrops, "refiner_ds.verbs.bench_crops"),
    "bench checkpoint": (benches.BenchCheckpoint, "refiner_ds.verbs.bench_checkpoint"),
    "bench all": (benches.BenchAll, "refiner_ds.verbs.bench_all"),
    "doctor": (planning.Doctor, "refiner_ds.verbs.doctor"),
    "plan": (planning.Plan, "refiner_ds.verbs.plan"),
    "quickstart": (models.Quickstart, "refiner_ds.verbs.quickstart"),
}
"""Every verb: its options, and the module whose `run(options)` does it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; 0 when it is done, 2 for a mistake that a person can mend, 1 for another failure, both told in one
    sentence."""
    # the deepspeed launcher adds --local_rank=N to every rank's arguments, and LOCAL_RANK says the same
    given = sys.argv[1:] if arguments is None else arguments
    arguments = [argument for argument in given if not argument.startswith("--local_rank")]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"refiner-ds {__version__}")
        return 0
    verb, rest = verb_in(arguments)
    if verb not in VERBS:
        print(f"refiner-ds: there is no verb '{verb}'; there are {', '.join(VERBS)}.", file=sys.stderr)
        return 2
    options, module = VERBS[verb]
    try:
        require_known_flags(verb, options, rest)
        parsed = _parsed(verb, options, rest)
        return load(module).run(parsed) or 0
    except UserError as error:
        print(f"refiner-ds {verb}: {error}", file=sys.stderr, flush=True)
        return 2
    except Failure as error:
        print(f"refiner-ds {verb}: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def verb_in(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The verb, which may be of two words, and what comes after it."""
    first, *rest = arguments
    if rest and f"{first} {rest[0]}" in VERBS:
        return f"{first} {rest[0]}", rest[1:]
    return first, rest


def _parsed(verb: str, options: type, arguments: list[str]) -> Any:
    """The options of a verb; what the parser would say in a frame of many lines comes as one sentence."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            return tyro.cli(options, args=arguments, prog=f"refiner-ds {verb}", use_underscores=True)
    except SystemExit as end:
        if not end.code:  # after --help
            raise
    raise UserError(f"{_sentence(told.getvalue())}; see `refiner-ds {verb} --help`.")


def _sentence(frame: str) -> str:
    """What is said in a frame of the parser: a title, perhaps a rule, what is wrong, a rule, advice."""
    title, *lines = (line.strip("│ ") for line in frame.splitlines())
    is_rule = re.compile(r"[─-]{9,}").fullmatch
    said = itertools.takewhile(lambda line: not is_rule(line), itertools.dropwhile(is_rule, lines))
    if "Required options" in title:
        names = re.findall(r"^│? {4,8}(--\w+|[A-Z]+)(?= |$)", frame, flags=re.MULTILINE)
        return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} missing"
    return " ".join(" ".join(said).split()).rstrip(".")


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {str(options.__doc__).splitlines()[0]}" for verb, (options, _) in VERBS.items()]
    head = [
        "usage: refiner-ds VERB [options]",
        "",
        "Trains diffusion refiners that repair Gaussian Splatting renders.",
        "",
    ]
    return "\n".join([*head, *lines, "", "refiner-ds VERB --help tells a verb's options."])
