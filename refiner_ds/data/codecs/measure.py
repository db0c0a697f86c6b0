"""Size and speed of every codec: `python -m refiner_ds.data.codecs.measure` prints the table of shards/README.md."""

import io
import time
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from refiner_ds.data.buckets import Bucket
from refiner_ds.data.codecs import cut
from refiner_ds.data.codecs.crop import RESAMPLINGS
from refiner_ds.data.example import draw_frames
from refiner_ds.data.packing.recode import KEEP, Recoding, recode

SHAPE = (1408, 376)
BUCKET = Bucket(3.66, 1917, 512)
FRAMES, ROUNDS = 3, 7
WAYS = {
    "`keep`, PNG": KEEP,
    "`jpeg`": Recoding("jpeg"),
    "`tiff`": Recoding("tiff"),
    "`npy`": Recoding("npy"),
    "`jpeg --resize`": Recoding("jpeg", buckets=(BUCKET,)),
    "`tiff --resize`": Recoding("tiff", buckets=(BUCKET,)),
    "`npy --resize`": Recoding("npy", buckets=(BUCKET,)),
}


def streets() -> list[bytes]:
    """PNG files of the example street: render, gt and cond of a few frames."""
    frames = draw_frames(FRAMES, (SHAPE,))
    return [_png(view) for frame in frames for view in (frame.render, frame.gt, frame.cond)]


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def milliseconds(work: Callable[[int], object], count: int) -> float:
    """CPU milliseconds of work(i), averaged over 0 <= i < count, in the quickest of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for number in range(count):
            work(number)
        rounds.append((time.process_time() - started) * 1e3 / count)
    return min(rounds)


def line_of(name: str, recoding: Recoding, files: Sequence[bytes]) -> str:
    """A row of the table."""
    packing = milliseconds(lambda number: recode(files[number], "png", recoding), len(files))
    stored = [recode(content, "png", recoding) for content in files]
    out = np.empty((BUCKET.height, BUCKET.height, 3), np.uint8)
    places = np.linspace(0, BUCKET.width - BUCKET.height, len(stored)).astype(int)
    crops = [
        milliseconds(lambda number: cut(*stored[number], BUCKET, int(places[number]), out, resampling), len(stored))  # noqa: B023
        for resampling in RESAMPLINGS
    ]
    size = np.mean([len(content) for content, _ in stored]) / 1e6
    return f"| {name} | {size:.2f} | {crops[0]:.2f} | {crops[1]:.2f} | {packing:.0f} |"


def main() -> None:
    """Prints the table."""
    files = streets()
    print("| `--recode` | MB a picture | ms a crop, exact | ms a crop, window | ms to pack |\n|---|---|---|---|---|")
    for name, recoding in WAYS.items():
        print(line_of(name, recoding, files), flush=True)


if __name__ == "__main__":
    main()
