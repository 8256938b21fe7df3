"""The stages of detection as sequences of kernels on tensors of fixed size; no step waits for the host.

Counts stay on the device (`State`); tables have room for `room` columns and hold the frame's in their first rows. Glue between
kernels (running sums, stable sorts, totals) is torch's, whose order does not change from run to run.
"""

from __future__ import annotations

from typing import Any

from atomid_live.kernels.buffers import Buffers, allocate
from atomid_live.kernels.judge import choose, place
from atomid_live.kernels.launch import Launcher
from atomid_live.kernels.layout import STRONGEST, Term

ROUNDS = 6

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
RAW_TYPES = frozenset(_RAW)


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
    run("fit_alone", b.room, b.image, b.start, first, b.param, b.state)
    order = _binned(run, b, first, fitted_only=True)
    run("render", pixels, first, order, b.edges[0], b.edges[1], b.model, b.param, b.state, 0)
    amplitude = torch.empty(b.room, dtype=torch.float64, device=first.device)
    terms = torch.empty((b.room, len(Term)), dtype=torch.float64, device=first.device)
    run("list_amplitudes", b.room, first, amplitude, b.state)
    strongest = torch.topk(amplitude, STRONGEST).values
    run("width_terms", b.room, b.image, b.model, first, amplitude, strongest, terms, b.param, STRONGEST - 1)
    run("width_update", 1, terms.sum(0), b.param, b.state)
    run("render", pixels, first, order, b.edges[0], b.edges[1], b.model, b.param, b.state, 1)
    run("fit_among", b.room, b.image, b.model, b.start, first, second, b.terms, b.param, b.state)
    b.pool.copy_(b.terms.sum(0))


def collect(run: Launcher, b: Buffers) -> None:
    """Merge columns that ended on one place, and write the table that goes to the host (`Answer`)."""
    import torch

    table = b.tables[1]
    order = _binned(run, b, table, fitted_only=False)
    state = torch.empty(b.room, dtype=torch.int32, device=table.device)
    undecided = torch.zeros(1, dtype=torch.int32, device=table.device)
    run("begin_merge", b.room, b.chosen, state, b.state)
    places = (order, b.edges[0], b.edges[1], b.param, b.state)
    for number in range(ROUNDS):
        run("merge", b.room, table, b.start_score, state, undecided, *places, int(number == ROUNDS - 1))
    run("merge_rest", 1, table, b.start_score, state, undecided, *places)
    run("drop_outside", b.room, table, state, b.state)
    inside = (state, order, b.edges[0], b.edges[1])
    run("describe", b.room, b.image, table, b.start_score, b.height, *inside, b.answer, b.param, b.state)


__all__ = [
    "RAW_TYPES",
    "Buffers",
    "allocate",
    "choose",
    "collect",
    "contrast",
    "normalise",
    "peaks",
    "place",
    "refine",
    "resample",
]
