"""Silences, by its words, what the libraries say on every import or load and nobody can act on; all else is heard."""

import logging

IDLE = (
    "requires torchvision",  # the slow image processor is not used: frozen_encoders.py does its work on the device
    "that should be kept in float32: []",  # the list is empty
    "LOAD REPORT",  # weights.py tells in one sentence what is missing; what a file holds beyond that does not matter
    "Setting accelerator to CPU",  # deepspeed's, which others import where they find it
    "Failed to load CPU gemm_4bit_forward",  # bitsandbytes', of a product that is not used
)


class _Idle(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not any(words in record.getMessage() for words in IDLE)


for _speaker in ("DeepSpeed", "bitsandbytes.backends.cpu.ops"):  # they speak while they are imported
    logging.getLogger(_speaker).addFilter(_Idle())

from diffusers.utils import logging as diffusers_logging  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402


def hush() -> None:
    """Takes away the libraries' bars over parts of a second, and the messages above."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    for library in ("diffusers", "transformers"):
        for handler in logging.getLogger(library).handlers:
            handler.addFilter(_Idle())
