"""Where a refiner comes from: the base that was trained, and how it was adapted for that."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch

from refiner_ds.errors import UserError
from refiner_ds.refiners.unclip.options import Adaptation
from refiner_ds.refiners.unclip.refiner import UnclipRefiner


@dataclass(frozen=True)
class Origin:
    """What has to be there beside trained weights to make a refiner of them again.

    Attributes:
        base: a folder or hub id, with its revision and variant.
        fingerprint: of the base's UNet; any other is taken where it is not known.
    """

    base: str
    revision: str | None = None
    variant: str | None = None
    fingerprint: str | None = None
    adaptation: Adaptation = field(default_factory=Adaptation)

    @classmethod
    def read(cls, described: Mapping[str, Any]) -> "Origin":
        """The inverse of `described`.

        Raises:
            KeyError, TypeError: it is no such description.
        """
        return cls(**{**described["base"], "adaptation": Adaptation(**described["adaptation"])})

    def described(self) -> dict[str, Any]:
        """As JSON holds it."""
        base = asdict(self)
        return {"adaptation": base.pop("adaptation"), "base": base}

    def load(self, whose: str, remedy: str, dtype: torch.dtype = torch.float32) -> UnclipRefiner:
        """The base, adapted as it was, its frozen parts in a precision of choice.

        Args:
            whose: what was trained from it.
            remedy: what to do if it is no longer there.

        Raises:
            UserError: it is no longer where it was, or no longer what it was.
        """
        try:
            refiner = UnclipRefiner(self.base, self.revision, self.variant, self.adaptation, dtype)
        except UserError as error:
            raise UserError(f"{error} {remedy}") from error
        if self.fingerprint not in (None, refiner.base_fingerprint):
            raise UserError(
                f"{whose} was trained from other weights than the base {self.base} has now, and would be mixed with "
                f"them. {remedy}"
            )
        return refiner


def adaptation_in(commit: Mapping[str, Any]) -> Adaptation:
    """How a checkpoint's base was adapted; what is not told is as it was before there was a choice."""
    return Adaptation(**{each.name: commit[each.name] for each in fields(Adaptation) if each.name in commit})
