"""A resolved configuration, as far as memory depends on it."""

import json

from refiner_ds.config.deepspeed import Resolved
from refiner_ds.errors import UserError
from refiner_ds.estimate.memory import Setup
from refiner_ds.estimate.moments import moment_bytes, update_bytes


def setup_of(resolved: Resolved, ranks: int, has_average: bool) -> Setup:
    """What memory depends on, of a resolved configuration.

    Raises:
        UserError: its buckets have no size.
    """
    zero = resolved.json["zero_optimization"]
    bucket = zero["reduce_bucket_size"]
    if type(bucket) not in (int, float) or not 0 < bucket < float("inf"):
        raise UserError(
            f"zero_optimization.reduce_bucket_size {json.dumps(bucket)} in the DeepSpeed JSON is no number of values "
            'that a bucket could hold; write one, or "auto".'
        )
    return Setup(
        stage=resolved.stage,
        ranks=ranks,
        weight_bytes=4 if resolved.precision == "no" else 2,
        is_bf16=resolved.precision == "bf16",
        has_fp32_accumulation=resolved.accumulated_in == "no",
        offloads=resolved.offloads,
        bucket=int(bucket),
        buckets=2 if zero.get("overlap_comm") else 1,
        accumulation=resolved.accumulation_steps,
        moment_bytes=moment_bytes(resolved.optimizer),
        update_bytes=update_bytes(resolved.optimizer),
        has_average=has_average,
    )
