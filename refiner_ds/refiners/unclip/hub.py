"""Where a checkpoint lies: the folder that was named, or what is needed of a hub id, in the hub's cache."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from refiner_ds.errors import UserError
from refiner_ds.refiners.unclip.weights import NETWORKS, has_weights, reason_of, weight_patterns

INDEX = "model_index.json"
_SMALL = [
    INDEX,
    *(f"{part}/config.json" for part in NETWORKS),
    "*/*_config.json",
    "tokenizer/*.json",
    "tokenizer/*.txt",
]
"""What is needed besides the weights."""
_GONE, _MIRROR = "stabilityai/stable-diffusion-2", "sd2-community/stable-diffusion-2-1-unclip"
"""Stability took its SD 2.x repositories off the hub in November 2025; the community keeps a mirror."""


def folder_of(base: str, revision: str | None, variant: str | None) -> Path:
    """The folder of a checkpoint, of which a hub id is downloaded as far as it is needed and not there yet.

    Raises:
        UserError: neither a folder nor a hub id, a revision of a folder, or the hub has no such thing or cannot be
            reached.
    """
    if Path(base).is_dir():
        if revision is not None:
            raise UserError(
                f"revision {revision} names a state of a hub id, but model {base} is a folder here, so it would do "
                "nothing; leave the revision out, or name a hub id."
            )
        return Path(base)
    if base.count("/") != 1 or base.startswith((".", "/", "~")):
        raise _no_folder(base)
    try:
        return _download(base, revision, variant)
    except HFValidationError as error:
        raise _no_folder(base) from error
    except RevisionNotFoundError as error:
        raise UserError(
            f"model {base} has no revision {revision}, so there is nothing to load; name a branch, tag or commit that "
            "its page on the hub lists."
        ) from error
    except (HfHubHTTPError, HTTPError, OSError) as error:
        if _is_not_found(error):
            raise _not_found(base) from error
        raise UserError(
            f"model {base} is neither a folder here nor to be had from the hub ({reason_of(error)}); "
            "name a folder, or a hub id while the hub can be reached."
        ) from error


def _download(base: str, revision: str | None, variant: str | None) -> Path:
    """Safetensors, and .bin for the parts that have none: two passes, which need no listing and so work offline too."""

    def fetch(revision: str | None, parts: list[str], ending: str) -> Path:
        patterns = [pattern for part in parts for pattern in weight_patterns(part, ending, variant)]
        return Path(snapshot_download(base, revision=revision, allow_patterns=[*_SMALL, *patterns]))

    folder = fetch(revision, list(NETWORKS), "safetensors")
    lacking = [part for part in NETWORKS if not has_weights(folder, part, "safetensors", variant)]
    if lacking:
        fetch(folder.name, lacking, "bin")  # the folder's name is the commit, so both passes see the same state
    return folder


def _is_not_found(error: Exception) -> bool:
    """The hub answers 401 to the anonymous for what does not exist, as it does for what is private."""
    is_unauthorized = isinstance(error, HfHubHTTPError) and error.response.status_code == 401
    return isinstance(error, RepositoryNotFoundError) or is_unauthorized


def _not_found(base: str) -> UserError:
    if base.lower().startswith(_GONE):
        mirror = _MIRROR + ("-small" if base.endswith("-small") else "")
        return UserError(
            f"model {base} is not on the hub any more, which Stability's SD 2.x models left in November 2025; "
            f"name its community mirror {mirror}."
        )
    return UserError(
        f"model {base} is no folder here, and the hub has no such model or none that you may see; check the spelling, "
        "or log in with `hf auth login`."
    )


def _no_folder(base: str) -> UserError:
    return UserError(
        f"model {base} is no folder, so there are no networks to load; name a checkpoint folder or a hub id."
    )
