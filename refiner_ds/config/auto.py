"""Who owns a number: the DeepSpeed JSON where it says one, a flag where the JSON says "auto", and never both."""

import json
from typing import Any, NoReturn

from refiner_ds.errors import UserError

AUTO = "auto"


def owned(section: dict[str, Any], key: str, flag: str, value: Any, default: Any, path: str = "") -> Any:
    """The section's value of `key`, filled from the flag where it is absent or "auto"; writes it back.

    Args:
        path: of the section in the JSON, with a dot at its end; for the words of a contradiction.

    Raises:
        UserError: the flag contradicts an explicit value.
    """
    said = section.get(key, AUTO)
    if said == AUTO:
        section[key] = default if value is None else value
    elif value is not None and value != said:
        raise UserError(
            f"{flag} {value} contradicts {path}{key} {said} in the DeepSpeed JSON, and only one can hold; "
            f'leave the flag out, or set "{key}": "auto".'
        )
    return section[key]


def autos(config: dict[str, Any], path: str = "") -> list[str]:
    """Dotted names of all values that still say "auto"."""
    found = []
    for key, value in config.items():
        if isinstance(value, dict):
            found += autos(value, f"{path}{key}.")
        elif value == AUTO:
            found.append(path + key)
    return found


def require_no_autos(config: dict[str, Any], path: str = "") -> None:
    """Refuses what still says "auto" once all rules have filled theirs."""
    if unknown := autos(config, path):
        raise UserError(f'"auto" for {", ".join(unknown)} has no rule here; write a number into the JSON.')


def take_section(config: dict[str, Any], name: str, types: tuple[str, ...], refused: dict[str, str]) -> Any:
    """Takes the section optimizer or scheduler out of the JSON: (type as we spell it, params), or None without one.

    Args:
        types: what is supported; the JSON may write them in other cases, as DeepSpeed lets it.
        refused: lower-case type to why it is refused and what to do instead.
    """
    if name not in config:
        return None
    section = config.pop(name)
    written, params = section.get("type"), section.get("params", {})
    spelling = {supported.lower(): supported for supported in types}.get(str(written).lower())
    if spelling is None:
        why = refused.get(str(written).lower(), f"it is none of {', '.join(types)}; take one of them")
        refuse(f"{name}.type {written if isinstance(written, str) else json.dumps(written)}", why)
    if not isinstance(params, dict):
        refuse(f"{name}.params {json.dumps(params)}", "its settings cannot be read; write an object")
    if strange := sorted(section.keys() - {"type", "params"}):
        refuse(f"{name}.{strange[0]}", "it would have no effect; remove it")
    return spelling, dict(params)


def refuse(name: str, why: str) -> NoReturn:
    """Refuses a setting of the JSON; `why` ends with the remedy."""
    raise UserError(f"{name} in the DeepSpeed JSON is refused: {why}.")
