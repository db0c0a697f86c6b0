"""How training starts: under a launcher a warden, which starts this command again as the rank; alone, the rank at once.

The warden stays light, so what trains is imported only where it trains.
"""

import os

from refiner_ds.config.training import Train
from refiner_ds.loading import load
from refiner_ds.supervise.link import LINK
from refiner_ds.supervise.warden import Warden
from refiner_ds.world import launched, world_from


def run(flags: Train) -> int:
    """Trains, and returns the exit code.

    Raises:
        UserError: a mistake that a person can mend.
    """
    variables = launched(os.environ)
    if variables and LINK not in os.environ:
        return Warden(world_from(os.environ), variables).run()
    return load("refiner_ds.train.run").run(flags) or 0
