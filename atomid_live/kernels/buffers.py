"""Device memory for the frames of one shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from atomid_live.kernels.layout import SPARE, STRONGEST, Answer, Column, Pool, State

CELL = 8
LEAST_BIN_PX = 8
LEAST_COMPANY_PX = 2.5


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
    significance: Any = field(repr=False)
    sharpness: Any = field(repr=False)
    chosen: Any = field(repr=False)
    tables: Any = field(repr=False)
    edges: Any = field(repr=False)
    company: Any = field(repr=False)
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
    near = (int(shape[0] / LEAST_COMPANY_PX) + 2) * (int(shape[1] / LEAST_COMPANY_PX) + 2)
    single = {"dtype": torch.float32, "device": device}
    double = {"dtype": torch.float64, "device": device}
    whole = {"dtype": torch.int32, "device": device}
    return Buffers(
        shape, padded, room,
        param=torch.zeros(SPARE, **double), state=torch.zeros(len(State), **double),
        image=torch.zeros(shape, **single), model=torch.zeros(shape, **single),
        small=torch.zeros(padded, **single), contrast=torch.zeros((1, 1, *padded), **single),
        cells=torch.zeros((4, cells), **double), largest=torch.zeros(1, **whole),
        where=torch.zeros(room, **whole), height=torch.zeros(room, **single),
        score=torch.zeros(room, **double), start=torch.zeros((room, 2), **double), start_score=torch.zeros(room, **double),
        significance=torch.zeros(room, **double),
        sharpness=torch.zeros(room, **double), chosen=torch.zeros(room, **whole),
        tables=torch.zeros((2, room, len(Column)), **double), edges=torch.zeros((2, bins), **whole),
        company=torch.zeros((2, near), **whole),
        terms=torch.zeros((room, len(Pool)), **double), pool=torch.zeros(len(Pool), **double),
        answer=torch.zeros((room, len(Answer)), **double),
    )  # fmt: skip
