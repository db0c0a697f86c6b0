"""`refiner-ds verify`: reads shards back and names what is broken."""

import sys

from refiner_ds.config.verbs import Verify
from refiner_ds.data.verify import verify


def run(options: Verify) -> int:
    """0 where every shard is sound, else 1 with a line for each problem."""
    sound, problems = 0, []
    for _, found in verify(options.shards):
        sound += not found
        problems += found
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{options.shards}: {sound} shards sound, {len(problems)} problems")
    return 1 if problems else 0
