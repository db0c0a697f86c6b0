"""`python -m refiner_ds VERB`: the same as `refiner-ds VERB`, where the console command is not on the path."""

import sys

from refiner_ds.cli import main

if __name__ == "__main__":
    sys.exit(main())
