"""Numbers, times and sizes in the words that pages and terminals show."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

NOTHING: Final = "–"


def count(value: float | None) -> str:
    """A whole number, with thousands apart."""
    return NOTHING if value is None else f"{round(value):,}"


def number(value: float | None, digits: int = 2) -> str:
    """A number with so many digits after the point."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def size(value: float | None) -> str:
    """Bytes, in decimal units."""
    if value is None:
        return NOTHING
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} TB" if value < 1000 else f"{value:,.0f} TB"


def duration(seconds: float | None) -> str:
    """A span of time, in its two largest units."""
    if seconds is None:
        return NOTHING
    left = round(max(0.0, seconds))
    parts: list[str] = []
    for unit, long_s in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        amount, left = divmod(left, long_s)
        if amount or (unit == "s" and not parts):
            parts.append(f"{amount} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def when(time: float | None) -> str:
    """A moment, in UTC."""
    return NOTHING if time is None else datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def percent(part: float, whole: float) -> str:
    """A share; nothing of something is 0 %, something is never rounded to 0 or 100 %."""
    if not whole:
        return NOTHING
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "< 0.1 %"
    if 99.9 < share < 100:
        return "> 99.9 %"
    return f"{share:.1f} %"
