"""Manifests: what names the pictures of a dataset, in any of its forms. Opens no picture; see shards/README.md."""

from refiner_ds.data.manifest.read import read_dataset, read_datasets, read_manifest
from refiner_ds.data.manifest.sample import VIEWS, Sample
from refiner_ds.data.manifest.sources import Source, parse_source, parse_sources

__all__ = [
    "VIEWS",
    "Sample",
    "Source",
    "parse_source",
    "parse_sources",
    "read_dataset",
    "read_datasets",
    "read_manifest",
]
