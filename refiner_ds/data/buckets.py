"""Aspect buckets: the sizes to which pictures are resized, so that those of a batch can be stacked."""

import math
from dataclasses import dataclass

from refiner_ds.errors import UserError


@dataclass(frozen=True)
class Bucket:
    """An aspect bucket: pictures whose W/H is nearest to `key` are resized to `width` x `height` pixels."""

    key: float
    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def parse_buckets(text: str) -> tuple[Bucket, ...]:
    """Reads "KEY:WIDTHxHEIGHT,..." as in the flag --buckets.

    Raises:
        UserError: the text has another form, a bucket is higher than wide (crops are squares of the height), or two
            have one key.
    """
    buckets = []
    for part in text.split(","):
        key, _, size = part.partition(":")
        try:
            width, height = map(int, size.split("x"))
            bucket = Bucket(float(key), width, height)
        except ValueError as error:
            raise UserError(
                f"--buckets '{part}' is no KEY:WIDTHxHEIGHT, so pictures cannot be sized; write e.g. 1.5:640x480."
            ) from error
        if not (0 < bucket.key < math.inf and min(width, height) > 0):
            raise UserError(
                f"--buckets '{part}' has a number that is not positive, so pictures cannot be sized; "
                "write e.g. 1.5:640x480."
            )
        if height > width:
            raise UserError(
                f"--buckets '{part}' is higher than wide, and crops are squares of the height; give WIDTH >= HEIGHT."
            )
        buckets.append(bucket)
    if len({bucket.key for bucket in buckets}) < len(buckets):
        raise UserError(f"--buckets '{text}' gives two buckets one key, so one of them stays empty; give each its own.")
    return tuple(buckets)


def spelled(buckets: tuple[Bucket, ...]) -> str:
    """Buckets as `parse_buckets` reads them; equal ones have one spelling."""
    return ",".join(f"{bucket.key!r}:{bucket}" for bucket in buckets)


def bucket_of(width: int, height: int, buckets: tuple[Bucket, ...]) -> int:
    """Index of the bucket whose key is nearest to width/height; the first of equally near ones."""
    return min(range(len(buckets)), key=lambda i: abs(buckets[i].key - width / height))


def size_in(width: int, height: int, buckets: tuple[Bucket, ...]) -> tuple[int, int]:
    """(width, height) to which a picture of these buckets is resized; its own where there are none."""
    if not buckets:
        return width, height
    bucket = buckets[bucket_of(width, height, buckets)]
    return bucket.width, bucket.height


def require_table(buckets: tuple[Bucket, ...], packed: str | None, shards: str) -> None:
    """Refuses buckets other than those, as --buckets spells them, that the pictures of shards were resized to.

    Raises:
        UserError: they differ.
    """
    if packed and parse_buckets(packed) != buckets:
        raise UserError(
            f"--buckets {spelled(buckets)} differs from {packed}, to which the pictures in {shards} were resized when "
            f"they were packed, so they would be resized twice or cut from another size; train with --buckets "
            f"{packed}, or pack again."
        )


def require_crops(buckets: tuple[Bucket, ...], factor: int) -> None:
    """Refuses buckets whose crops are no whole number of latents of `factor` pixels.

    Raises:
        UserError: names the bucket.
    """
    for bucket in buckets:
        if bucket.height % factor:
            raise UserError(
                f"--buckets {bucket}: crops of {bucket.height} pixels are no whole number of latents of {factor} "
                f"pixels; take a height that is a multiple of {factor}."
            )
