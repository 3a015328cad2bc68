"""Numbers in, text with units out: as people read them, and never rounded into a bolder claim."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

NOTHING: Final = "\N{EN DASH}"  # there was nothing to divide by
NEARLY_ALL: Final = 0.9994  # above it, one decimal would say 100 %
HARDLY_ANY: Final = 0.0005  # below it, one decimal would say 0 %
NEARLY_EQUAL: Final = 0.9995  # above it, three decimals would say 1.000
ROUNDING: Final = 1e-6  # two equal float32 unit vectors have a product this near to one
MOST_NAMES: Final = 5  # in a sentence
MINUTE_S: Final = 60
HOUR_S: Final = 3600


def percent(ratio: float | None) -> str:
    """Return a ratio in [0, 1] with one decimal; 100% and 0% are only said of exactly that.

    >>> percent(0.9123), percent(0.99996), percent(1.0), percent(0.0)
    ('91.2%', '>99.9%', '100%', '0%')
    """
    if ratio is None:
        return NOTHING
    if ratio in (0, 1):
        return f"{ratio:.0%}"
    if ratio > NEARLY_ALL:
        return ">99.9%"
    return "<0.1%" if ratio < HARDLY_ANY else f"{ratio:.1%}"


def interval(bounds: tuple[float, float]) -> str:
    """Return two ratios as a range.

    >>> interval((0.9061, 0.9172))
    '90.6% to 91.7%'
    """
    low, high = bounds
    return f"{percent(low)} to {percent(high)}"


def score(cosine: float) -> str:
    """Return a cosine in [-1, 1] with three decimals.

    >>> score(0.98765), score(0.9999), score(1.0)
    ('0.988', '>0.999', '1.000')
    """
    if NEARLY_EQUAL < cosine < 1 - ROUNDING:
        return ">0.999"
    return f"{cosine:.3f}".replace("-", "\N{MINUS SIGN}")


def count(number: int) -> str:
    """Return a whole number in groups of three.

    >>> count(60000)
    '60,000'
    """
    return f"{number:,}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun, singular or plural.

    >>> plural(1, "class", "classes"), plural(10000, "image")
    ('1 class', '10,000 images')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(names: Sequence[str], *, most: int = MOST_NAMES) -> str:
    """Return some names in a row, and how many more there are.

    >>> listed(["a", "b"]), listed("abcdefg")
    ('a, b', 'a, b, c, d, e and 2 more')
    """
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def decimal(number: float | None) -> str:
    """Return a number with three meaningful digits, or three decimals below one.

    >>> decimal(0.2612), decimal(1.7), decimal(2.30259), decimal(41.25), decimal(0.00021)
    ('0.261', '1.70', '2.30', '41.2', '0.00021')
    """
    if number is None:
        return NOTHING
    if 0 < abs(number) < ROUNDING * 1000:
        return f"{number:.2g}"
    digits = 3 if abs(number) < 1 else 2 if abs(number) < 10 else 1  # noqa: PLR2004
    return f"{number:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def megabytes(size: int) -> str:
    """Return bytes in the decimal unit that fits.

    >>> megabytes(1122344), megabytes(51200), megabytes(94371840), megabytes(900)
    ('1.12 MB', '51 kB', '94.4 MB', '900 bytes')
    """
    if size >= 10**6:
        return f"{size / 10**6:.{2 if size < 10**7 else 1}f} MB"
    return f"{size / 1000:.0f} kB" if size >= 1000 else f"{size} bytes"  # noqa: PLR2004


def milliseconds(time_ms: float) -> str:
    """Return a time with two meaningful digits below ten, whole milliseconds above.

    >>> milliseconds(0.042), milliseconds(1.25), milliseconds(38.4)
    ('0.04 ms', '1.2 ms', '38 ms')
    """
    if time_ms >= 10:  # noqa: PLR2004
        return f"{time_ms:,.0f} ms"
    return f"{time_ms:.1f} ms" if time_ms >= 1 else f"{time_ms:.2f} ms"


def duration(time_s: float) -> str:
    """Return a time in the two largest units that say something.

    >>> duration(0.42), duration(41), duration(200), duration(3700)
    ('0.4 s', '41 s', '3 min 20 s', '1 h 1 min')
    """
    if time_s < 10:  # noqa: PLR2004
        return f"{time_s:.1f} s"
    whole_s = round(time_s)
    if whole_s < MINUTE_S:
        return f"{whole_s} s"
    if whole_s < HOUR_S:
        return f"{whole_s // MINUTE_S} min {whole_s % MINUTE_S} s"
    return f"{whole_s // HOUR_S} h {whole_s % HOUR_S // MINUTE_S} min"


def day(iso: str) -> str:
    """Return an ISO 8601 time as a date; what is none is returned as it is.

    >>> day("2026-01-05T10:20:00+00:00"), day("yesterday")
    ('5 January 2026', 'yesterday')
    """
    try:
        time = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    return f"{time.day} {time:%B %Y}"
