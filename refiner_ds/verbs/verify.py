"""`refiner-ds verify`: reads shards back and names what is broken."""

import sys
import time

from refiner_ds.config.verbs import Verify
from refiner_ds.data.verify import verify
from refiner_ds.verbs.progress import progress_bar


def run(options: Verify) -> int:
    """0 where every shard is sound, else 1 with a line for each problem."""
    started = time.monotonic()
    shards = sound = samples = size = count = 0
    with progress_bar() as tell:
        for file in verify(options.shards, options.workers, tell):
            for problem in file.problems:
                print(problem, file=sys.stderr)
            count += len(file.problems)
            shards += bool(file.samples)
            sound += bool(file.samples and not file.problems)
            samples, size = samples + file.samples, size + file.bytes
    seconds = max(time.monotonic() - started, 1e-9)
    print(
        f"{options.shards}: {sound} of {shards} shards sound, {count} problems; {samples} samples, {size / 1e6:.1f} MB "
        f"in {seconds:.1f} s ({samples / seconds:.1f} samples/s, {size / 1e6 / seconds:.1f} MB/s)"
    )
    return 1 if count else 0
