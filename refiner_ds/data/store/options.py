"""What a person says of a cache, checked: --shard_cache and --shard_cache_limit."""

import re
from pathlib import Path

from refiner_ds.data.store.cache import CacheOptions
from refiner_ds.data.store.opening import is_url
from refiner_ds.data.store.source import without_credentials
from refiner_ds.errors import UserError

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
BINARY = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def cache_options(location: str, folder: Path | None, limit: str | None) -> CacheOptions | None:
    """The cache for the shards at a location; None where none is asked for.

    Raises:
        UserError: one of the two is missing or nonsense, or the shards are read where they lie.
    """
    if folder is None and limit is None:
        return None
    if not is_url(location):
        given = f"--shard_cache {folder}" if folder else f"--shard_cache_limit {limit}"
        raise UserError(
            f"{given} would have no effect, as --shards {location} is a folder that is read where it lies; leave it "
            f"out, or name a slow disk as file://{Path(location).resolve()}."
        )
    if folder is None:
        raise UserError(
            f"--shard_cache_limit {limit} limits nothing, as there is no cache for {without_credentials(location)}; "
            "name its folder by --shard_cache, or leave the limit out."
        )
    if limit is None:
        raise UserError(
            f"--shard_cache {folder} has no limit, so shards would fill its disk; "
            "give --shard_cache_limit, such as 200GB."
        )
    return CacheOptions(folder, bytes_of("--shard_cache_limit", limit))


def bytes_of(flag: str, text: str) -> int:
    """Bytes of a size as people write it: 500000000, 200GB, 1.5 TB (powers of 1000), 200GiB (powers of 1024).

    Raises:
        UserError: it is no size, or less than a byte; names the flag.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", text, flags=re.IGNORECASE)
    unit = found[2].upper() if found else ""
    if (
        not found
        or (found[3] and not unit)
        or not (size := int(float(found[1]) * (BINARY if found[3] else UNITS)[unit]))
    ):
        raise UserError(f"{flag} {text} is no number of bytes that could hold anything; give one such as 200GB.")
    return size
