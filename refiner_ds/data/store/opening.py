"""Opening a store by its location."""

import warnings
from collections.abc import Callable
from urllib.parse import urlsplit

from refiner_ds.data.store.cache import Cache, CacheOptions
from refiner_ds.data.store.contract import Progress, Store
from refiner_ds.data.store.filesystem import FilesystemSource
from refiner_ds.data.store.http import HttpSource
from refiner_ds.data.store.local import LocalStore
from refiner_ds.data.store.remote import RemoteStore
from refiner_ds.data.store.retry import Retry
from refiner_ds.data.store.source import Source
from refiner_ds.errors import UserError


def open_store(
    location: str,
    cache: CacheOptions | None = None,
    retry: Retry | None = None,
    progress: Progress | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> Store:
    """The store at a local path, which is read in place, or at a URL, which is read through the cache.

    A shared but slow disk goes through the cache as file:///folder.

    Args:
        cache: None reads every sample from the remote place each time.
        progress: told of downloads, in this process (it does not go with a store that is sent to a worker).
        warn: told once what makes reading slow, in this process.

    Raises:
        UserError: the location is no URL, its package is not installed, or the cache folder cannot be used.
    """
    if "://" not in location:
        return LocalStore(location)
    try:
        urlsplit(location)
    except ValueError as error:
        raise UserError(
            f"shards {location} are at no address that can be asked ({error}); check how it is written."
        ) from error
    is_http = location.startswith(("http://", "https://"))
    source: Source = HttpSource(location) if is_http else FilesystemSource(location)
    return RemoteStore(location, source, Cache(cache) if cache else None, retry or Retry(), progress, warn)
