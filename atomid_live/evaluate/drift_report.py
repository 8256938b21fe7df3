"""`evaluate drift`: follow, score, and write the marked section of the results page."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from atomid_live import __version__
from atomid_live.errors import UsageError
from atomid_live.evaluate.drift_real import RealRow, real_rows
from atomid_live.evaluate.drift_runs import follow_all
from atomid_live.evaluate.drift_scenes import SCENES, DriftScene
from atomid_live.evaluate.drift_score import DriftScore, score
from atomid_live.evaluate.report import place
from atomid_live.evaluate.tables import table

SCHEMA = 1
MOST_FLAGGED = 0.1
LEAST_STEPS = 2970  # of 3000 frames


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for; see the command."""

    scenes: tuple[str, ...] = ()
    most_runs: int | None = None
    real_data: Path | None = None
    frames_file: Path | None = None


def chosen(names: Sequence[str]) -> tuple[DriftScene, ...]:
    """Scenes by name, all for none."""
    known = {scene.name: scene for scene in SCENES}
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"no drift scene {', '.join(unknown)}; known: {', '.join(known)}")
    return tuple(known[name] for name in names) if names else SCENES


def _shown(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def met(name: str, result: DriftScore) -> str:
    """Whether a scene's target is met: "yes", or what is not."""
    rate, lost = result.undetected / max(result.frames, 1), []
    if name in ("D1", "D2", "D3"):
        lost += [f"{result.hops} hops"] if result.hops else []
        lost += [f"fine {result.fine_pm:.1f} pm"] if not result.fine_pm <= 3 else []
        lost += [f"velocity {result.velocity_pm:.1f} pm/frame"] if not result.velocity_pm <= 2 else []
    elif name == "D4":
        lost += [f"{result.undetected} undetected"] if result.undetected or result.unanswered else []
    elif name == "D5":
        share = result.flagged / max(result.frames, 1)
        lost += [f"flagged {100 * share:.1f} %"] if share < 0.99 else []
    if name in ("D5", "D5s", "D6", "D7", "D8") and rate > 1e-3:
        lost.append(f"undetected {rate:.1e}")
    if name in ("D6", "D7", "D8") and not result.fine_pm <= 10:
        lost.append(f"fine {result.fine_pm:.1f} pm")
    if name != "D5" and result.flagged > MOST_FLAGGED * result.frames:
        lost.append(f"flagged {100 * result.flagged / result.frames:.0f} %")
    if name in ("D5", "D6") and result.frames < LEAST_STEPS:
        lost.append(f"{result.frames} steps of {LEAST_STEPS}")
    return "no: " + ", ".join(lost) if lost else "yes"


def _scene_rows(scores: dict[str, DriftScore]) -> list[tuple[str, ...]]:
    return [
        (
            name, str(s.frames), str(s.hops), str(s.undetected), str(s.flagged), str(s.flagged_right), _shown(s.fine_pm, 2),
            _shown(s.total_pm, 2), _shown(s.end_pm, 2), _shown(s.z, 2), _shown(s.z_end, 2), _shown(s.velocity_pm, 2),
            met(name, s),
        )
        for name, s in scores.items()
    ]  # fmt: skip


_HEAD = (
    "scene", "steps", "hops", "undetected", "flagged", "flagged, right", "fine rms, pm", "total rms, pm", "end rms, pm",
    "z", "z, end", "velocity, pm/frame", "target met",
)  # fmt: skip

_READING = (
    "hops: steps wrong by more than half a cell. undetected: changes of the total's error by more than half a cell from one "
    "frame not flagged to the next. flagged: frames said to be unsure; of these, right: the total was right all the same (a "
    "false alarm where the data could tell; in D5 they cannot). fine: error of steps that are right, per axis. total, end: "
    "error of totals not flagged and not off by a cell, over all frames and at the end of each run. z: that error over the "
    "stated one. velocity: against the straight line through the true totals of the same frames. A run whose lattice is too "
    "faint to be found (D6) stays flagged; more than a tenth of the frames flagged counts as missed, but in D5."
)


def markdown(scenes: Sequence[DriftScene], scores: dict[str, DriftScore], real: Sequence[RealRow]) -> str:
    """The section, without its markers."""
    frames = sum(s.frames for s in scores.values())
    lines = [
        "## Drift (D1-D8)",
        "",
        f"{frames} simulated steps, written by `atomid-live evaluate drift`; atomid-live {__version__}, Python "
        f"{platform.python_version()}. MoS2, 1024 x 960 px of 12.4 pm (D5: 512 x 480), 9 e/px background (D6: 0.2), specimen "
        "moving while it is scanned, all four pairs of signs. The tracker starts without truth and finds lattice and column "
        "width itself.",
        "",
        *table(("scene", "what", "target"), [(s.name, s.title, s.target) for s in scenes]),
        "",
        *table(_HEAD, _scene_rows(scores)),
        "",
        _READING,
        "",
    ]
    if real:
        lines += ["### Real series", "", _REAL, "", *_real_table(real), ""]
    return "\n".join(lines).rstrip() + "\n"


_REAL = (
    "closure: rms per axis of the totals' difference against a direct registration of frames 1, 3 and 8 apart. "
    "The graphene's bright atom (a second a frame assumed): share of steps at which a tracker of the brightest spot leaves "
    "ours by more than a quarter cell, and correlation of successive frames moved by ours and by it. Windows: cut from one "
    "real frame along a known path, smoothed by 1 px, made noisy again."
)


def _real_table(rows: Sequence[RealRow]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row.numbers))
    head = ("series", "frames", *(name.replace("_", " ") for name in names))
    return table(head, [(r.name, str(r.frames), *(_shown(r.numbers.get(n, math.nan), 3) for n in names)) for r in rows])


def evaluate_drift(
    plan: Plan, *, page: Path | None, json_path: Path | None, tell: Callable[[str], None]
) -> dict[str, DriftScore]:
    """Follow every run asked for, print and write what came out."""
    scenes = chosen(plan.scenes)
    runs = follow_all(scenes, plan.most_runs, plan.frames_file, tell)
    scores = {name: score(followed) for name, followed in runs.items()}
    real = real_rows(plan.real_data) if plan.real_data is not None else []
    text = markdown(scenes, scores, real)
    print(text)
    if page is not None:
        place(page, text, "drift")
    if json_path is not None:
        record = {"schema": SCHEMA, "scenes": {n: asdict(s) for n, s in scores.items()}, "real": [asdict(r) for r in real]}
        json_path.write_text(json.dumps(_plain(record)) + "\n", encoding="utf-8")
    return scores


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
