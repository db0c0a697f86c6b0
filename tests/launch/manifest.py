"""Checks a PyTorchJob against the models generated from the OpenAPI schemas of the training operator and Kubernetes."""

import re
from typing import Any

from kubeflow.training import models as operator
from kubernetes.client import models as core

PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}


def problems(value: Any, kind: str = "KubeflowOrgV1PyTorchJob", path: str = "") -> list[str]:
    """What the schema `kind` refuses, with its path: unknown keys, wrong types, what is required and missing."""
    if nested := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            return [f"{path}: {value!r} is not a list"]
        return [found for index, item in enumerate(value) for found in problems(item, nested[1], f"{path}[{index}]")]
    if nested := re.fullmatch(r"dict\(str, (.+)\)", kind):
        if not isinstance(value, dict):
            return [f"{path}: {value!r} is not a mapping"]
        return [found for key, item in value.items() for found in problems(item, nested[1], f"{path}.{key}")]
    if kind in PLAIN:
        is_right = isinstance(value, PLAIN[kind]) and isinstance(value, bool) <= (kind in ("bool", "object"))
        return [] if is_right else [f"{path}: {value!r} is not of type {kind}"]
    model = getattr(operator, kind, None) or getattr(core, kind)
    if not isinstance(value, dict):
        return [f"{path}: {value!r} is not a {kind}"]
    names = {key: name for name, key in model.attribute_map.items()}
    found = [f"{path}: unknown key {key}" for key in value if key not in names]
    given = {names[key]: item for key, item in value.items() if key in names}
    for name, item in given.items():
        found += problems(item, model.openapi_types[name], f"{path}.{model.attribute_map[name]}")
    try:
        model(**given)  # refuses what is required and missing
    except ValueError as error:
        found.append(f"{path}: {error}")
    return found
