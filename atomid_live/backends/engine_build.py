"""`engine build`: make the plan of an engine for this PC's GPU beforehand, so that a session need not wait for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from atomid_live.backends.engine import find_engine, load_engine
from atomid_live.backends.gpu_health import gpu_problem
from atomid_live.backends.plan_cache import BuildChoice, PlanCache
from atomid_live.backends.precision import PRECISIONS, graph_for
from atomid_live.backends.tensorrt_build import SIDES, SMALLEST, BuildRecipe, import_tensorrt, obtain_plan
from atomid_live.errors import DeviceAbsentError, UsageError

LARGEST = 16384


def frame_sides(words: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Frame sizes written as "1024" or "1024x2048" (rows x columns), rounded up to multiples of 64, small ones first.

    Raises
    ------
    UsageError
        Not such a size, or out of range.
    """
    sides = set()
    for word in words:
        parts = word.lower().split("x")
        if len(parts) > 2 or not all(part.isdigit() and SMALLEST <= int(part) <= LARGEST for part in parts):
            raise UsageError(
                f"frame size {word!r}: give rows, or rows x columns, {SMALLEST} to {LARGEST}, e.g. 1024 or 512x2048"
            )
        rows, cols = (-(-int(part) // SMALLEST) * SMALLEST for part in (parts[0], parts[-1]))
        sides.add((rows, cols))
    return tuple(sorted(sides, key=lambda side: (side[0] * side[1], side)))


def build_engine_plan(
    model: str | None = None, precision: str = "fp16", side: Sequence[str] = (), tell: Callable[[str], None] = print
) -> Path:
    """Build (or find) the plan of an engine on this GPU, and keep precision and frame sizes for sessions to come.

    Parameters
    ----------
    model : str or None
        Engine by name or folder; None is the default one.
    precision : str
        "fp32", "fp16" or "int8".
    side : sequence of str
        Frame sizes, see `frame_sides`; none keeps those of the last build, or takes 1024, 2048 and 4096.
    tell : callable
        Hears each step.

    Returns
    -------
    Path
        The folder that holds the plan.

    Raises
    ------
    UsageError
        Unknown model, precision or size.
    DeviceAbsentError
        No usable GPU or TensorRT.
    ModelError
        The plan cannot be built.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    sides = frame_sides(side)
    folder = find_engine(model)
    if folder is None:
        raise UsageError(
            "no engine ships with this program yet; train one with `atomid-live train`, or name a folder with --model"
        )
    engine = load_engine(folder)
    problem = gpu_problem()
    if problem:
        raise DeviceAbsentError(f"a plan is built on the GPU that it is to run on: {problem}")
    trt, cache = import_tensorrt(), PlanCache()
    chosen = BuildChoice(precision, sides or cache.choice().sides)
    cache.store_choice(chosen)
    recipe = BuildRecipe(precision, chosen.sides or SIDES)
    largest = ", ".join(f"{rows} x {cols}" for rows, cols in recipe.sides)
    tell(f"{engine.name} {precision}, TensorRT {trt.__version__}, frames up to {largest}")
    plan, key = obtain_plan(trt, graph_for(engine, precision, cache), recipe, cache, tell)
    tell(f"plan {key.digest[:16]}, {len(plan) / 1e6:.1f} MB, in {cache.folder}")
    return cache.folder
