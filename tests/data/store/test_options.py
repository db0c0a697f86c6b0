"""What a person says of a cache: sizes as they are written, and one sentence for what makes no cache."""

from pathlib import Path

import pytest

from refiner_ds.data.store.cache import CacheOptions
from refiner_ds.data.store.options import bytes_of, cache_options
from refiner_ds.errors import UserError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(
            ("1", 1),
            ("500000000", 500_000_000),
            ("200GB", 200 * 10**9),
            ("200 gb", 200 * 10**9),
            ("1.5T", 1.5 * 10**12),
        ),
        *(("1.5GiB", 1.5 * 2**30), ("64MiB", 2**26), ("1kB", 1000), ("7B", 7)),
    ],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert bytes_of("--shard_cache_limit", text) == size


@pytest.mark.parametrize("text", ["", "0", "0GB", "-5GB", "GB", "200XB", "200 GB or so", "1e9", "nan", "5iB", "0.1B"])
def test_what_is_no_size_is_refused_by_its_flag(text):
    with pytest.raises(UserError, match=r"^--shard_cache_limit .* is no number of bytes .*; give one such as 200GB\.$"):
        bytes_of("--shard_cache_limit", text)


def test_a_cache_has_a_folder_and_a_limit_and_is_for_a_url():
    folder = Path("cache")
    assert cache_options("s3://bucket/set", folder, "2GB") == CacheOptions(folder, 2 * 10**9)
    assert cache_options("s3://bucket/set", None, None) is cache_options("shards", None, None) is None
    for location, given, words in (
        (
            "http://me:secret@host/set",
            (None, "2GB"),
            "2GB limits nothing, as there is no cache for http://host/set; name",
        ),
        ("s3://bucket/set", (folder, None), "--shard_cache cache has no limit, so shards would fill its disk; give"),
        (
            "shards",
            (folder, "2GB"),
            f"as --shards shards is a folder .*, or name a slow disk as file://{Path.cwd()}/shards",
        ),
        ("shards", (None, "2GB"), "--shard_cache_limit 2GB would have no effect, as --shards shards is a folder"),
    ):
        with pytest.raises(UserError, match=words):
            cache_options(location, *given)
