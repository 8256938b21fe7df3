"""A path drawn in characters: braille dots where the screen has them, plain letters elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from atomid_live.sinks.wording import Script

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_LEAST_SPAN_PX = 2.0

Point = tuple[float, float]


class _Canvas:
    def __init__(self, width: int, height: int, script: Script) -> None:
        self._script = script
        self._fine_y, self._fine_x = (4, 2) if script.unicode else (1, 1)
        self.rows, self.cols = height * self._fine_y, width * self._fine_x
        self._cells = [[0] * width for _ in range(height)]
        self._marks: dict[tuple[int, int], str] = {}

    @property
    def dot_aspect(self) -> float:
        """Height of a dot over its width, for cells twice as high as wide."""
        return 2.0 * self._fine_x / self._fine_y

    def dot(self, row: int, col: int) -> None:
        bit = _DOTS[row % 4][col % 2] if self._script.unicode else 1
        self._cells[row // self._fine_y][col // self._fine_x] |= bit

    def mark(self, row: int, col: int, sign: str) -> None:
        self._marks[row // self._fine_y, col // self._fine_x] = sign

    def lines(self) -> list[str]:
        def cell(row: int, col: int, bits: int) -> str:
            sign = self._marks.get((row, col))
            if sign or not bits:
                return sign or " "
            return chr(0x2800 + bits) if self._script.unicode else "."

        return ["".join(cell(i, j, bits) for j, bits in enumerate(row)) for i, row in enumerate(self._cells)]


def trail(path_yx: Sequence[Point], width: int, height: int, script: Script) -> tuple[list[str], float]:
    """Draw a path with equal scales on both axes, y downwards, start and present place marked.

    Parameters
    ----------
    path_yx : sequence of (y, x)
        Positions in pixels, oldest first; those with NaN are left out.
    width, height : int
        Size in character cells.
    script : Script
        What characters the screen can show.

    Returns
    -------
    lines, span_px : list of str, float
        `height` lines of `width` characters, and the pixels the whole width stands for (NaN without a path).
    """
    points = [(y, x) for y, x in path_yx if math.isfinite(y) and math.isfinite(x)]
    canvas = _Canvas(width, height, script)
    if not points or width < 2 or height < 1:
        return canvas.lines(), math.nan
    (low_y, high_y), (low_x, high_x) = (
        (min(values), max(values)) for values in ([y for y, _ in points], [x for _, x in points])
    )
    across, down = max(1, canvas.cols - 1), max(1, canvas.rows - 1)
    per_dot = max(_LEAST_SPAN_PX / across, (high_x - low_x) / across, (high_y - low_y) / (down * canvas.dot_aspect))
    middle_y, middle_x = (low_y + high_y) / 2, (low_x + high_x) / 2

    def place(y: float, x: float) -> tuple[int, int]:
        row = (y - middle_y) / (per_dot * canvas.dot_aspect) + (canvas.rows - 1) / 2
        col = (x - middle_x) / per_dot + (canvas.cols - 1) / 2
        return min(canvas.rows - 1, max(0, round(row))), min(canvas.cols - 1, max(0, round(col)))

    places = [place(y, x) for y, x in points]
    for (row0, col0), (row1, col1) in pairwise(places):
        steps = max(abs(row1 - row0), abs(col1 - col0), 1)
        for step in range(steps + 1):
            canvas.dot(round(row0 + (row1 - row0) * step / steps), round(col0 + (col1 - col0) * step / steps))
    canvas.mark(*places[0], "○" if script.unicode else "o")
    canvas.mark(*places[-1], "●" if script.unicode else "@")
    return canvas.lines(), per_dot * canvas.cols
