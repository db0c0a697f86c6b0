"""`refiner-ds bench encode`: what the frozen encoders cost on this machine, by ours and by the baseline's way."""

from pathlib import Path

from refiner_ds.bench.encoding import ENCODING, contenders
from refiner_ds.bench.step_material import make_material
from refiner_ds.bench.turns import Row, race
from refiner_ds.bench.turns_report import as_json, as_markdown
from refiner_ds.config.verbs.benches import BenchEncode
from refiner_ds.errors import UserError
from refiner_ds.verbs.bench_model import DISK_BYTES, SHAPES, Setting, folder_for, load_now, make_base, setting_of
from refiner_ds.verbs.measured import prepare_files, tell
from refiner_ds.verbs.progress import progress_bar

SHAPED = {"tiny": "tiny", "full": "full-encoders"}
"""Sizes of the base, whose network is not needed."""


def run(options: BenchEncode) -> None:
    """Measures, and prints the tables."""
    size = options.train_batch_size
    if size < 1:
        raise UserError(f"--train_batch_size {size} leaves nothing to encode; give at least 1.")
    setting = setting_of(options)
    prepare_files(options.json, options.markdown)
    load = load_now()
    with folder_for(setting.size, DISK_BYTES[SHAPED[setting.size]]) as folder:
        rows = _measured(setting, size, options.rounds, folder)
    what = f"micro-batch {size}, ours in {setting.precision_told}"
    about = setting.about("bench encode", options, load, what, micro_batch_size=size)
    tell(as_markdown(rows, about, ENCODING), as_json(rows, about, ENCODING), options.json, options.markdown)


def _measured(setting: Setting, micro_batch_size: int, rounds: int, folder: Path) -> list[Row]:
    with progress_bar() as telling:
        material = make_material(folder / "pictures", setting.height, setting.width, micro_batch_size, 1, telling)
        base = make_base(SHAPES[SHAPED[setting.size]], folder)
        ways = contenders(base, material, setting.dtype, setting.device)
        return race(ways, rounds, micro_batch_size, setting.device, telling)
