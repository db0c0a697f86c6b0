"""`refiner-ds bench repair`: what a repaired picture costs on this machine, by ours and by the baseline's way."""

from pathlib import Path

from refiner_ds.bench.repairing import REPAIR, contenders
from refiner_ds.bench.step_material import make_material
from refiner_ds.bench.turns import Row, race
from refiner_ds.bench.turns_report import as_json, as_markdown
from refiner_ds.config.verbs.benches import BenchRepair
from refiner_ds.errors import UserError
from refiner_ds.refiners.protocol import Sampling
from refiner_ds.verbs.bench_model import DISK_BYTES, SHAPES, Setting, folder_for, load_now, make_base, setting_of
from refiner_ds.verbs.measured import prepare_files, tell
from refiner_ds.verbs.progress import progress_bar

MOST_STEPS = 1000
"""Of the schedule that a base is made with."""


def run(options: BenchRepair) -> None:
    """Measures, and prints the tables."""
    size = options.batch_size
    if size < 1:
        raise UserError(f"--batch_size {size} leaves nothing to repair; give at least 1.")
    if not 1 <= options.steps <= MOST_STEPS:
        raise UserError(f"--steps {options.steps} repairs nothing; take 1 to {MOST_STEPS}, the steps of the schedule.")
    setting, sampling = setting_of(options, on_gpu="fp16"), Sampling(options.steps)
    prepare_files(options.json, options.markdown)
    load = load_now()
    with folder_for(setting.size, DISK_BYTES[setting.size]) as folder:
        rows = _measured(setting, sampling, size, options.rounds, folder)
    what = f"pictures at once: {size}, {sampling}, {setting.precision_told}"
    more = {"batch_size": size, "steps": sampling.num_inference_steps, "guidance_scale": sampling.guidance_scale}
    about = setting.about("bench repair", options, load, what, **more)
    tell(as_markdown(rows, about, REPAIR), as_json(rows, about, REPAIR), options.json, options.markdown)


def _measured(setting: Setting, sampling: Sampling, batch_size: int, rounds: int, folder: Path) -> list[Row]:
    with progress_bar() as telling:
        material = make_material(folder / "pictures", setting.height, setting.width, batch_size, 1, telling)
        base = make_base(SHAPES[setting.size], folder)
        ways = contenders(base, material.batches[0], sampling, setting.dtype, setting.device)
        return race(ways, rounds, batch_size, setting.device, telling)
