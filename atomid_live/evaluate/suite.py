"""`evaluate suite`: every detector and rival over the same images, scored alike, with the differences between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from atomid_live.errors import UsageError
from atomid_live.evaluate.contestants import Contestant, contestants
from atomid_live.evaluate.label_limits import LabelLimit, limits
from atomid_live.evaluate.metrics import match
from atomid_live.evaluate.protocol import LabelError, label_errors
from atomid_live.evaluate.real_frames import labelled
from atomid_live.evaluate.rivals.entry import Rival, open_rivals
from atomid_live.evaluate.scenes import SCENES, Scene, SceneImage, make_image, scene_named
from atomid_live.evaluate.scenes.catalogue import SMALL, SMALL_SHAPE, USUAL_SHAPE, Variant
from atomid_live.evaluate.scenes.changed import BASE, CHANGES, turned
from atomid_live.evaluate.scenes.fingerprint import verdict
from atomid_live.evaluate.scenes.multislice import LINEAR
from atomid_live.evaluate.scoring import QUARTER, Answer, score_image, spacing_of
from atomid_live.types import FloatArray

Tell = Callable[[str], None]
SECRET_OFFSET = 500_000
SMALL_SEEDS = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run.

    Attributes
    ----------
    models : tuple of str
        "dog", or engines by name or folder; the first is compared with the others.
    scenes : tuple of str
        Names; all by default.
    seeds : int
        Images per variant.
    small : bool
        The set that guards against regressions: 12 scenes, two seeds, 288 x 352 pixels.
    offset : int
        Added to every seed, for another set of images by the same recipes.
    rivals : tuple of str
        Names of `atomid_live.evaluate.rivals.RIVALS`.
    rival_seeds : int
        Images per variant shown to rivals, which are slow; at most `seeds`.
    real_data : Path or None
        Folder of labelled real frames.
    atomap_python : Path or None
        Interpreter of an environment that has Atomap.
    threads : int
    """

    models: tuple[str, ...] = ("dog",)
    scenes: tuple[str, ...] = ()
    seeds: int = 10
    small: bool = False
    offset: int = 0
    rivals: tuple[str, ...] = ()
    rival_seeds: int = 2
    real_data: Path | None = None
    atomap_python: Path | None = None
    threads: int = 2

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        if self.seeds < 1 or self.rival_seeds < 1:
            raise UsageError(f"{min(self.seeds, self.rival_seeds)} images per variant asked for; at least one is needed")
        if not self.models:
            raise UsageError("no model to evaluate; name at least one, e.g. --model dog")


@dataclass(frozen=True, slots=True)
class Row:
    """One contestant's numbers on one image."""

    who: str
    scene: str
    variant: str
    seed: int
    numbers: Mapping[str, float] = field(repr=False)

    @property
    def image(self) -> str:
        """Name of the image."""
        return f"{self.scene}/{self.variant}/{self.seed}"

    @property
    def series(self) -> int:
        """The number of the image in its variant; images that share it count as one draw of the bootstrap."""
        return self.seed % 1000


@dataclass(frozen=True, slots=True)
class Outcome:
    """All numbers of a run, who could not take part, and how many images are the stored ones ("same", "changed", "unknown")."""

    plan: Plan
    ours: tuple[str, ...]
    simulated: tuple[Row, ...] = field(repr=False)
    real: tuple[Row, ...] = field(repr=False)
    absent: tuple[str, ...] = ()
    hashes: Mapping[str, int] = field(default_factory=dict)
    labels: tuple[LabelError, ...] = ()
    limits: tuple[LabelLimit, ...] = ()

    @property
    def contestants(self) -> tuple[str, ...]:
        """Names in the order in which they appear."""
        return tuple(dict.fromkeys(row.who for row in (*self.simulated, *self.real)))


def planned(plan: Plan) -> Iterator[tuple[Scene, Variant, int, tuple[int, int] | None]]:
    """Scene, variant, image number and shape of everything that is to be shown."""
    names = plan.scenes or (SMALL if plan.small else tuple(scene.name for scene in SCENES))
    for name in names:
        scene = scene_named(name)
        for variant in scene.variants:
            for k in range(min(plan.seeds, SMALL_SEEDS) if plan.small else plan.seeds):
                yield scene, variant, k, SMALL_SHAPE if plan.small else None


def moved(answer: Answer, base: Answer, image: SceneImage, shape: tuple[int, int], spacing_px: float) -> float:
    """Rms change per axis in px of the columns found in both, the image of `shape` having been turned by a variant of S17."""
    back: FloatArray = turned(answer.yx_px, shape, CHANGES[image.variant], back=True)
    i, j = match(back, base.yx_px, QUARTER * spacing_px)
    return float(np.sqrt(np.mean((back[i] - base.yx_px[j]) ** 2))) if len(i) else float("nan")


class _Pairs:
    """Compares variants of S17 with the same contestant's answer to the unchanged image, and S18 with its linear twin."""

    def __init__(self) -> None:
        self._base: dict[tuple[str, int], tuple[Answer, float, tuple[int, int]]] = {}
        self._linear: dict[tuple[str, str, int], float] = {}

    def add(self, who: str, image: SceneImage, answer: Answer, numbers: dict[str, float]) -> None:
        """Add what the comparison gives to the numbers."""
        if image.scene == "S17":
            self._turned(who, image, answer, numbers)
        elif image.scene == "S18" and "f1" in numbers:
            cell = image.variant.removesuffix(LINEAR)
            if cell != image.variant:
                self._linear[who, cell, image.seed] = numbers["f1"]
            elif (who, cell, image.seed) in self._linear:
                numbers["f1_from_linear"] = abs(numbers["f1"] - self._linear[who, cell, image.seed])

    def _turned(self, who: str, image: SceneImage, answer: Answer, numbers: dict[str, float]) -> None:
        if image.variant == BASE:
            rows, cols = image.pixels.shape
            self._base[who, image.seed] = answer, numbers["f1"], (rows, cols)
        elif (who, image.seed) in self._base and "f1" in numbers:
            base, f1, shape = self._base[who, image.seed]
            numbers["f1_change"] = abs(numbers["f1"] - f1)
            numbers["moved_px"] = moved(answer, base, image, shape, spacing_of(image))


def _guests(plan: Plan, ours: Sequence[Contestant], closing: ExitStack) -> tuple[list[Rival], list[str]]:
    if not plan.rivals:
        return [], []
    try:
        return open_rivals(plan.rivals, ours, plan.atomap_python, closing)
    except ImportError as error:
        raise UsageError(f"rivals need {error.name}; install it (scikit-image), or run without --rivals") from error


class _Referee:
    """Shows one image after the other to everyone and keeps the numbers."""

    def __init__(self, plan: Plan, ours: Sequence[Contestant], rivals: Sequence[Rival]) -> None:
        self.plan, self.rows = plan, list[Row]()
        self._ours, self._rivals = ours, rivals
        self._names = {each.name for each in ours}
        self._pairs = _Pairs()

    def show(self, image: SceneImage, with_rivals: bool, with_chance: bool) -> None:
        """Score everyone's answer to an image."""
        answers: list[tuple[str, Answer]] = [(each.name, each(image.frame())) for each in self._ours]
        if with_rivals:
            answers += [pair for rival in self._rivals for pair in rival(image)]
        for who, answer in answers:
            numbers = score_image(image, answer, with_chance and who in self._names)
            numbers |= {f"ms {stage}": ms for stage, ms in answer.timings_ms.items()}
            self._pairs.add(who, image, answer, numbers)
            self.rows.append(Row(who, image.scene, image.variant, image.seed, numbers))


def run_suite(plan: Plan, tell: Tell = lambda text: None) -> Outcome:
    """Show every planned image to every contestant and score the answers.

    Rivals see the first `rival_seeds` images of each variant and every real frame; their parameters are the best for each
    image (see `atomid_live.evaluate.rivals`), ours are fixed.

    Raises
    ------
    UsageError
        Unknown scene, model or rival, or no such folder of real frames.
    """
    hashes: Counter[str] = Counter()
    with ExitStack() as closing:
        ours = closing.enter_context(contestants(plan.models, plan.threads))
        rivals, absent = _guests(plan, ours, closing)
        for contestant in ours:
            contestant.warm_up(SMALL_SHAPE if plan.small else USUAL_SHAPE)
        referee, begun, last = _Referee(plan, ours, rivals), perf_counter(), ""
        for scene, variant, k, shape in planned(plan):
            if scene.name != last:
                tell(f"{perf_counter() - begun:6.0f} s  {scene.name} {scene.title}")
                last = scene.name
            image = make_image(scene, variant, k, shape, plan.offset)
            if not plan.small and not plan.offset:
                hashes[verdict(image)] += 1
            referee.show(image, k < plan.rival_seeds, with_chance=k == 0 and not plan.small)
        simulated, referee.rows = referee.rows, []
        allowed: tuple[LabelLimit, ...] = ()
        if plan.real_data is not None:
            tell(f"{perf_counter() - begun:6.0f} s  real frames")
            images = list(labelled(plan.real_data))
            for image in images:
                referee.show(image, True, with_chance=True)
            allowed = tuple(limits(images))
        labels: tuple[LabelError, ...] = ()
        if not plan.small and not plan.scenes:
            tell(f"{perf_counter() - begun:6.0f} s  the thesis's annotation protocol")
            labels = tuple(label_errors())
    names = tuple(each.name for each in ours)
    return Outcome(plan, names, tuple(simulated), tuple(referee.rows), tuple(absent), dict(hashes), labels, allowed)


def run_scenes(plan: Plan, tell: Tell = lambda text: None) -> list[Row]:
    """Rows of the simulated scenes alone."""
    return list(run_suite(replace(plan, real_data=None), tell).simulated)


def evaluate_suite(
    plan: Plan, *, page: Path | None = None, json_path: Path | None = None, tell: Tell = lambda text: None
) -> Outcome:
    """Run a plan and write what it found.

    Parameters
    ----------
    plan : Plan
    page : Path or None
        Results page (docs/results.md) whose marked section is written anew.
    json_path : Path or None
        File for every number.
    tell : callable
        Told of progress, a line at a time.

    Raises
    ------
    UsageError
        Unknown scene, model or rival; no such folder; a page without its markers.
    """
    from atomid_live.evaluate.report import write_outcome

    outcome = run_suite(plan, tell)
    write_outcome(outcome, page, json_path)
    return outcome
