"""The values that travel: frozen, slotted, arrays read-only and left out of `repr`.

Inside Python every position and shape is (row, column), in pixels unless the name says otherwise, with the origin at the
centre of the top-left pixel. Files, messages and screens use x (column, to the right) and y (row, downwards).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from atomid_live.flags import Flag

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
ScaleSource = Literal["file", "user", "calibration", "unknown"]
TimeSource = Literal["sender", "estimated", "arrival"]

NAN = float("nan")
UNCALIBRATED = (NAN, NAN)


class FrameState(StrEnum):
    """What became of a frame; every frame received ends in exactly one of these (CONTRACT)."""

    PROCESSED = "processed"
    DROPPED = "dropped"
    SKIPPED = "skipped"
    FAILED = "failed"
    QUARANTINED = "quarantined"


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view of `array` (no copy)."""
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a frame came from.

    Attributes
    ----------
    source : str
        Path of the file, or address of the stream, as the user would write it.
    item : str
        Which image inside it ("" for a plain picture, the data-set uuid of a Velox file, the sender's session of a stream).
    item_index : int
        Frame number inside the item, from 0.
    identity : str
        Size, modification time and file number of the file when it was read; "" for a stream.
    content_sha256 : str
        Hash of shape, dtype and pixels: copies and re-saves of a frame share it.
    """

    source: str
    item: str = ""
    item_index: int = 0
    identity: str = ""
    content_sha256: str = ""


@dataclass(frozen=True, slots=True)
class FrameMeta:
    """What the acquisition said of itself; NaN or "" where it said nothing.

    Attributes
    ----------
    detector : str
        Name of the detector, e.g. "HAADF".
    dwell_s, line_time_s, frame_time_s : float
        Seconds per pixel, per line (fly-back included) and per frame.
    scan_rotation_rad : float
        Rotation of the scan, positive clockwise on the screen.
    beam_energy_ev, beam_current_a, field_of_view_m : float
        Acceleration in eV, probe current in A, full field of view along x in m.
    stage_xyz_m : tuple of float
        Stage position in m.
    software : str
        Program and version that wrote the frame.
    """

    detector: str = ""
    dwell_s: float = NAN
    line_time_s: float = NAN
    frame_time_s: float = NAN
    scan_rotation_rad: float = NAN
    beam_energy_ev: float = NAN
    beam_current_a: float = NAN
    field_of_view_m: float = NAN
    stage_xyz_m: tuple[float, float, float] = (NAN, NAN, NAN)
    software: str = ""


@dataclass(frozen=True, slots=True)
class ScanDistortion:
    """What a calibration profile says of a frame's scan; its scales are in the frame's `pixel_size_yx_nm` already.

    Attributes
    ----------
    name : str
        Name of the profile; "" when none was applied.
    shear, sigma_shear : float
        nm that the true place moves along x per nm down the rows, and its standard error.
    sigma_scale_yx : (float, float)
        Relative standard error of the pixel size.
    """

    name: str = ""
    shear: float = 0.0
    sigma_shear: float = 0.0
    sigma_scale_yx: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One whole image as acquired.

    Attributes
    ----------
    sequence : int
        Ours: session-wide, unique, from 0.
    pixels : ndarray, shape (rows, cols), any real dtype
        Counts or grey values as stored, read-only, native byte order.
    time_s, time_source, time_sigma_s : float, str, float
        Middle of the acquisition in seconds since 1970 UTC where known, who said so, and its standard error in s.
    index : int or None
        The sender's own number, used only to see gaps.
    pixel_size_yx_nm : (float, float)
        NaN where unknown, never 1.0.
    display_scaled : bool
        Grey values come from a picture made for the eye (8-bit PNG, BMP), not from counts.
    """

    sequence: int
    pixels: NDArray[Any] = field(repr=False)
    time_s: float
    origin: Origin
    time_source: TimeSource = "arrival"
    time_sigma_s: float = NAN
    index: int | None = None
    pixel_size_yx_nm: tuple[float, float] = UNCALIBRATED
    scale_source: ScaleSource = "unknown"
    display_scaled: bool = False
    received_ns: int = 0
    received_monotonic_s: float = NAN
    meta: FrameMeta = field(default_factory=FrameMeta)
    distortion: ScanDistortion = field(default_factory=ScanDistortion)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True, slots=True)
class Refused:
    """A frame or file that took a number but was not analysed: dropped, skipped, failed or quarantined, with the reason."""

    sequence: int
    state: FrameState
    reason: str
    origin: Origin
    time_s: float
    received_ns: int = 0
    index: int | None = None


Arrival = Frame | Refused


def _none(*shape: int) -> FloatArray:
    return np.empty((0, *shape))


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The columns of one frame, ordered by (y, x) of their position; the row number is the `column_id` of the files.

    Attributes
    ----------
    yx_px : ndarray, shape (N, 2), float64
        Sub-pixel positions.
    score : ndarray, shape (N,), float64
        0 to 1. From the network it is the probability that a column is there; from `dog`, 0.5 is the threshold.
    sigma_yx_px : ndarray, shape (N, 2), float64
        Standard error of the position.
    amplitude : ndarray, shape (N,), float64
        Height above the local background in units of the pixels.
    flags : ndarray, shape (N,), int64
        Bits of `Flag`.
    spacing_px : float
        Mean nearest-neighbour distance of the columns; NaN under two columns.
    column_sigma_px : float
        Width (standard deviation) of a column as used; NaN where none was found.
    frame_flags : int
        Bits that concern the frame as a whole.
    """

    yx_px: FloatArray = field(repr=False)
    score: FloatArray = field(repr=False)
    sigma_yx_px: FloatArray = field(repr=False)
    amplitude: FloatArray = field(repr=False)
    flags: IntArray = field(repr=False)
    spacing_px: float = NAN
    column_sigma_px: float = NAN
    frame_flags: int = 0

    @classmethod
    def empty(cls, frame_flags: int = int(Flag.EMPTY), column_sigma_px: float = NAN) -> Detections:
        """Return the answer for a frame without columns."""
        return cls(_none(2), _none(), _none(2), _none(), np.empty(0, np.int64), NAN, column_sigma_px, frame_flags)

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self.yx_px)


@dataclass(frozen=True, slots=True)
class DriftEstimate:
    """Motion of the specimen: a feature at p in the reference frame is found at p + `total_yx_px` in this frame.

    Attributes
    ----------
    step_yx_px, total_yx_px : (float, float)
        Since the last registered frame, and since the segment's first frame.
    sigma_yx_px : (float, float)
        Standard error of `total_yx_px` with respect to the reference.
    velocity_yx_nm_min, sigma_velocity_nm_min : (float, float), float
        Over the last frames, with the standard error per component; NaN when uncalibrated or too few frames.
    velocity_yx_px_s : (float, float)
        The same in pixels per second.
    quality : float
        0 to 1, the evidence for the chosen peak.
    reference_sequence, segment : int
        Which frame and segment `total_yx_px` refers to.
    candidates_yx_px : tuple of (float, float)
        Other totals the data allow when the step is known only modulo a lattice vector.
    settling_s, sigma_settling_s, settled_nm_min : float
        Seconds until the drift is slower than `settled_nm_min`, with the standard error; NaN unless significant.
    leaving_s, sigma_leaving_s : float
        Seconds until the marked feature, or what was at the centre, leaves the field of view; NaN unless significant.
    """

    step_yx_px: tuple[float, float] = (NAN, NAN)
    total_yx_px: tuple[float, float] = (NAN, NAN)
    sigma_yx_px: tuple[float, float] = (NAN, NAN)
    velocity_yx_nm_min: tuple[float, float] = (NAN, NAN)
    sigma_velocity_nm_min: float = NAN
    velocity_yx_px_s: tuple[float, float] = (NAN, NAN)
    quality: float = NAN
    reference_sequence: int = -1
    segment: int = 0
    candidates_yx_px: tuple[tuple[float, float], ...] = ()
    flags: int = 0
    note: str = ""
    settling_s: float = NAN
    sigma_settling_s: float = NAN
    leaving_s: float = NAN
    sigma_leaving_s: float = NAN
    settled_nm_min: float = NAN


@dataclass(frozen=True, slots=True, eq=False)
class Lattice:
    """The lattice of one frame and the place of each column in it.

    Attributes
    ----------
    a_yx_px, b_yx_px : (float, float)
        Basis vectors (reduced, |a| <= |b|); NaN when there is no lattice.
    origin_yx_px : (float, float)
        A lattice point near the frame's centre.
    cell : ndarray, shape (N, 2), int64
        Integer cell (i, j) of each column of the detections; meaningless where `site` is -1.
    site : ndarray, shape (N,), int64
        Site class from 0, -1 where a column is not indexed.
    residual_px : float
        Root mean square distance per axis of indexed columns to the fitted lattice.
    indexed : float
        Fraction of columns with a site.
    others : tuple of Lattice
        Lattices of further grains or phases, largest first, each indexing its own columns of the same detections. Empty where
        there is one, or where they lie over one another.
    """

    a_yx_px: tuple[float, float] = (NAN, NAN)
    b_yx_px: tuple[float, float] = (NAN, NAN)
    origin_yx_px: tuple[float, float] = (NAN, NAN)
    cell: IntArray = field(default_factory=lambda: np.empty((0, 2), np.int64), repr=False)
    site: IntArray = field(default_factory=lambda: np.empty(0, np.int64), repr=False)
    residual_px: float = NAN
    indexed: float = NAN
    flags: int = 0
    reason: str = ""
    others: tuple[Lattice, ...] = ()

    @classmethod
    def none_for(cls, count: int, reason: str, flags: int = 0) -> Lattice:
        """Return the answer for `count` columns when no lattice was found."""
        return cls(cell=np.zeros((count, 2), np.int64), site=np.full(count, -1, np.int64), flags=flags, reason=reason)

    @property
    def found(self) -> bool:
        """Whether there is a lattice at all."""
        return bool(np.isfinite(self.a_yx_px[0]))


@dataclass(frozen=True, slots=True)
class ScanMotion:
    """Motion of the specimen from one row of the scan to the next.

    Attributes
    ----------
    per_row_yx_px, sigma_per_row_yx_px : (float, float)
        Pixels of the frame per row, and standard error; NaN when unknown.
    reason : str
        Why it is unknown; "" when it is known.
    remark : str
        What its error does not hold, e.g. a fly-back time that nobody told.
    row_share : float
        Time per row over time per frame interval where drift is known only up to a lattice vector, 0 where it is sure: a
        vector u too many per frame makes u times this per row.
    """

    per_row_yx_px: tuple[float, float] = (NAN, NAN)
    sigma_per_row_yx_px: tuple[float, float] = (NAN, NAN)
    reason: str = "not measured"
    remark: str = ""
    row_share: float = 0.0

    @property
    def known(self) -> bool:
        """Whether the motion within the frame is known."""
        return not self.reason


@dataclass(frozen=True, slots=True)
class Jitter:
    """Random displacement that columns on the same rows of one frame share.

    Attributes
    ----------
    rms_yx_px, sigma_rms_yx_px : (float, float)
        Root mean square over the columns, smooth distortion taken off, and its standard error; 0 when what was found is
        no more than chance.
    rows, sigma_rows : float
        Correlation length in rows (columns are met on several rows, so it is never much under their width), and standard error.
    reason : str
        Why nothing was measured; "" otherwise.
    """

    rms_yx_px: tuple[float, float] = (NAN, NAN)
    sigma_rms_yx_px: tuple[float, float] = (NAN, NAN)
    rows: float = NAN
    sigma_rows: float = NAN
    reason: str = "not measured"


@dataclass(frozen=True, slots=True, eq=False)
class CorrectedStrain:
    """Strain per column, shape (N,) each, after drift within the frame and calibrated scan distortion were taken off.

    Empty arrays where nothing could be corrected; `sigma_exx`, `sigma_eyy`, `sigma_exy` are the standard errors common to the
    whole frame that the correction adds (those of the velocity and the profile).
    """

    exx: FloatArray = field(default_factory=_none, repr=False)
    eyy: FloatArray = field(default_factory=_none, repr=False)
    exy: FloatArray = field(default_factory=_none, repr=False)
    rotation_mrad: FloatArray = field(default_factory=_none, repr=False)
    sigma_exx: float = NAN
    sigma_eyy: float = NAN
    sigma_exy: float = NAN

    @property
    def hydrostatic(self) -> FloatArray:
        """Half the trace, (exx + eyy) / 2, per column."""
        return (self.exx + self.eyy) / 2


@dataclass(frozen=True, slots=True, eq=False)
class StrainField:
    """Strain per column against a named reference; NaN where under-determined.

    Attributes
    ----------
    exx, eyy, exy : ndarray, shape (N,), float64
        Small-strain tensor, x along rows to the right, y downwards.
    rotation_mrad : ndarray, shape (N,), float64
        Positive clockwise on the screen.
    sigma : ndarray, shape (N,), float64
        Standard error of a normal component at that column: root mean square of those of exx and eyy.
    flags : ndarray, shape (N,), int64
        Bits that concern the strain of a column.
    reference : str
        Name of the reference, e.g. "first:5" or "frame".
    window_nm : float
        Gaussian radius w of the weights, in nm (NaN when uncalibrated); `window_px` the same in pixels.
    valid, reason : bool, str
        Whether the frame's strain may be believed, and if not why.
    sigma_exx, sigma_eyy, sigma_exy : ndarray, shape (N,), float64
        Standard errors component by component: row jitter is in eyy and exy only. `sigma_exy` also holds for rotation in rad.
    corrected : CorrectedStrain
        The same strain without drift within the frame and calibrated scan distortion.
    d2min_px2 : ndarray, shape (N,), float64
        What the affine fit around a column leaves, mean square per axis in square pixels (Falk and Langer's D2min per degree of
        freedom): the square of the position error in a good crystal, far more at a defect.
    grain : ndarray, shape (N,), int64
        Which grain or phase of the segment a column belongs to, from 0; -1 where none.
    """

    exx: FloatArray = field(default_factory=_none, repr=False)
    eyy: FloatArray = field(default_factory=_none, repr=False)
    exy: FloatArray = field(default_factory=_none, repr=False)
    rotation_mrad: FloatArray = field(default_factory=_none, repr=False)
    sigma: FloatArray = field(default_factory=_none, repr=False)
    flags: IntArray = field(default_factory=lambda: np.empty(0, np.int64), repr=False)
    reference: str = ""
    window_nm: float = NAN
    window_px: float = NAN
    valid: bool = False
    reason: str = "not measured"
    sigma_exx: FloatArray = field(default_factory=_none, repr=False)
    sigma_eyy: FloatArray = field(default_factory=_none, repr=False)
    sigma_exy: FloatArray = field(default_factory=_none, repr=False)
    corrected: CorrectedStrain = field(default_factory=CorrectedStrain, repr=False)
    d2min_px2: FloatArray = field(default_factory=_none, repr=False)
    grain: IntArray = field(default_factory=lambda: np.empty(0, np.int64), repr=False)

    @property
    def hydrostatic(self) -> FloatArray:
        """Half the trace, (exx + eyy) / 2, per column."""
        return (self.exx + self.eyy) / 2

    @classmethod
    def none_for(cls, count: int, reason: str, reference: str = "") -> StrainField:
        """Return the answer for `count` columns when strain cannot be given."""
        nan = np.full(count, NAN)
        none, zero = np.full(count, -1, np.int64), np.zeros(count, np.int64)
        return cls(nan, nan, nan, nan, nan, zero, reference, NAN, NAN, False, reason, d2min_px2=nan, grain=none)


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean, spread and standard error of one quantity over a frame."""

    mean: float = NAN
    std: float = NAN
    sem: float = NAN


@dataclass(frozen=True, slots=True)
class Agreement:
    """GPA minus columns where both have a value, in hydrostatic strain: mean, spread about it, and correlation of the maps.

    `invalid` is the fraction of columns inside GPA's area where one of the two has no value; `places` counts the others.
    """

    bias: float = NAN
    rms: float = NAN
    correlation: float = NAN
    invalid: float = NAN
    places: int = 0


@dataclass(frozen=True, slots=True)
class GrainReading:
    """Strain of one grain or phase of a frame.

    `grain` is its number in `StrainField.grain`, the same from frame to frame; `strain` maps `COMPONENTS` to summaries.
    """

    grain: int
    columns: int
    strain: Mapping[str, Summary]
    reason: str = ""
    alarm: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class GpaField:
    """Strain by geometric phase analysis on a coarse grid covering the frame.

    Attributes
    ----------
    exx, eyy, exy, rotation_mrad : ndarray, shape (gy, gx), float64
        NaN where the phase is not to be trusted.
    step_px : float
        Distance of grid points in pixels; grid point (i, j) lies at pixel (i, j) * step_px.
    g_yx_per_px : tuple of (float, float)
        Reciprocal vectors used.
    """

    exx: FloatArray = field(default_factory=lambda: np.empty((0, 0)), repr=False)
    eyy: FloatArray = field(default_factory=lambda: np.empty((0, 0)), repr=False)
    exy: FloatArray = field(default_factory=lambda: np.empty((0, 0)), repr=False)
    rotation_mrad: FloatArray = field(default_factory=lambda: np.empty((0, 0)), repr=False)
    step_px: float = NAN
    g_yx_per_px: tuple[tuple[float, float], ...] = ()
    reason: str = "not measured"


COMPONENTS = ("exx", "eyy", "exy", "rotation_mrad", "hydrostatic")


@dataclass(frozen=True, slots=True)
class Reading:
    """The frame's strain in numbers, and the state of the rolling watch on it.

    `strain` and `gpa` map each of `COMPONENTS` to its `Summary` over the frame. `drift_shear_exy` and
    `drift_stretch_eyy` are the apparent strain that drift within the frame explains. `alarm` is "" when quiet.
    `strain_corrected` is `strain` without it and without calibrated scan distortion, `correction` says what was taken off or
    "not corrected: ..." and why. `motion` and `jitter` are what the scan did during this frame.
    The mean is that of the straight line through the displacements of all columns of the grain, the spread that of the columns.
    `grains` lists every grain, with the one that `strain` speaks of first; it is empty where the frame has one lattice.
    """

    strain: Mapping[str, Summary] = field(default_factory=dict)
    gpa: Mapping[str, Summary] = field(default_factory=dict)
    drift_shear_exy: float = NAN
    drift_stretch_eyy: float = NAN
    rolling_mean: Mapping[str, float] = field(default_factory=dict)
    rolling_sem: Mapping[str, float] = field(default_factory=dict)
    slope_per_min: Mapping[str, float] = field(default_factory=dict)
    vacancies: int = -1
    alarm: str = ""
    valid: bool = False
    reason: str = "not measured"
    reference: str = ""
    window_nm: float = NAN
    flags: int = 0
    rolling_std: Mapping[str, float] = field(default_factory=dict)
    slope_sem_per_min: Mapping[str, float] = field(default_factory=dict)
    strain_corrected: Mapping[str, Summary] = field(default_factory=dict)
    correction: str = "not corrected: not measured"
    motion: ScanMotion = field(default_factory=ScanMotion)
    jitter: Jitter = field(default_factory=Jitter)
    agreement: Agreement = field(default_factory=Agreement)
    grains: tuple[GrainReading, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to the specimen, confirmed over several frames.

    Attributes
    ----------
    kind : str
        "vacancy appears", "vacancy heals", "column jumps", "intensity step", "lattice-parameter step" or "grain change".
    sequence, onset_sequence, before_sequence : int
        Frame in which it was confirmed, first frame that shows it, and the one before that (-1 when there is none).
    time_s : float
        Time of the first frame that shows it.
    track_id : int
        The column's; -1 for what concerns the whole frame.
    yx_px, before_yx_px, sample_yx_px : (float, float)
        Place in the confirming frame, in the frame before it began, and with drift taken out.
    size, size_sigma, unit : float, float, str
        How much, its standard error, and the unit: "1" (part of the column's amplitude, or strain), "px" or "deg".
    significance : float
        Size in standard errors; NaN where there is no number to judge by.
    """

    kind: str
    sequence: int
    onset_sequence: int
    before_sequence: int
    time_s: float
    track_id: int = -1
    yx_px: tuple[float, float] = UNCALIBRATED
    before_yx_px: tuple[float, float] = UNCALIBRATED
    sample_yx_px: tuple[float, float] = UNCALIBRATED
    size: float = NAN
    size_sigma: float = NAN
    unit: str = "1"
    significance: float = NAN
    note: str = ""


@dataclass(frozen=True, slots=True)
class Damage:
    """Electrons spent so far in the segment, how full the known sites in view are, and how fast they empty.

    Attributes
    ----------
    dose_e_nm2, cumulative_e_nm2 : float
        Of this frame, and summed over the segment with this frame, in electrons per square nm; NaN with `reason`.
    known, occupied : int
        Sites in view whose state is known, and those of them that hold a column; -1 before anything is known.
    occupancy, occupancy_sigma : float
        Their ratio and its binomial standard error.
    losses, heals : int
        Vacancies that appeared and that healed in this segment.
    loss_per_frame, loss_per_e_nm2 : (float, float)
        Vacancies per occupied site and frame, and per occupied site and electron per square nm, each with its standard error.
    """

    dose_e_nm2: float = NAN
    cumulative_e_nm2: float = NAN
    reason: str = "not measured"
    known: int = -1
    occupied: int = -1
    occupancy: float = NAN
    occupancy_sigma: float = NAN
    losses: int = 0
    heals: int = 0
    loss_per_frame: tuple[float, float] = UNCALIBRATED
    loss_per_e_nm2: tuple[float, float] = UNCALIBRATED


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """Which column of a frame is which column of the frames before, and what happened to them.

    Attributes
    ----------
    track_id : ndarray, shape (N,), int64
        One per column of the detections; -1 where none could be given.
    sure : bool
        Whether the ids are to be trusted in this frame; if not, `note` says why, and nothing was learned from it.
    note : str
        Why ids are unsure, or begin anew.
    """

    track_id: IntArray = field(default_factory=lambda: np.empty(0, np.int64), repr=False)
    sure: bool = True
    note: str = ""
    events: tuple[Event, ...] = ()
    damage: Damage = field(default_factory=Damage)

    @classmethod
    def none_for(cls, count: int, note: str, damage: Damage, events: tuple[Event, ...] = ()) -> Tracks:
        """Return the answer for `count` columns that cannot be told apart."""
        return cls(np.full(count, -1, np.int64), False, note, events, damage)


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """What one frame alone tells (`Pipeline.measure`): pure, any order, any core."""

    detections: Detections
    lattice: Lattice = field(default_factory=Lattice)
    gpa: GpaField = field(default_factory=GpaField)
    timings_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """All that is known of one frame after the pipeline; holds no pixels.

    `segment_reason` is "" but on the first frame of a segment. `flags` joins the frame-level bits of every part.
    """

    sequence: int
    shape: tuple[int, int]
    time_s: float
    time_source: TimeSource
    origin: Origin
    detections: Detections
    pixel_size_yx_nm: tuple[float, float] = UNCALIBRATED
    scale_source: ScaleSource = "unknown"
    segment: int = 0
    segment_reason: str = ""
    drift: DriftEstimate = field(default_factory=DriftEstimate)
    lattice: Lattice = field(default_factory=Lattice)
    strain: StrainField = field(default_factory=StrainField)
    gpa: GpaField = field(default_factory=GpaField)
    reading: Reading = field(default_factory=Reading)
    meta: FrameMeta = field(default_factory=FrameMeta)
    index: int | None = None
    time_sigma_s: float = NAN
    received_ns: int = 0
    received_monotonic_s: float = NAN
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    flags: int = 0
    distortion: ScanDistortion = field(default_factory=ScanDistortion)
    tracks: Tracks = field(default_factory=Tracks)

    @property
    def corrected_yx_px(self) -> FloatArray:
        """Positions (N, 2) at the time the middle row was scanned, in an upright raster; NaN when drift is unknown."""
        middle = (self.shape[0] - 1) / 2
        rows = self.detections.yx_px[:, 0] - middle
        ky, kx = self.reading.motion.per_row_yx_px
        down = rows * (1 - ky)
        lean = self.distortion.shear * self.pixel_size_yx_nm[0] / self.pixel_size_yx_nm[1] if self.distortion.name else 0.0
        return np.stack([middle + down, self.detections.yx_px[:, 1] - kx * rows + lean * down], axis=1)

    @property
    def sample_yx_px(self) -> FloatArray:
        """Places (N, 2) on the specimen, in the coordinates of the segment's first frame: at mid-frame, minus the total drift.

        Where the motion within the frame is unknown the position as seen counts; NaN where the total is unknown.
        """
        still = self.corrected_yx_px
        place: FloatArray = np.where(np.isfinite(still), still, self.detections.yx_px) - np.array(self.drift.total_yx_px)
        return place


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """What a source can say of itself at any moment, from any thread.

    `behind` counts whole frames known but not yet taken; `waiting` names files seen but not yet whole, each with the reason.
    """

    name: str = ""
    behind: int = 0
    waiting: tuple[tuple[str, str], ...] = ()
    missing: int = 0
    mode: str = ""
    problem: str = ""
    ended: str = ""


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """What a display shows; built by the session, pulled by displays, never pushed.

    `counts` maps each `FrameState` to its number; their sum is `received`. Latencies are milliseconds from a frame taken
    from its source to its line written; `age_s` is the time since the frame shown arrived.
    """

    received: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    source: SourceStatus = field(default_factory=SourceStatus)
    latency_p50_ms: float = NAN
    latency_p95_ms: float = NAN
    latency_p99_ms: float = NAN
    age_s: float = NAN
    frames_per_s: float = NAN
    recording: bool = False
    pictures_skipped: int = 0
    disk_free_bytes: int = -1
    session_dir: str = ""
    model: str = ""
    last_problem: str = ""
    running: bool = True
    started_ns: int = 0
