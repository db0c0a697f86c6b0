"""Sizes and times for people."""


def size_text(count: float) -> str:
    """Bytes, in powers of 1000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def time_text(seconds: float) -> str:
    """A length of time, in the largest unit of which there are two."""
    for unit, length, next_length in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < next_length:
            return f"{max(0.0, seconds) / length:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"
