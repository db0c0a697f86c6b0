"""A run as MLflow describes it: tags to find it by, and the data that it was trained on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def tags_of(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Tags by name, from the settings of a run: where it lies, where it ran, from what, on what, by which code."""
    identity, where = settings.get("identity", {}), settings.get("whereabouts", {})
    told = {
        "mlflow.source.name": "refiner-ds train",
        "mlflow.source.git.commit": where.get("commit"),
        "refiner_ds.output_dir": str(folder.resolve()),
        "refiner_ds.hosts": where.get("hosts"),
        "refiner_ds.devices": where.get("devices"),
        "refiner_ds.base": identity.get("pretrained_model_name_or_path"),
        "refiner_ds.shards": identity.get("shards_digest"),
        "refiner_ds.lora_rank": identity.get("lora_rank"),
    }
    return {name: str(value) for name, value in told.items() if value is not None}


def dataset_of(settings: Mapping[str, Any]) -> dict[str, str] | None:
    """Name, digest, source and card of the shards, by the names of MLflow's data sets; None where they are unknown."""
    identity, data = settings.get("identity", {}), settings.get("data")
    if not data or "shards_digest" not in identity:
        return None
    location = str(settings.get("train", {}).get("shards", ""))
    return {
        "name": Path(location).name or location,
        "digest": identity["shards_digest"],
        "source_type": "local" if "://" not in location else location.partition("://")[0],
        "source": json.dumps({"uri": location}),
        "profile": json.dumps(data),
    }
