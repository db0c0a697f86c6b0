"""`refiner-ds doctor`: looks at this machine, or at every host of a hostfile, before a run is started there."""

import json
import os
import platform
import sys
from pathlib import Path

from refiner_ds.config.deepspeed import read_json
from refiner_ds.config.verbs.planning import Doctor
from refiner_ds.doctor.hostfile import Place, read_hostfile
from refiner_ds.doctor.hosts import Hosts
from refiner_ds.doctor.report import as_json, as_table
from refiner_ds.doctor.survey import Asked, Survey
from refiner_ds.errors import UserError
from refiner_ds.estimate.disk import checkpoints_to_come
from refiner_ds.folders import require_folder

OPTIONAL = {
    "shards": "shards",
    "output_dir": "output_dir",
    "pretrained_model_name_or_path": "base",
    "tracking_uri": "tracking_uri",
}
"""Flags of what is only looked at where it is named, and what is asked of it."""
TOLD_BY_PLAN = (
    "use_ema",
    "checkpoints_total_limit",
    "keep_best",
    "keep_every",
    "max_train_steps",
    "checkpointing_steps",
)


def run(options: Doctor) -> int:
    """0 where no line is red, else 1."""
    places = read_hostfile(options.hostfile) if options.hostfile else (Place(platform.node() or "localhost", 1),)
    _require_numbers(options)
    if options.json and str(options.json) != "-":
        require_folder(options.json.parent)
    asked = _asked(options)
    hosts = Hosts(places, is_local=options.hostfile is None)
    try:
        lines = Survey(hosts, asked, options.hostfile is None).run()
    finally:
        hosts.close()
    told = json.dumps(as_json(lines, [place.host for place in places]), indent=1)
    if str(options.json) == "-":
        print(told)
    else:
        print(as_table(lines, len(places), sys.stdout.isatty()))
        if left := left_out(asked):
            print(f"not looked at, as not named: {', '.join(left)}")
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(told + "\n", encoding="utf-8")
    return 1 if any(line.state == "fail" for line in lines) else 0


def left_out(asked: Asked) -> list[str]:
    """The flags of what is not looked at."""
    return [f"--{flag}" for flag, name in OPTIONAL.items() if not getattr(asked, name)]


def _require_numbers(options: Doctor) -> None:
    if not 1 <= options.master_port <= 65535:
        raise UserError(
            f"--master_port {options.master_port} is no port, so ranks cannot meet there; give a number from 1024 to "
            "65535."
        )
    names = ("train_batch_size", "gradient_accumulation_steps", "max_train_steps", "checkpoints_total_limit")
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value} leaves nothing to train or to keep; give 1 or more.")
    for name in ("keep_best", "keep_every"):
        value = getattr(options, name)
        if value < 0 or (value and options.checkpoints_total_limit is None):
            raise UserError(
                f"--{name} {value} counts nothing without a limit, or below 0; give it with --checkpoints_total_limit, "
                "or leave it out."
            )


def _asked(options: Doctor) -> Asked:
    config = read_json(options.deepspeed_config) if options.deepspeed_config else {}
    size, count = _checkpoints(options)
    return Asked(
        shards=options.shards,
        output_dir=str(options.output_dir) if options.output_dir else None,
        base=options.pretrained_model_name_or_path,
        revision=options.revision,
        variant=options.variant,
        tracking_uri=options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI"),
        experiment=options.experiment,
        port=options.master_port,
        has_average=options.use_ema,
        checkpoint_size=size,
        checkpoints=count,
        config=config,
        micro_batch_size=options.train_batch_size,
        accumulation_steps=options.gradient_accumulation_steps,
        asks_batch=bool(config or options.train_batch_size or options.gradient_accumulation_steps),
        environment=_carried_by_deepspeed() if options.hostfile else {},
    )


def _checkpoints(options: Doctor) -> tuple[int | None, int | None]:
    """Bytes of a checkpoint as a plan has counted them, and how many lie on the disk at most; None where not known."""
    if options.plan is None:
        numbers = (options.checkpoints_total_limit, options.max_train_steps, options.checkpointing_steps)
        return None, checkpoints_to_come(*numbers, options.keep_best, options.keep_every)
    if given := [name for name in TOLD_BY_PLAN if getattr(options, name) != getattr(Doctor, name)]:
        raise UserError(
            f"--{given[0]} would have no effect beside --plan {options.plan}, which says how large checkpoints are and "
            "how many there will be; leave one of both out."
        )
    try:
        disk = json.loads(options.plan.read_text(encoding="utf-8"))["disk"]
        return int(disk["one"]), None if disk["count"] is None else int(disk["count"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--plan {options.plan} is no plan that can be read, so the size of checkpoints is not known; write one by "
            f"`refiner-ds plan ... --json {options.plan}`."
        ) from error


def _carried_by_deepspeed() -> dict[str, str]:
    """The files whose variables the deepspeed launcher carries to the hosts, by name."""
    name = os.environ.get("DS_ENV_FILE", ".deepspeed_env")
    paths = {(folder / name).resolve(): folder / name for folder in (Path.home(), Path())}
    return {str(path): path.read_text(errors="replace") for path in paths.values() if path.is_file()}
