"""The order of a million samples: the first batch of any step in under a second, in under 300 MB."""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys, time
import numpy as np
from refiner_ds.data.order import Order

step, settings = int(sys.argv[1]), json.loads(sys.argv[2])
numbers = np.arange(1_000_000)
buckets, shards = (numbers * 7919 % 11 < 3).astype(np.uint8), (numbers // 200).astype(np.uint32)
if "weights" in settings:
    settings["weight_of_sample"] = np.array(settings.pop("weights"))[shards % 3]
start = time.process_time()  # of this one thread: other work on the machine does not count
order = Order(buckets, 128, 3, shard_of_sample=shards, **settings)
assert len(order.global_batch(step)) == 128
seconds = time.process_time() - start
# not ru_maxrss, which starts at what the parent process had
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"s": seconds, "MB": int(peak) / 1024}))
"""


@pytest.mark.parametrize(
    "settings",
    [{}, {"window_shards": 16, "lanes": 16}, {"window_shards": 1, "lanes": 4, "weights": [1.0, 2.5, 0.3]}],
    ids=["default", "lanes", "weights"],
)
@pytest.mark.parametrize("step", [0, 3906, 7_812_500 + 4000])
def test_a_million_samples_are_cheap_at_any_step_of_any_epoch(step, settings):
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(step), json.dumps(settings)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    figures = json.loads(found.stdout)
    assert figures["s"] < 1 and figures["MB"] < 300, figures
