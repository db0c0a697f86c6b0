"""Started by the deepspeed launcher in place of refiner_ds.train: DeepSpeed refuses fp16 on CPUs without native fp16
arithmetic, though torch computes it there; this lets the fp16 path run where there is no GPU."""

import sys

from deepspeed.accelerator import get_accelerator

from refiner_ds.cli import main

if __name__ == "__main__":
    get_accelerator().is_fp16_supported = lambda: True
    sys.exit(main(["train", *sys.argv[1:]]))
