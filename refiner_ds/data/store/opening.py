"""Opening a store by its location; what reads from a server is imported only where there is one to read from."""

import importlib
import warnings
from collections.abc import Callable

from refiner_ds.data.store.cache import Cache, CacheOptions
from refiner_ds.data.store.contract import Progress, Store
from refiner_ds.data.store.remote import RemoteStore
from refiner_ds.data.store.retry import Retry
from refiner_ds.data.store.source import Source, without_credentials

HTTP = ("refiner_ds.data.store.http", "HttpSource")
OTHERS = ("refiner_ds.data.store.filesystem", "FilesystemSource")
"""Kinds of sources, by name: requests and fsspec are 20 MB and 0.1 s to every worker, also to one of a local folder."""


def is_url(location: str) -> bool:
    """Whether shards lie on another machine, or are to be read as if they did, and not in a folder of this one."""
    return "://" in location


def open_store(
    location: str,
    cache: CacheOptions | None = None,
    retry: Retry | None = None,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = warnings.warn,
) -> Store:
    """The store at a URL, read through the cache; a shared but slow disk goes through it as file:///folder.

    Args:
        cache: None reads every sample from the remote place each time.
        progress: told of downloads, in this process (it does not go with a store that is sent to a worker).
        warn: a function of a module, told once what makes reading slow, here and in each worker that the store is sent
            to; None tells nobody.

    Raises:
        UserError: the location is no URL, its package is not installed, or the cache folder cannot be used.
    """
    without_credentials(location)  # refuses what is no URL
    module, kind = HTTP if location.startswith(("http://", "https://")) else OTHERS
    source: Source = getattr(importlib.import_module(module), kind)(location)
    return RemoteStore(location, source, Cache(cache) if cache else None, retry or Retry(), progress, warn)
