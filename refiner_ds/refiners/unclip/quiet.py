"""Silences, by its words, what the libraries say on every import or load and nobody can act on; all else is heard."""

import logging

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

IDLE = (
    "requires torchvision",  # the slow image processor is not used: encode.py does its work on the device
    "that should be kept in float32: []",  # the list is empty
)


class _Idle(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not any(words in record.getMessage() for words in IDLE)


def hush() -> None:
    """Takes away the libraries' bars over parts of a second, and the messages above."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    for library in ("diffusers", "transformers"):
        for handler in logging.getLogger(library).handlers:
            handler.addFilter(_Idle())
