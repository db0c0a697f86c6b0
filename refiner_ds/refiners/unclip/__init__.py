"""The unCLIP family. The libraries are hushed here, as some speak while the modules beside this one import them."""

from refiner_ds.refiners.unclip.quiet import hush

hush()
