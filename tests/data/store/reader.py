"""Started as a process: fetches shards in its own order, holds each a while, checks every byte, and counts the ways.

Reads one JSON object from standard input: url, folder, limit, shards as (name, bytes, sha256), seed, rounds, seconds to
hold each. Prints how often a shard came whole and how often by ranges, and a line before each fetch.
"""

import hashlib
import json
import random
import sys
import time
import warnings
from pathlib import Path

from refiner_ds.data.store.cache import CacheOptions
from refiner_ds.data.store.contract import StoredFile
from refiner_ds.data.store.opening import open_store
from tests.data.store.shard_files import QUICK


def main() -> None:
    told = json.load(sys.stdin)
    warnings.simplefilter("ignore")
    store = open_store(told["url"], CacheOptions(Path(told["folder"]), told["limit"]), QUICK)
    shards = [StoredFile(*facts) for facts in told["shards"]]
    chance = random.Random(told["seed"])
    ways = {"whole": 0, "ranges": 0}
    for _ in range(told["rounds"]):
        for shard in chance.sample(shards, len(shards)):
            print("fetching", shard.name, flush=True)
            path = store.fetch(shard)
            content = path.read_bytes() if path else store.read(shard.name, 0, shard.bytes)
            assert hashlib.sha256(content).hexdigest() == shard.sha256
            time.sleep(told["seconds"])
            ways["whole" if path else "ranges"] += 1
            if path:
                store.release(shard)
    print(json.dumps(ways))


if __name__ == "__main__":
    main()
