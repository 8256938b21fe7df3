"""The stages of detection as sequences of kernels on tensors of fixed size; no step waits for the host.

Counts stay on the device (`State`); tables have room for `room` columns and hold the frame's in their first rows. Glue between
kernels (running sums, stable sorts, totals) is torch's, whose order does not change from run to run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from atomid_live.kernels.launch import Launcher
from atomid_live.kernels.layout import WIDTH_TERMS, Answer, Column, Param, Pool, State

ROUNDS = 6
STRONGEST = 400
CELL = 8
LEAST_BIN_PX = 8

_RAW = {
    "uint8": "to_float_u8",
    "int8": "to_float_i8",
    "uint16": "to_float_u16",
    "int16": "to_float_i16",
    "uint32": "to_float_u32",
    "int32": "to_float_i32",
    "float32": "to_float_f32",
    "float64": "to_float_f64",
}
# Peaks down to this height are columns if they are this part as tall as the bright ones and stand among columns.
LOW, DOUBTFUL_PART, COMPANY_ROUNDS = 0.03, 0.5, 3
BRIGHT_QUANTILE, REFERENCES, CERTAIN = 0.75, 400, 0.5
RAW_TYPES = frozenset(_RAW)


@dataclass(slots=True, eq=False)
class Buffers:
    """Everything a frame of one shape needs on the device, allocated once.

    Attributes
    ----------
    shape, padded : (int, int)
        Of the frame, and of the network's input (both sides multiples of 8).
    room : int
        Most columns; at least 400.
    param, state : Tensor, float64
        See `Param` and `State`.
    """

    shape: tuple[int, int]
    padded: tuple[int, int]
    room: int
    param: Any = field(repr=False)
    state: Any = field(repr=False)
    image: Any = field(repr=False)
    model: Any = field(repr=False)
    small: Any = field(repr=False)
    contrast: Any = field(repr=False)
    cells: Any = field(repr=False)
    largest: Any = field(repr=False)
    where: Any = field(repr=False)
    height: Any = field(repr=False)
    score: Any = field(repr=False)
    start: Any = field(repr=False)
    start_score: Any = field(repr=False)
    tables: Any = field(repr=False)
    edges: Any = field(repr=False)
    terms: Any = field(repr=False)
    pool: Any = field(repr=False)
    answer: Any = field(repr=False)


def allocate(shape: tuple[int, int], padded: tuple[int, int], room: int, device: Any) -> Buffers:
    """Reserve device memory for frames of `shape` whose network input is `padded`.

    Raises
    ------
    ValueError
        The sides of `padded` are not multiples of 8, or there is room for too few columns.
    """
    import torch

    if padded[0] % CELL or padded[1] % CELL or room < STRONGEST:
        raise ValueError(f"padded shape {padded} needs sides that are multiples of {CELL}, and room {room} >= {STRONGEST}")
    cells, bins = padded[0] * padded[1] // CELL**2, (shape[0] // LEAST_BIN_PX + 1) * (shape[1] // LEAST_BIN_PX + 1)
    single = {"dtype": torch.float32, "device": device}
    double = {"dtype": torch.float64, "device": device}
    whole = {"dtype": torch.int32, "device": device}
    return Buffers(
        shape, padded, room,
        param=torch.zeros(64, **double), state=torch.zeros(len(State), **double),
        image=torch.zeros(shape, **single), model=torch.zeros(shape, **single),
        small=torch.zeros(padded, **single), contrast=torch.zeros((1, 1, *padded), **single),
        cells=torch.zeros((4, cells), **double), largest=torch.zeros(1, **whole),
        where=torch.zeros(room, **whole), height=torch.zeros(room, **single),
        score=torch.zeros(room, **double), start=torch.zeros((room, 2), **double), start_score=torch.zeros(room, **double),
        tables=torch.zeros((2, room, len(Column)), **double), edges=torch.zeros((2, bins), **whole),
        terms=torch.zeros((room, len(Pool)), **double), pool=torch.zeros(len(Pool), **double),
        answer=torch.zeros((room, len(Answer)), **double),
    )  # fmt: skip


def normalise(run: Launcher, b: Buffers, raw: Any) -> None:
    """Fill `image` (bright columns, no offset), `small` (canonical scale) and `contrast` (network input) from raw pixels.

    `raw` has the frame's shape and a type of `RAW_TYPES`.
    """
    run(_RAW[str(raw.dtype).removeprefix("torch.")], b.image.numel(), raw, b.image, b.param)
    resample(run, b)
    contrast(run, b)


def resample(run: Launcher, b: Buffers) -> None:
    """Area means of `image` into `small`, zeros beyond the canonical size."""
    run("resample_area", b.small.numel(), b.image, b.small, b.param)


def contrast(run: Launcher, b: Buffers) -> None:
    """Local contrast of `small` into `contrast`."""
    cells = b.cells.shape[1]
    mean, power, mean2, power2 = b.cells
    b.largest.zero_()
    run("cell_means", cells, b.small, mean, power, b.param)
    run("blur_cells", cells, mean, power, mean2, power2, b.param, 1)
    run("blur_cells", cells, mean2, power2, mean, power, b.param, 0)
    run("cell_spread", cells, mean, power, b.largest, b.param)
    run("local_contrast", b.small.numel(), b.small, mean, power, b.largest, b.contrast, b.param)


def peaks(run: Launcher, b: Buffers, heat: Any) -> None:
    """Peaks of the map `heat` into `where` and `height`, raster order; `State.FOUND` may exceed the room."""
    import torch

    pixels = heat.numel()
    state = torch.empty(pixels, dtype=torch.int32, device=heat.device)
    mark = torch.empty_like(state)
    undecided = torch.zeros(1, dtype=torch.int32, device=heat.device)
    b.height.fill_(-torch.inf)
    run("local_maxima", pixels, heat, state, b.param)
    for number in range(ROUNDS):
        run("suppress", pixels, heat, state, undecided, b.param, int(number == ROUNDS - 1))
    run("suppress_rest", 1, heat, state, undecided, b.param, pixels)
    run("mark_kept", pixels, state, mark)
    rank = torch.cumsum(mark, 0, dtype=torch.int32)
    run("list_peaks", pixels, heat, mark, rank, b.where, b.height, b.state, b.room)


def _significant(run: Launcher, b: Buffers, heat: Any, mark: Any) -> None:
    """Take the mark off peaks where the band-passed `contrast` does not stand out of its noise."""
    import torch

    pixels, contrast = b.small.numel(), b.contrast
    narrow, wide, narrow2, wide2 = (torch.empty_like(contrast) for _ in range(4))
    run("band_axis", pixels, contrast, contrast, narrow2, wide2, b.param, 1)
    run("band_axis", pixels, narrow2, wide2, narrow, wide, b.param, 0)
    some = torch.empty(-(-b.padded[0] // 3) * -(-b.padded[1] // 3), dtype=torch.float32, device=contrast.device)
    run("third_pixels", some.numel(), narrow, wide, some, b.param)
    run("third_median", 1, torch.sort(some).values, b.param, b.state)
    run("deviations", some.numel(), some, b.state)
    double = contrast.double()
    sums = torch.stack([double.sum(), (double * double).sum()])
    run("noise_level", 1, torch.sort(some).values, sums, b.param, b.state)
    run("keep_significant", b.room, heat, b.where, mark, narrow, wide, b.param, b.state)


def starts(run: Launcher, b: Buffers, heat: Any, *, choice: str = "score") -> None:
    """Peaks that count as columns as start positions in pixels of the frame, with their scores (as `UnetDetector`).

    Parameters
    ----------
    run, b, heat : Launcher, Buffers, Tensor
    choice : str
        "score": by score alone; "sparse": they must stand out of the noise too; "lattice": low ones in company count too.
    """
    import torch

    falling = torch.sort(b.height, descending=True).values
    mark = torch.empty_like(b.where)
    run("frame_threshold", 1, falling, b.param, b.state, b.room)
    run("score_peaks", b.room, b.height, b.score, mark, b.param, b.state)
    counted = b.height > -torch.inf
    if choice == "sparse":
        clear = counted.to(torch.int32)
        _significant(run, b, heat, clear)
        counted = clear > 0
        mark *= clear
    b.state[State.MERIT] = _quantile(b.height.double(), counted, 0.5 if choice == "sparse" else 0.75)
    sure = mark > 0
    if choice == "lattice":
        mark = ((sure | (b.height > LOW)) & sure.any()).to(torch.int32)
    rank = torch.cumsum(mark, 0, dtype=torch.int32)
    run("place_starts", b.room, heat, b.where, b.score, mark, rank, b.start, b.start_score, b.param, b.state)
    if choice == "lattice":
        place = torch.where(mark > 0, rank - 1, b.room).long()
        _choose(run, b, _listed(sure, place), _listed(b.height, place))


def _quantile(values: Any, which: Any, part: float) -> Any:
    """Quantile of some values, on the straight line between the two nearest ranks; 0 when there are none."""
    import torch

    rising = torch.sort(torch.where(which, values, torch.inf)).values
    last = (which.sum() - 1).clamp(min=0)
    place = part * last.double()
    low = place.floor().long()
    a, b = rising[low.reshape(1)], rising[torch.minimum(low + 1, last).reshape(1)]
    return torch.where(which.any(), a + (b - a) * (place - low), 0.0)[0]


def _listed(values: Any, place: Any) -> Any:
    """Values at their places in a new list of the same length; place `room` is none."""
    out = values.new_zeros((values.shape[0] + 1, *values.shape[1:]))
    out[place] = values
    return out[:-1]


def _choose(run: Launcher, b: Buffers, sure: Any, height: Any) -> None:
    """Of the starts, keep those that `detect.unet.with_company` keeps: sure and tall enough, or half as tall and in company."""
    import torch

    first = b.tables[0]
    run("fit_columns", b.room, b.image, b.model, b.start, first, first, b.terms, b.param, b.state, 0)
    there = torch.arange(b.room, device=first.device) < b.state[State.COUNT]
    tall = torch.where(there & (first[:, Column.OK] > 0), first[:, Column.AMPLITUDE], 0.0)
    sure &= there
    shy = sure & (height < CERTAIN) & (b.param[Param.CLEAR_PART] > 0.0)
    known = sure & (~shy | ~(sure & ~shy).any())
    # every k-th of them in the order of their heights, as the processor takes them
    order = torch.sort(torch.where(known, height, -torch.inf), descending=True, stable=True).indices
    rank = torch.empty_like(order)
    rank[order] = torch.arange(b.room, device=order.device)
    every = (known.sum() // REFERENCES).clamp(min=1)
    tall = tall / _quantile(tall, known & (rank % every == 0), BRIGHT_QUANTILE).clamp(min=1e-30)
    kept = sure & ~(shy & (tall < b.param[Param.CLEAR_PART]))
    doubtful = there & ~sure & (height > LOW) & (tall > DOUBTFUL_PART)
    state = torch.where(kept, 2, torch.where(doubtful, 1, 0)).to(torch.int32)
    # fits may have moved; company is a matter of peaks
    first[:, :2] = b.start
    order = _binned(run, b, first, fitted_only=False)
    for _ in range(COMPANY_ROUNDS):
        run("seek_company", b.room, first, state, order, b.edges[0], b.edges[1], b.param, b.state)
        state = torch.where(state == 3, 2, state)
    chosen = state == 2
    rank = torch.cumsum(chosen, 0)
    place = torch.where(chosen, rank - 1, b.room)
    b.start.copy_(_listed(b.start, place))
    b.start_score.copy_(_listed(b.start_score.clamp(min=0.5), place))
    b.state[State.COUNT] = rank[-1].double()


def _binned(run: Launcher, b: Buffers, table: Any, *, fitted_only: bool) -> Any:
    """Columns in the order of their bins; `edges` holds each bin's part of the list."""
    import torch

    bins = torch.empty(b.room, dtype=torch.int32, device=table.device)
    run("bin_columns", b.room, table, bins, b.param, b.state, int(fitted_only))
    ordered, order = torch.sort(bins, stable=True)
    b.edges.zero_()
    run("bin_edges", b.room, ordered, b.edges[0], b.edges[1])
    return order


def refine(run: Launcher, b: Buffers) -> None:
    """Fit all starts: once on the image, then the common width, then with the neighbours taken away; result in `tables[1]`."""
    import torch

    first, second = b.tables
    pixels = b.image.numel()
    run("fit_columns", b.room, b.image, b.model, b.start, first, first, b.terms, b.param, b.state, 0)
    order = _binned(run, b, first, fitted_only=True)
    run("render", pixels, first, order, b.edges[0], b.edges[1], b.model, b.param, b.state, 0)
    amplitude = torch.empty(b.room, dtype=torch.float64, device=first.device)
    terms = torch.empty((b.room, WIDTH_TERMS), dtype=torch.float64, device=first.device)
    run("list_amplitudes", b.room, first, amplitude, b.state)
    strongest = torch.topk(amplitude, STRONGEST).values
    run("width_terms", b.room, b.image, b.model, first, amplitude, strongest, terms, b.param, b.state, STRONGEST - 1)
    run("width_update", 1, terms.sum(0), b.param, b.state)
    run("render", pixels, first, order, b.edges[0], b.edges[1], b.model, b.param, b.state, 1)
    run("fit_columns", b.room, b.image, b.model, b.start, first, second, b.terms, b.param, b.state, 1)
    b.pool.copy_(b.terms.sum(0))


def collect(run: Launcher, b: Buffers) -> None:
    """Merge columns that ended on one place, and write the table that goes to the host (`Answer`)."""
    import torch

    table = b.tables[1]
    order = _binned(run, b, table, fitted_only=False)
    state = torch.empty(b.room, dtype=torch.int32, device=table.device)
    undecided = torch.zeros(1, dtype=torch.int32, device=table.device)
    run("begin_merge", b.room, state, b.state)
    places = (order, b.edges[0], b.edges[1], b.param, b.state)
    for number in range(ROUNDS):
        run("merge", b.room, table, b.start_score, state, undecided, *places, int(number == ROUNDS - 1))
    run("merge_rest", 1, table, b.start_score, state, undecided, *places)
    height = torch.empty(b.room, dtype=torch.float64, device=table.device)
    run("list_heights", b.room, table, height, b.state)
    run("faintest_height", 1, torch.sort(height).values, b.param, b.state)
    run("drop_faint", b.room, table, state, b.state)
    run("describe", b.room, b.image, table, b.start_score, state, order, b.edges[0], b.edges[1], b.answer, b.param, b.state)


__all__ = [
    "RAW_TYPES",
    "Buffers",
    "Param",
    "allocate",
    "collect",
    "contrast",
    "normalise",
    "peaks",
    "refine",
    "resample",
    "starts",
]
