"""Types of arguments that several verbs have."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

Split = Literal["last", "random", "scene"]
OnError = Literal["stop", "skip"]
Out = Annotated[Positional[Path], arg(metavar="OUT")]
