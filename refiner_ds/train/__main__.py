"""`python -m refiner_ds.train`: what launchers start on every rank; the same as `refiner-ds train`."""

import sys

from refiner_ds.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
