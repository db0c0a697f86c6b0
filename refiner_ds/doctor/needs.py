"""What a run will need: room for its checkpoints, and a global batch that its ranks can share."""

from collections.abc import Iterator, Mapping
from typing import Any

from refiner_ds.config.auto import AUTO, owned
from refiner_ds.doctor.lines import ALL, Line, from_sentence
from refiner_ds.errors import UserError
from refiner_ds.units import size_text

FEW = 10
"""Room for fewer checkpoints than this, where all are kept, is worth a word."""


def check_disk(disks: Mapping[str, Any], one: int | None, count: int | None) -> Iterator[Line]:
    """Free bytes where the output folder lies, against its checkpoints: bytes of one, and how many at most."""
    for host, facts in disks.items():
        if not isinstance(facts, dict):
            yield from_sentence("disk", host, str(facts))
            continue
        free = facts["free_bytes"]
        if one is None:
            yield Line("disk", host, "ok", f"{size_text(free)} free")
            continue
        need = one * (count or 1)
        told = f"{size_text(free)} free, a checkpoint takes {size_text(one)}"
        remedy = "free some room, choose another --output_dir, or keep fewer with --checkpoints_total_limit"
        if free < need:
            yield Line("disk", host, "fail", f"{told} and {count or 1} of them {size_text(need)}", remedy)
        elif count is None and free < FEW * one:
            yield Line("disk", host, "warn", f"{told}, and all are kept: there is room for {free // one}", remedy)
        else:
            yield Line("disk", host, "ok", f"{told}, and {count or 'all'} are kept")


def check_batch(config: dict[str, Any], micro: int | None, accumulation: int | None, ranks: int) -> Line:
    """Whether the ranks can share the global batch: it is micro-batch x accumulation x ranks."""
    check, config = "global batch", dict(config)
    said = config.get("train_batch_size", AUTO)
    if isinstance(said, int) and said % ranks:
        return Line(check, ALL, "fail", f"the JSON's train_batch_size {said} cannot be shared by {ranks} ranks",
                    f"start a number of ranks that divides it, or set it to \"auto\", as {ranks} ranks times the "
                    "micro-batch times the accumulation")  # fmt: skip
    try:
        per_rank = owned(config, "train_micro_batch_size_per_gpu", "--train_batch_size", micro, 1)
        times = owned(config, "gradient_accumulation_steps", "--gradient_accumulation_steps", accumulation, 20)
    except UserError as error:
        return from_sentence(check, ALL, str(error))
    total = per_rank * times * ranks
    told = f"micro-batch {per_rank} x accumulation {times} x {ranks} ranks = {total}"
    if said not in (AUTO, total):
        return Line(check, ALL, "fail", f"the JSON's train_batch_size {said} is not {told}", 'set it to "auto"')
    return Line(check, ALL, "ok", told)
