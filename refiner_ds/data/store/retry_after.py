"""What a server says in Retry-After, which every kind of source reads."""

import email.utils
import re
import time


def seconds_of(retry_after: str) -> float:
    """Seconds of a Retry-After header, which may be a number or a date (RFC 9110, 10.2.3); 0 where it is neither."""
    if re.fullmatch(r"\s*\d+(\.\d+)?\s*", retry_after):
        return float(retry_after)
    try:
        return max(email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time(), 0.0)
    except ValueError:
        return 0.0
