"""refiner_ds: trains diffusion refiners that repair degraded 3D Gaussian Splatting renders."""

__version__ = "0.1.0"
