"""`refiner-ds verify`: reads shards back and names what is broken."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from refiner_ds.config.verbs.data import Verify
from refiner_ds.data.packing.crew import Tell
from refiner_ds.data.packing.look import Verified
from refiner_ds.data.store.opening import is_url
from refiner_ds.data.store.source import without_credentials
from refiner_ds.data.verify import verify
from refiner_ds.data.verify_remote import verify_remote
from refiner_ds.errors import UserError
from refiner_ds.verbs.progress import progress_bar


def run(options: Verify) -> int:
    """0 where every shard is sound, else 1 with a line for each problem."""
    started = time.monotonic()
    shards = sound = samples = size = count = 0
    with progress_bar() as tell:
        for file in _verified(options, tell):
            for problem in file.problems:
                print(problem, file=sys.stderr)
            count += len(file.problems)
            shards += bool(file.samples)
            sound += bool(file.samples and not file.problems)
            samples, size = samples + file.samples, size + file.bytes
    seconds = max(time.monotonic() - started, 1e-9)
    name = without_credentials(options.shards) if is_url(options.shards) else options.shards
    speed = f"{samples / seconds:.1f} samples/s, {size / 1e6 / seconds:.1f} MB/s"
    print(
        f"{name}: {sound} of {shards} shards sound, {count} problems; {samples} samples, {size / 1e6:.1f} MB "
        f"in {seconds:.1f} s ({speed})"
    )
    return 1 if count else 0


def _verified(options: Verify, tell: Tell) -> Iterator[Verified]:
    if is_url(options.shards):
        return verify_remote(options.shards, options.scratch, options.workers, tell)
    if options.scratch:
        raise UserError(
            f"--scratch {options.scratch} would have no effect, as {options.shards} is a folder that is read where it "
            "lies; leave it out."
        )
    return verify(Path(options.shards), options.workers, tell)
