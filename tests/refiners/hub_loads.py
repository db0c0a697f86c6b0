"""A process that loads models from a hub one after another: libraries read once, on import, where the hub is.

Reads a JSON list of load_parts' arguments from standard input, "stop" among them to end the hub, and writes what came
of each: the refusal, or the number of sampling steps, and by network the sum and the precision of its weights.
"""

import json
import os
import sys
import urllib.request
from typing import Any

import torch

from refiner_ds.errors import UserError
from refiner_ds.refiners.unclip.parts import load_parts
from refiner_ds.refiners.unclip.weights import NETWORKS


def outcome(arguments: dict[str, str]) -> dict[str, Any]:
    """What comes of loading."""
    try:
        parts = load_parts(**arguments)
    except UserError as error:
        return {"refusal": str(error)}
    weights = {name: list(getattr(parts, name).state_dict().values()) for name in NETWORKS}
    return {
        "steps": parts.sampling.num_inference_steps,
        "sums": {name: sum(tensor.double().sum().item() for tensor in tensors) for name, tensors in weights.items()},
        "is_fp32": all(tensor.dtype == torch.float32 for tensors in weights.values() for tensor in tensors),
    }


if __name__ == "__main__":
    outcomes = []
    for case in json.load(sys.stdin):
        if case == "stop":
            urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/stop").read()
        else:
            outcomes.append(outcome(case))
    json.dump(outcomes, sys.stdout)
