"""What an optimizer keeps for each weight, and what its step makes beside it."""

from refiner_ds.config.optimizer import EIGHT_BIT, OptimizerChoice

MOMENTS = {"AdamW": 2, "Adam": 2, "NAdam": 2, "RAdam": 2, "Adamax": 2, "RMSprop": 1, "Adagrad": 1, "SGD": 0}
"""fp32 values for each weight, before what the parameters add."""
ADDS = {"amsgrad": ("AdamW", "Adam"), "centered": ("RMSprop",), "momentum": ("RMSprop", "SGD")}
"""Parameters that add one more."""
FUSED = ("AdamW", "Adam", EIGHT_BIT)
UPDATE_BYTES = 8
"""Temporaries of torch's steps that are not fused: the root of the second moment, and what it is divided by."""


def moment_bytes(choice: OptimizerChoice) -> int:
    """Bytes for each weight; of 8-bit AdamW without the scales of its blocks, a sixteenth of a byte."""
    if choice.name == EIGHT_BIT:
        return 2
    added = sum(bool(choice.params.get(name)) for name, of in ADDS.items() if choice.name in of)
    return 4 * (MOMENTS[choice.name] + added)


def update_bytes(choice: OptimizerChoice) -> int:
    """Bytes for each weight that a step makes for its own time; training takes fused steps where there are."""
    return 0 if choice.name in FUSED and "foreach" not in choice.params else UPDATE_BYTES
