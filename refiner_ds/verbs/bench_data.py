"""`refiner-ds bench data`: measures this machine's data path, ours beside others."""

import sys

from refiner_ds.bench.contenders import chosen
from refiner_ds.bench.data import bench_data
from refiner_ds.bench.process import versions
from refiner_ds.bench.race import Course
from refiner_ds.bench.report import as_json, as_markdown
from refiner_ds.config.verbs.benches import BenchData
from refiner_ds.data.buckets import parse_buckets
from refiner_ds.verbs.measured import command_of, prepare_files, tell
from refiner_ds.verbs.progress import progress_bar


def run(options: BenchData) -> int:
    """0 where every contender that is installed was measured, else 1."""
    prepare_files(options.json, options.markdown)
    course = Course(options.samples, options.workers, options.peers_python or sys.executable)
    with progress_bar() as telling:
        rows, about = bench_data(
            chosen(options.only), options.rounds, course, parse_buckets(options.buckets), options.manifest,
            options.output, telling,
        )  # fmt: skip
    about["command"] = command_of("bench data", options)
    about["versions"] = versions(sys.executable, [])
    tell(as_markdown(rows, about), as_json(rows, about), options.json, options.markdown)
    failed = [row for row in rows if row.state.startswith("failed")]
    for row in failed:
        print(f"{row.contender.name} {row.state}", file=sys.stderr)
    return 1 if failed else 0
