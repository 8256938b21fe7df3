"""Quality flags: the one registry of bit, name and meaning.

A flag is an integer in CSV files and a list of names in JSON (CONTRACT). A poor number is flagged, never dropped.
One namespace serves columns, frames, drift and strain, so a bit never means two things.
"""

from enum import IntFlag


class Flag(IntFlag):
    """One bit per way in which a number may be poor; `MEANING` explains each."""

    NONE = 0
    # a column
    EDGE = 1 << 0
    FIT_FAILED = 1 << 1
    CLIPPED = 1 << 2
    CROWDED = 1 << 3
    NOT_INDEXED = 1 << 4
    TRACK_UNSURE = 1 << 5
    # a frame
    EMPTY = 1 << 8
    UNCALIBRATED = 1 << 9
    NO_SCALE = 1 << 10
    SANITISED = 1 << 11
    TIME_ESTIMATED = 1 << 12
    CONSTANT = 1 << 13
    DISPLAY_SCALED = 1 << 14
    SPACING_ODD = 1 << 15
    PIXEL_SIZE_ODD = 1 << 23
    MODEL_OUT_OF_RANGE = 1 << 29
    # drift
    SEGMENT_START = 1 << 16
    MODULO_LATTICE = 1 << 17
    DRIFT_POOR = 1 << 18
    DRIFT_JUMP = 1 << 19
    DRIFT_LOST = 1 << 20
    CLOCK_STEP = 1 << 21
    # lattice
    SEVERAL_LATTICES = 1 << 22
    # strain
    STRAIN_INVALID = 1 << 24
    FEW_NEIGHBOURS = 1 << 25
    REFERENCE_PENDING = 1 << 26
    GPA_DISAGREES = 1 << 27
    DRIFT_EXPLAINS = 1 << 28
    GPA_ARTEFACT = 1 << 30


MEANING: dict[Flag, str] = {
    Flag.EDGE: "column nearer to the border than its fit window; position less exact",
    Flag.FIT_FAILED: "sub-pixel fit did not converge; position is that of the band-pass maximum",
    Flag.CLIPPED: "pixels of the column are at the detector's or file's limit",
    Flag.CROWDED: "a neighbour lies within three column widths; position may be pulled towards it",
    Flag.NOT_INDEXED: "column belongs to no lattice site (defect, adatom, other grain or false column)",
    Flag.TRACK_UNSURE: "track_id may be that of a neighbouring column: drift of this frame is not sure",
    Flag.EMPTY: "no column was found",
    Flag.UNCALIBRATED: "no pixel size is known; every value in nm is empty",
    Flag.NO_SCALE: "neither the image nor its metadata gave a column width; detection is off or a guess",
    Flag.SANITISED: "NaN or infinite pixels were replaced before the analysis",
    Flag.TIME_ESTIMATED: "acquisition time is estimated (the file stamps whole seconds)",
    Flag.CONSTANT: "all pixels are equal",
    Flag.DISPLAY_SCALED: "8-bit picture whose grey values are not counts",
    Flag.SPACING_ODD: "mean spacing disagrees with the spectrum or with the model's own estimate",
    Flag.PIXEL_SIZE_ODD: "pixel size contradicts the columns (nm for um, or a factor of ten?); values in nm are suspect",
    Flag.SEGMENT_START: "first frame of a segment: drift and reference start anew",
    Flag.MODULO_LATTICE: "drift step is known only up to a lattice vector",
    Flag.DRIFT_POOR: "registration quality too low; the step was not accumulated",
    Flag.DRIFT_JUMP: "step far larger than expected from the motion so far",
    Flag.DRIFT_LOST: "frame shares too little with the reference to be registered",
    Flag.CLOCK_STEP: "wall clock jumped; times before and after do not compare",
    Flag.SEVERAL_LATTICES: "columns form more than one lattice (grains, phases, twin, twist)",
    Flag.MODEL_OUT_OF_RANGE: (
        "dose, scale or texture of the frame is outside what the network was trained on; where scale or texture is, the "
        "classical detector has answered"
    ),
    Flag.STRAIN_INVALID: "strain of this frame is not valid; the reason stands beside it",
    Flag.FEW_NEIGHBOURS: "too few lattice neighbours for a strain tensor",
    Flag.REFERENCE_PENDING: "the strain reference is still being collected",
    Flag.GPA_DISAGREES: "GPA and the column method differ by more than their joint error",
    Flag.GPA_ARTEFACT: "GPA departs from the columns here: the motif changes (composition, polarity), or a phase is lost",
    Flag.DRIFT_EXPLAINS: "drift within the frame explains the apparent strain",
}


def names(value: int) -> list[str]:
    """Lower-case names of the bits set in `value`, lowest bit first."""
    return [flag.name.lower() for flag in Flag if flag and flag & value and flag.name]


def from_names(words: list[str]) -> int:
    """Inverse of `names`; an unknown word raises `ValueError`."""
    value = 0
    for word in words:
        try:
            value |= Flag[word.upper()]
        except KeyError:
            raise ValueError(f"unknown flag {word!r}; known: {', '.join(names(~0))}") from None
    return int(value)
