"""`refiner-ds quickstart`: the whole path on this machine, small. Every step is a command that can be typed by hand."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from refiner_ds.config.verbs.models import Quickstart
from refiner_ds.errors import UserError
from refiner_ds.ports import free_port
from refiner_ds.state import FINISHED

DRAWING = ("--shapes", "416x112,160x120", "--baseline", "1.0", "--workers", "2")
"""The camera steps a metre aside, on its way to another lane."""
BUCKETS = "1.33:160x120,3.71:416x112"
TRAINING_STREETS = ("--streets", "12", "--frames", "10", "--seed", "1")
OTHER_STREETS = ("--streets", "3", "--frames", "4", "--seed", "501")


@dataclass(frozen=True)
class Step:
    """One command, to be run by `python -m`; it is not run again once `done` exists."""

    what: str
    command: Sequence[str]
    done: Path


def run(options: Quickstart) -> None:
    """Runs what is not yet done, then says where to look.

    Raises:
        UserError: a step failed; its own words stand above.
    """
    started = time.monotonic()
    environment = {**os.environ, "DS_ACCELERATOR": "cuda" if torch.cuda.is_available() else "cpu"}
    for step in _steps(options.out):
        if step.done.exists():
            print(f"\n=== {step.what}: done before, {step.done}", flush=True)
            continue
        print(f"\n=== {step.what}\n$ python -m {shlex.join(step.command)}", flush=True)
        code = subprocess.run([sys.executable, "-m", *step.command], env=environment, check=False).returncode
        # launchers can exit with 0 after a crash: what the step leaves is what counts
        if code or not step.done.exists():
            raise UserError(
                f"'{step.what}' ended with exit code {code} and without {step.done}, so the rest cannot follow; "
                "mend what it says above and start quickstart again, which goes on from here."
            )
    _say_where(options.out, time.monotonic() - started)


def _steps(out: Path) -> list[Step]:
    street, other, base, shards = out / "street", out / "other_streets", out / "base", out / "shards"
    training, refiner = out / "training", out / "refiner"
    return [
        _verb("draw streets to train on", street / "manifest.json", "example", street, *TRAINING_STREETS, *DRAWING),
        _verb("draw other streets to test on", other / "manifest.json", "example", other, *OTHER_STREETS, *DRAWING),
        _verb("make a tiny base checkpoint", base / "model_index.json", "base", base, "--size", "tiny"),
        _verb("pack the pictures into shards", shards / "index.json", "pack", street / "manifest.json", shards),
        Step("train under DeepSpeed ZeRO-2", _training(base, shards, training), training / FINISHED),
        _verb("export the refiner", refiner / "model_index.json", "export", training, refiner),
        _verb(
            "repair pictures of streets it has never seen, and compare",
            out / "report.html",
            "evaluate",
            *_flags({"--model": refiner, "--manifest": other / "manifest.json", "--output": out, "--run": training}),
        ),
    ]


def _verb(what: str, done: Path, *arguments: object) -> Step:
    return Step(what, ["refiner_ds", *map(str, arguments)], done)


def _training(base: Path, shards: Path, training: Path) -> list[str]:
    """Training under the deepspeed launcher on every GPU there is, or on two CPU ranks."""
    launcher: dict[str, object] = {
        # the launcher takes the GPUs that it may see by itself; given a number, it forgets which those are
        **({} if torch.cuda.is_available() else {"--num_gpus": 2}),
        "--master_port": free_port(),
        "--log_level": "error",
        "--module": "refiner_ds.train",
    }
    settings: dict[str, object] = {
        "--shards": shards,
        "--pretrained_model_name_or_path": base,
        "--output_dir": training,
        "--deepspeed_config": Path(__file__).parents[2] / "ds_configs" / _configuration(),
        "--buckets": BUCKETS,
        "--max_train_steps": 1000,
        "--train_batch_size": 4,
        "--gradient_accumulation_steps": 1,
        "--learning_rate": 1.5e-3,
        "--lr_scheduler": "cosine",
        "--lr_warmup_steps": 50,
        "--adam_beta2": 0.99,
        "--source_loss_weight": 0.02,
        "--condition_dropout_prob": 0,
        "--checkpointing_steps": 500,
        "--checkpoints_total_limit": 2,
        "--validation_epochs": 40,
        "--dataloader_num_workers": 1,
        "--tracking_uri": f"sqlite:///{training.parent.resolve()}/mlflow.db",
    }
    return ["deepspeed.launcher.runner", *_flags(launcher), *_flags(settings)]


def _flags(settings: dict[str, object]) -> list[str]:
    return [str(part) for pair in settings.items() for part in pair]


def _configuration() -> str:
    """bf16, or fp32 on a CPU that would only emulate bf16, several times slower."""
    has_bf16 = torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "zero2_bf16.json" if has_bf16 else "zero2_fp32.json"


def _say_where(out: Path, seconds: float) -> None:
    figures = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    gain = figures["repaired"]["psnr"] - figures["render"]["psnr"]
    print(
        f"\nquickstart took {seconds / 60:.1f} minutes. On {figures['samples']} pictures of streets it has never seen, "
        f"the refiner gains {gain:+.2f} dB PSNR.\n"
        f"  report        {out / 'report.html'}\n"
        f"  refiner       {out / 'refiner'}\n"
        f"  MLflow        mlflow ui --backend-store-uri sqlite:///{out / 'mlflow.db'}\n"
    )
