"""`refiner-ds example`: draws a procedural street as a small dataset."""

from refiner_ds.config.verbs.data import Example
from refiner_ds.data.example import write_example
from refiner_ds.errors import UserError
from refiner_ds.verbs.progress import progress_bar


def run(options: Example) -> None:
    """Writes the pictures and the manifest, and says where."""
    shapes = _parse_shapes(options.shapes)
    with progress_bar() as tell:
        manifest = write_example(
            options.out, options.frames, shapes, options.seed, options.baseline, options.streets, options.workers,
            lambda done, total: tell("drawing", done, total),
        )  # fmt: skip
    print(f"{options.frames * options.streets} triplets of {options.streets} streets in {manifest}")


def _parse_shapes(text: str) -> list[tuple[int, int]]:
    try:
        pairs = [tuple(map(int, part.split("x"))) for part in text.split(",")]
        return [(width, height) for width, height in pairs]
    except ValueError as error:
        raise UserError(f"--shapes '{text}' is no list of WIDTHxHEIGHT; write e.g. 1408x376,640x480.") from error
