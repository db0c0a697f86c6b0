"""`refiner-ds bench`: measures this machine, ours beside others."""

import json
import shlex
import sys
from dataclasses import fields

from refiner_ds.bench.contenders import chosen
from refiner_ds.bench.data import bench_data
from refiner_ds.bench.process import versions
from refiner_ds.bench.race import Course
from refiner_ds.bench.report import as_json, as_markdown
from refiner_ds.config.verbs import Bench
from refiner_ds.data.buckets import parse_buckets
from refiner_ds.folders import require_folder
from refiner_ds.verbs.progress import progress_bar


def run(options: Bench) -> int:
    """0 where every contender that is installed was measured, else 1."""
    for path in filter(None, (options.json, options.markdown)):
        require_folder(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
    course = Course(options.samples, options.workers, options.peers_python or sys.executable)
    with progress_bar() as tell:
        rows, about = bench_data(
            chosen(options.only), options.rounds, course, parse_buckets(options.buckets), options.manifest,
            options.output, tell,
        )  # fmt: skip
    about["command"] = _command(options)
    about["versions"] = versions(sys.executable, [])
    page = as_markdown(rows, about)
    print(page, end="")
    if options.json:
        options.json.write_text(json.dumps(as_json(rows, about), indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(page, encoding="utf-8")
    failed = [row for row in rows if row.state.startswith("failed")]
    for row in failed:
        print(f"{row.contender.name} {row.state}", file=sys.stderr)
    return 1 if failed else 0


def _command(options: Bench) -> str:
    """The command as a page shows it: what differs from the defaults, without folders of this machine."""
    words = ["refiner-ds", "bench", options.subject]
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name in ("json", "markdown", "output", "subject") or value == field.default:
            continue
        words += [f"--{field.name}", "PYTHON" if field.name == "peers_python" else getattr(value, "name", str(value))]
    return shlex.join(words)
