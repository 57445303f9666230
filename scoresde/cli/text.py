"""Aligned text and numbers for people."""

from __future__ import annotations

from collections.abc import Sequence


def align(rows: Sequence[Sequence[str]], right: Sequence[int] = (), gap: str = "  ") -> str:
    """Rows of cells as lines with aligned columns; the columns in ``right`` are set flush right."""
    widths = [max(len(row[j]) for row in rows if j < len(row)) for j in range(max(map(len, rows)))]

    def line(row: Sequence[str]) -> str:
        cells = [c.rjust(widths[j]) if j in right else c.ljust(widths[j]) for j, c in enumerate(row)]
        return gap.join(cells).rstrip()

    return "\n".join(map(line, rows))


def size_of(count: int) -> str:
    """Bytes for people: 4.6 MB."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def duration(seconds: float) -> str:
    """Seconds for people: 8.2 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
