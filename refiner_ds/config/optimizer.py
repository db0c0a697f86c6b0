"""Which optimizer: the optimizer section of the DeepSpeed JSON, and the flags that fill what it leaves open."""

import json
from dataclasses import dataclass
from typing import Any

from refiner_ds.config.auto import AUTO, refuse, require_no_autos, take_section
from refiner_ds.config.training import Train
from refiner_ds.errors import UserError

TYPES = ("AdamW", "Adam", "SGD", "Adagrad", "RMSprop", "NAdam", "RAdam", "Adamax")
"""Classes of torch.optim that treat every weight by itself, so that ZeRO's flattened shards leave them exact."""
EIGHT_BIT = "AdamW8bit"

_COMPILES = "it compiles an extension on every node; take AdamW"
_COMPRESSES = "it exchanges gradients by itself, which is ZeRO's part here; take AdamW"
_LOOKS_AT_MATRICES = "it looks at whole weights, and ZeRO's flattened shards have none; take AdamW"
REFUSED = {
    "muon": "it cannot handle convolutions; remove the section",
    "lion": _COMPILES,
    "fusedadam": _COMPILES,
    "deepspeedcpuadam": _COMPILES,
    "lamb": _LOOKS_AT_MATRICES,
    "adafactor": _LOOKS_AT_MATRICES,
    "lbfgs": "it computes each loss several times, and a step here has one; take AdamW",
    "sparseadam": "it takes sparse gradients, and this network has none; take AdamW",
    "onebitadam": _COMPRESSES,
    "zerooneadam": _COMPRESSES,
    "onebitlamb": _COMPRESSES,
    "adamw8bit": "8 bits are the flag --use_8bit_adam; give it and remove the section",
}
"""By the type in lower case; whatever else is not in TYPES is refused as unknown."""


FILLS = {"betas": ("adam_beta1", "adam_beta2"), "eps": ("adam_epsilon",), "weight_decay": ("adam_weight_decay",)}
"""The flags that fill a parameter that says "auto"."""
DEFAULTS = {"adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8, "adam_weight_decay": 1e-2}


@dataclass(frozen=True)
class OptimizerChoice:
    """An optimizer by its class, one of TYPES or EIGHT_BIT, and its parameters other than the learning rate."""

    name: str
    params: dict[str, Any]


def take_optimizer(config: dict[str, Any], flags: Train) -> tuple[OptimizerChoice, Any]:
    """Takes the optimizer section out of the JSON: the choice, and the learning rate that it names or "auto".

    Without a section it is AdamW with the flags' values, in 8 bits where --use_8bit_adam says so.

    Raises:
        UserError: a type that is not supported, or a flag that contradicts the section or would have no effect.
    """
    section = take_section(config, "optimizer", TYPES, REFUSED)
    if section and flags.use_8bit_adam:
        raise UserError(
            f"--use_8bit_adam contradicts optimizer.type {section[0]} in the DeepSpeed JSON, and only one can hold; "
            "leave the flag out, or remove the section."
        )
    name: str = EIGHT_BIT if flags.use_8bit_adam else "AdamW"
    params: dict[str, Any] = {}
    if section:
        name, params = section
    rate = params.pop("lr", AUTO)
    if name in ("AdamW", "Adam"):
        name = _mode_of(name, params)
    for key, filling in FILLS.items():
        _fill(name, params, key, {flag: getattr(flags, flag) for flag in filling})
    require_no_autos(params, "optimizer.params.")
    return OptimizerChoice(name, params), rate


def _mode_of(name: str, params: dict[str, Any]) -> str:
    """DeepSpeed's Adam is AdamW unless adam_w_mode is false; its own kernels are not taken, torch_adam or not."""
    switches = {switch: params.pop(switch, True) for switch in ("adam_w_mode", "torch_adam")}
    for switch, state in switches.items():
        if not isinstance(state, bool):
            refuse(f"optimizer.params.{switch} {json.dumps(state)}", "it says neither yes nor no; write true or false")
    return "AdamW" if switches["adam_w_mode"] else name


def _fill(name: str, params: dict[str, Any], key: str, given: dict[str, Any]) -> None:
    """Joins one parameter with its flags: what AdamW's section leaves out is open, as if it said "auto"."""
    is_adam = name in ("AdamW", "Adam", EIGHT_BIT)
    is_given = any(value is not None for value in given.values())
    said = params.get(key, AUTO if is_adam else None)
    if said == AUTO:
        values = [DEFAULTS[flag] if value is None else value for flag, value in given.items()]
        params[key] = values if key == "betas" else values[0]
        if not (is_adam or is_given):
            del params[key]  # the default of a class of its own
    elif said is not None:
        _require_equal(key, said, given)
    elif is_given:
        flag, value = next((flag, value) for flag, value in given.items() if value is not None)
        raise UserError(
            f"--{flag} {value} would have no effect, as optimizer.type {name} in the DeepSpeed JSON has its own {key}; "
            f'leave the flag out, or set "{key}": "auto" if {name} has one.'
        )


def _require_equal(key: str, said: Any, given: dict[str, Any]) -> None:
    parts = said if isinstance(said, list) else [said]
    if len(parts) != len(given):
        refuse(f"optimizer.params.{key} {json.dumps(said)}", f"it takes {len(given)}; write as many numbers")
    for (flag, value), part in zip(given.items(), parts, strict=True):
        if value is not None and value != part:
            raise UserError(
                f"--{flag} {value} contradicts optimizer.params.{key} {json.dumps(said)} in the DeepSpeed JSON, and "
                f'only one can hold; leave the flag out, or set "{key}": "auto".'
            )
