"""Where the numbers of one frame stand in the two small buffers that kernels read and write; CUDA sources get it from here."""

from __future__ import annotations

from enum import IntEnum

from atomid_live.detect.judge import FAR_SIGMAS
from atomid_live.detect.refine import (
    FARTHEST_SIGMA,
    FIRST_HALF_SIGMA,
    LEAST_DARK,
    LEAST_WINDOW_PX,
    MODEL_SIGMA,
    POOLED,
    SANDWICH,
    WINDOW_SIGMA,
)

SPARE = 64
MOST_VECTORS = 6
# columns that the common width is fitted on, and the fewest
STRONGEST, FEWEST = 400, 20


class Param(IntEnum):
    """Places in the float64 buffer that the host fills for each frame, so that a captured graph needs no new arguments."""

    ROWS = 0
    COLS = 1
    SMALL_ROWS = 2
    SMALL_COLS = 3
    PITCH = 4
    OFFSET = 5
    INVERTED = 6
    TOP = 7
    SIGMA = 8
    CEILING = 9
    STRIDE = 10
    MAP_ROWS = 11
    MAP_COLS = 12
    MAP_PITCH = 13
    FLOOR = 14
    RADIUS = 15
    THRESHOLD = 16
    LATTICE = 17
    LEAST_PX = 18
    FACTOR_Y = 19
    FACTOR_X = 20
    BIN_PX = 21
    NOISE_FRACTION = 22
    FIT_WIDTH = 23
    SMALL_SIGMA = 24
    COMPANY_PX = 25
    WHITE = 26
    VECTORS = 27
    VECTOR_YX = 32


class State(IntEnum):
    """Places in the float64 buffer that kernels fill for each frame."""

    FOUND = 0
    COUNT = 1
    SIGMA = 2
    SHRINK = 3
    CHANGED = 4
    GAIN = 5
    MEDIAN = 6
    NOISE = 7
    MERIT = 8


class Fit(IntEnum):
    """What one step of the fit says of a candidate; see `detect.candidate_features`."""

    HEIGHT = 0
    LEVEL = 1
    NOISE = 2
    MISFIT = 3
    SHIFT = 4
    SLOPE = 5
    INSIDE = 6


class Column(IntEnum):
    """Columns of the fit's table, one row per candidate."""

    Y = 0
    X = 1
    AMPLITUDE = 2
    BACKGROUND = 3
    NOISE = 4
    VAR_Y = 5
    VAR_X = 6
    OK = 7
    EDGE = 8


class Pool(IntEnum):
    """What residuals show of errors that pixels have in common; see `detect.refine`."""

    OWN_Y = 0
    ROWS_Y = 1
    OWN_X = 2
    ROWS_X = 3
    LAG = 4
    SQUARE = 5
    COLUMNS = 6


class Term(IntEnum):
    """What one of the strongest columns says of the common width and of noise that grows with light."""

    UPPER = 0
    LOWER = 1
    FITTED = 2
    COUNT = 3
    LEVEL = 4
    LEVEL2 = 5
    CHANGE = 6
    PRODUCT = 7


class Answer(IntEnum):
    """Columns of the table that goes back to the host."""

    Y = 0
    X = 1
    SCORE = 2
    VAR_Y = 3
    VAR_X = 4
    AMPLITUDE = 5
    FLAGS = 6
    NEAREST = 7
    KEPT = 8
    HEIGHT = 9


def defines() -> str:
    """Preprocessor lines that give the sources the same names and the processor's constants, e.g. ``#define P_ROWS 0``."""
    lines = [
        f"#define {letter}_{item.name} {int(item)}"
        for letter, kind in (("P", Param), ("S", State), ("C", Column), ("A", Answer), ("Q", Pool), ("T", Term), ("F", Fit))
        for item in kind
    ]
    numbers = {
        "FIRST_HALF": FIRST_HALF_SIGMA,
        "WINDOW": WINDOW_SIGMA,
        "LEAST_WINDOW": LEAST_WINDOW_PX,
        "LEAST_DARK": LEAST_DARK,
        "MODEL": MODEL_SIGMA,
        "SANDWICH": SANDWICH,
        "FARTHEST": FARTHEST_SIGMA,
        "POOLED": POOLED,
        "FEWEST": FEWEST,
        "FAR_SIGMAS": FAR_SIGMAS,
    }
    lines += [f"#define {name} {value}" for name, value in numbers.items()]
    return (
        "\n".join(
            [
                *lines,
                f"#define C_WIDTH {len(Column)}",
                f"#define A_WIDTH {len(Answer)}",
                f"#define Q_WIDTH {len(Pool)}",
                f"#define T_WIDTH {len(Term)}",
                f"#define F_WIDTH {len(Fit)}",
            ]
        )
        + "\n"
    )
