"""The commands: thin, each imports what it needs when it is called, so that `--help` is quick."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import cyclopts
from cyclopts import App, Group, Parameter

from atomid_live import __version__
from atomid_live.errors import AtomidError

if TYPE_CHECKING:
    from atomid_live.assemble import Prepared

app = App(
    name="atomid-live",
    version=__version__,
    help="Live atom columns, drift and strain beside a scanning transmission electron microscope.",
    help_format="plaintext",
)
simulate = App(name="simulate", help="Simulated frames with known truth.")
evaluate = App(name="evaluate", help="Compare with truth.")
config = App(name="config", help="Settings.")
engine = App(name="engine", help="Network engines.")
for group in (simulate, evaluate, config, engine):
    app.command(group)

_SHARED = Group("Shared options", sort_key=9)


@Parameter(name="*", group=_SHARED)
@dataclass(frozen=True)
class Shared:
    """Options that most commands know; a value given here is stronger than one in the settings file."""

    config: Path | None = None
    "Settings file (TOML)."
    model: str | None = None
    "Detector by name; dog is the classical one."
    backend: Literal["auto", "openvino", "onnxruntime", "torch", "tensorrt", "torch-cuda", "onnxruntime-cuda"] | None = None
    "What runs the network."
    threads: int | None = None
    "Processor threads; default half the cores."
    pixel_size_nm: str | None = None
    "Pixel size X[,Y] in nm, over what the file says."
    beam_current_pa: float | None = None
    "Probe current in pA for the dose, over what the file says."
    calibration: str | None = None
    "Scan distortion profile: a .toml file, or MICROSCOPE/MODE in ./calibration."
    detector: str | None = None
    "Which detector's images to take; default HAADF."
    polarity: Literal["bright", "dark", "auto"] | None = None
    "Columns brighter (HAADF) or darker (ABF) than around them."
    threshold: float | None = None
    "Least score of a column, 0 to 1; without it the detector chooses."
    refine: Literal["full", "fast"] | None = None
    "Fit columns with their neighbours taken away (full, the default), or by one quick step each."
    min_separation: str | None = None
    "Least distance of two columns: 5px, 0.15nm or 0.5d (d = spacing)."
    columns: Literal["all", "bright"] | None = None
    "All visible columns, or of two kinds by height the brighter only."
    reference: str | None = None
    "Strain reference: first:N, frame, region, material:NAME or file.cif."
    out: Path | None = None
    "Folder that receives one session folder per run."
    display: tuple[Literal["terminal", "window", "browser", "none"], ...] | None = None
    "Where to show; may be given more than once."
    annotate: str | None = None
    "Annotated frames to save: all, N (every Nth), events or none."
    json: bool | None = None
    "One JSON line per frame on standard output."
    publish: str | None = None
    "Publish results for other programs, e.g. tcp://127.0.0.1:5556."
    advise: bool | None = None
    "Also publish by how much the scan would have to follow the specimen; the program itself moves nothing."
    average: int | None = None
    "Save the aligned mean of each N frames, with its error per pixel, as 32-bit TIFF."
    verbose: bool | None = None
    "Log details."

    def keys(self) -> dict[str, Any]:
        """Dotted settings keys of what was given."""
        return {
            "detect.model": self.model,
            "detect.backend": self.backend,
            "threads": self.threads,
            "frame.pixel_size_nm": self.pixel_size_nm,
            "frame.beam_current_pa": self.beam_current_pa,
            "frame.calibration": self.calibration,
            "frame.detector": self.detector,
            "frame.polarity": self.polarity,
            "detect.threshold": self.threshold,
            "detect.refine": self.refine,
            "detect.min_separation": self.min_separation,
            "detect.columns": self.columns,
            "strain.reference": self.reference,
            "output.out": self.out,
            "output.display": self.display,
            "output.annotate": self.annotate,
            "output.json_lines": self.json,
            "output.publish": self.publish,
            "output.advise": self.advise,
            "output.average": self.average,
            "output.verbose": self.verbose,
        }


def _prepared(shared: Shared, more: Mapping[str, Any] | None = None) -> Prepared:
    """Resolve settings and behave as a quiet guest, before anything heavy is imported."""
    from atomid_live.guest import behave
    from atomid_live.settings import resolve

    settings, origins = resolve(shared.config, {**shared.keys(), **(more or {})})
    behave(settings.threads)
    from atomid_live.assemble import Prepared

    return Prepared(settings, origins)


@app.command
def demo(*, shared: Shared = Shared(), frames: int = 40, seed: int = 1) -> int:
    """Watch a simulated Spectra 300 for about a minute and compare with its truth; ends by itself.

    Parameters
    ----------
    frames
        How many frames the simulated microscope writes.
    seed
        Seed of the specimen, the noise and the drift.
    """
    prepared = _prepared(shared)
    from atomid_live.demo import run_demo

    return run_demo(prepared, frames, seed)


@app.command
def watch(
    folder: Path,
    /,
    *,
    shared: Shared = Shared(),
    existing: Literal["last", "process", "skip"] | None = None,
    recursive: bool | None = None,
    until_idle: float | None = None,
    max_frames: int | None = None,
) -> int:
    """Watch a folder and analyse each frame as it is written; nothing in the folder is ever touched.

    Parameters
    ----------
    folder
        Folder into which the microscope's software saves.
    existing
        Files already there: the newest only, all, or none. Default: the newest on a fresh session, else what the ledger lacks.
    recursive
        Watch sub-folders too.
    until_idle
        End after this many seconds without a new frame.
    max_frames
        End after this many frames.
    """
    more = {
        "source.existing": existing,
        "source.recursive": recursive,
        "source.until_idle_s": until_idle,
        "source.max_frames": max_frames,
    }
    prepared = _prepared(shared, more)
    from atomid_live import run

    return run.watch(prepared, folder)


@app.command
def listen(
    address: str,
    /,
    *,
    shared: Shared = Shared(),
    until_idle: float | None = None,
    max_frames: int | None = None,
    insecure: bool = False,
) -> int:
    """Take live frames from a ZMQ publisher (SUB, array-1.0); the newest is shown, overtaken ones are counted.

    Parameters
    ----------
    address
        For example tcp://127.0.0.1:5555.
    until_idle
        End after this many seconds without a new frame.
    max_frames
        End after this many frames.
    insecure
        Allow an address on another machine, although the stream is neither encrypted nor authenticated.
    """
    more = {"source.until_idle_s": until_idle, "source.max_frames": max_frames}
    prepared = _prepared(shared, more)
    from atomid_live import run

    return run.listen(prepared, address, insecure)


@app.command
def replay(
    paths: Annotated[list[Path], Parameter(consume_multiple=True, negative=())],
    /,
    *,
    shared: Shared = Shared(),
    pace: float = 0.0,
    max_frames: int | None = None,
) -> int:
    """Run saved frames through the same path as live ones.

    Parameters
    ----------
    paths
        Files or folders, in the order to be taken; a folder's files are taken in natural order.
    pace
        Seconds between frames; 0 is as fast as possible.
    max_frames
        End after this many frames.
    """
    prepared = _prepared(shared, {"source.max_frames": max_frames})
    from atomid_live import run

    return run.replay(prepared, paths, pace or None)


@app.command
def detect(files: Annotated[list[Path], Parameter(consume_multiple=True, negative=())], /, *, shared: Shared = Shared()) -> int:
    """Find the columns of single frames; writes STEM.atoms.csv and STEM.annotated.png into --out (default: here).

    Parameters
    ----------
    files
        Frames to read; stacks give one result per frame.
    """
    prepared = _prepared(shared)
    from atomid_live.single import detect_files

    return detect_files(prepared, files)


@simulate.command(name="session")
def simulate_session(
    folder: Path,
    /,
    *,
    frames: int = 40,
    pace: float = 1.0,
    crystal: str = "ReS2",
    seed: int = 1,
    mode: Literal["rename", "direct", "slow", "stack", "faulty"] = "rename",
) -> int:
    """Write frames into a folder as a Spectra 300 would, with the truth beside it (FOLDER.truth).

    Parameters
    ----------
    folder
        Where the frames go.
    frames
        How many.
    pace
        Seconds between frames.
    crystal
        Which crystal; a wrong name lists the known ones.
    seed
        Seed of specimen, noise and drift.
    mode
        How files appear: renamed into place, written in place, piece by piece, as one growing stack, or with faults.
    """
    from atomid_live.simulate.microscope import write_session

    return write_session(folder, crystal=crystal, frames=frames, pace_s=pace, seed=seed, mode=mode)


@simulate.command(name="dataset")
def simulate_dataset(out: Path, /, *, count: int = 100, seed: int | None = None, size: int = 512) -> int:
    """Write simulated frames and their columns, for training elsewhere or for a look at what the network learns from.

    Parameters
    ----------
    out
        A new or empty folder.
    count
        How many frames.
    seed
        Seed; the default is kept apart from those of training and evaluation.
    size
        Least side of a frame in pixels.
    """
    from atomid_live.train.write_dataset import DATASET_SEED
    from atomid_live.train.write_dataset import simulate_dataset as write

    print(f"{count} frames in {write(out, count, DATASET_SEED if seed is None else seed, size)}")
    return 0


@app.command
def train(
    out: Path = Path("runs/unet"),
    /,
    *,
    crops: int | None = None,
    seed: int | None = None,
    architecture: Literal["compact", "atomid-net"] = "compact",
    threads: int = 1,
    workers: int = 1,
    engine: Path | None = None,
) -> int:
    """Train a network on simulated frames; goes on from a checkpoint, and writes the engine at the end if asked.

    Parameters
    ----------
    out
        Folder of checkpoint, log and curves; a run that was cut off is gone on with.
    crops
        How many crops of 256 x 256 pixels it sees.
    seed
        Seed of weights and data; the default gives the shipped weights.
    architecture
        compact is what ships; atomid-net is the thesis's network, for comparison.
    threads
        Threads of the training process.
    workers
        Processes that make crops.
    engine
        Folder to write the engine to when training is done, e.g. engines/mine.
    """
    from importlib.util import find_spec

    from atomid_live.errors import UsageError

    if find_spec("torch") is None:
        raise UsageError("training needs torch; install it with: pip install 'atomid-live[train]'")
    from atomid_live.train.dataset import Recipe
    from atomid_live.train.fit import TrainSettings
    from atomid_live.train.fit import train as run_training

    given: dict[str, Any] = {"crops": crops, "seed": seed, "threads": threads, "workers": workers}
    given |= {"architecture": architecture, "recipe": Recipe(thesis_targets=architecture == "atomid-net")}
    settings = TrainSettings(out=out, **{key: value for key, value in given.items() if value is not None})
    print(run_training(settings))
    if engine is not None:
        from atomid_live.train.ship import ship

        print(ship(settings, engine, engine.name))
    return 0


@evaluate.command
def points(
    pred: Path,
    truth: Path,
    /,
    *,
    mask: tuple[str, ...] = (),
    frame_size: str | None = None,
    pixel_size_nm: float | None = None,
    tolerance: str = "0.5",
    json: bool = False,
) -> int:
    """Score found positions against true ones, matched one to one.

    Parameters
    ----------
    pred
        Table of positions found, e.g. an atoms.csv.
    truth
        Table of true positions; headers `Peak#,X,Y,Phase`, ` ,X,Y`, `X,Y` and none are understood.
    mask
        Area to leave out, x0:x1,y0:y1 in pixels; may be given more than once.
    frame_size
        W,H in pixels, so that points near the border are left out.
    pixel_size_nm
        For distances in pm.
    tolerance
        Largest distance of a pair: a fraction of the true mean spacing (0.5) or pixels (4px).
    json
        Print one JSON object.
    """
    from atomid_live.evaluate.points import evaluate_points, report_text

    report = evaluate_points(
        pred, truth, mask=mask, frame_size_xy=_size(frame_size), pixel_size_nm=pixel_size_nm, tolerance=tolerance
    )
    if json:
        import json as library

        print(library.dumps(report))
    else:
        print(report_text(report))
    return 0


@evaluate.command
def tracks(*, seeds: int = 3, page: Path | None = None, real_data: Path = Path("../shared/data"), threads: int = 1) -> int:
    """Follow columns through simulated sessions in which known things happen; counts misses and false alarms.

    Parameters
    ----------
    seeds
        Sessions per scene.
    page
        Results page whose marked section is written anew, e.g. docs/results.md.
    real_data
        Folder of real frames; only numbers are kept.
    threads
        Processor threads.
    """
    from atomid_live.guest import behave

    behave(threads)
    from atomid_live.evaluate.track_report import evaluate_tracks

    print(evaluate_tracks(seeds, page, real_data, lambda text: print(text, file=sys.stderr, flush=True)))
    return 0


@evaluate.command
def strain(
    *,
    model: str = "unet",
    images: int = 2,
    series: int = 10,
    real_data: Path | None = None,
    atomap_python: Path | None = None,
    threads: int = 1,
    page: Path | None = None,
    json_file: Path | None = None,
) -> int:
    """Score strain against known truth: noise, uniform and uneven strain, site bias, alarms, and other methods' positions.

    Parameters
    ----------
    model
        dog, or an engine by name or folder.
    images
        Pictures per dose of the unstrained crystal.
    series
        Series of frames for the alarm.
    real_data
        Folder of real frames; only numbers are kept.
    atomap_python
        Interpreter of an environment that has Atomap.
    threads
        Threads of a network.
    page
        Results page whose marked section is written anew, e.g. docs/results.md.
    json_file
        File for every number.
    """
    from atomid_live.guest import behave

    behave(threads)
    from atomid_live.evaluate.strain_report import StrainPlan, evaluate_strain, markdown

    plan = StrainPlan(model, images, series, real_data, atomap_python, threads)
    lines = evaluate_strain(plan, page=page, json_path=json_file, tell=lambda text: print(text, file=sys.stderr, flush=True))
    print(markdown(lines, [], plan))
    return 0


@evaluate.command
def suite(
    *,
    model: tuple[str, ...] = ("unet", "dog"),
    scenes: tuple[str, ...] = (),
    seeds: int = 10,
    small: bool = False,
    rivals: tuple[str, ...] = (),
    rival_seeds: int = 2,
    real_data: Path | None = None,
    atomap_python: Path | None = None,
    threads: int = 1,
    page: Path | None = None,
    json_file: Path | None = None,
) -> int:
    """Score detectors and their rivals on the benchmark scenes, and on labelled real frames where they are.

    Parameters
    ----------
    model
        dog, or engines by name or folder; the first is compared with the others.
    scenes
        Names such as S04; all by default.
    seeds
        Images per variant of a scene.
    small
        The quick set that guards against regressions.
    rivals
        Other methods on the same images.
    rival_seeds
        Images per variant shown to rivals, which are slow.
    real_data
        Folder of labelled real frames; only numbers are kept.
    atomap_python
        Interpreter of an environment that has Atomap.
    threads
        Threads of a network.
    page
        Results page whose marked section is written anew, e.g. docs/results.md.
    json_file
        File for every number.
    """
    from atomid_live.guest import behave

    behave(threads)
    from atomid_live.evaluate.suite import Plan, evaluate_suite

    plan = Plan(
        models=model,
        scenes=scenes,
        seeds=seeds,
        small=small,
        rivals=rivals,
        rival_seeds=rival_seeds,
        real_data=real_data,
        atomap_python=atomap_python,
        threads=threads,
    )
    evaluate_suite(plan, page=page, json_path=json_file, tell=lambda text: print(text, file=sys.stderr, flush=True))
    return 0


@evaluate.command
def drift(
    *,
    scenes: tuple[str, ...] = (),
    most_runs: int | None = None,
    real_data: Path | None = None,
    frames_file: Path | None = None,
    page: Path | None = None,
    json_file: Path | None = None,
) -> int:
    """Score the drift tracker on simulated specimens (D1-D8) and on real series where they are.

    Parameters
    ----------
    scenes
        Names such as D5; all by default.
    most_runs
        Runs of a scene at most; each is a specimen of its own.
    real_data
        Folder of real frames; only numbers are kept.
    frames_file
        File that keeps every frame of every run, so that a long evaluation can be gone on with.
    page
        Results page whose marked section is written anew, e.g. docs/results.md.
    json_file
        File for every number.
    """
    from atomid_live.guest import behave

    behave(1)
    from atomid_live.evaluate.drift_report import Plan, evaluate_drift

    plan = Plan(scenes, most_runs, real_data, frames_file)
    evaluate_drift(plan, page=page, json_path=json_file, tell=lambda text: print(text, file=sys.stderr, flush=True))
    return 0


@evaluate.command(name="scan")
def evaluate_scan(*, frames: int = 24, seed: int = 1, page: Path | None = None, threads: int = 1) -> int:
    """Measure on simulated scans what drift within the frame, row jitter and distortion leave in the strain.

    Parameters
    ----------
    frames
        Frames per run.
    seed
        Seed of the first run.
    page
        Results page whose marked section is written anew, e.g. docs/results.md.
    threads
        Processor threads.
    """
    from atomid_live.guest import behave

    behave(threads)
    from atomid_live.evaluate.scan import evaluate_scan as run_scan

    run_scan(frames, seed, page, lambda text: print(text, file=sys.stderr, flush=True))
    return 0


def _size(text: str | None) -> tuple[int, int] | None:
    from atomid_live.errors import UsageError

    if text is None:
        return None
    try:
        width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--frame-size is {text!r}; give width,height in pixels, e.g. 1024,1024") from None
    return width, height


@app.command
def bench(
    *, shared: Shared = Shared(), frames: int = 24, size: int = 1024, endurance: int = 0, idle_seconds: float = 5.0
) -> int:
    """Time the whole chain, warm, stage by stage, on simulated frames with about 7000 columns.

    Parameters
    ----------
    frames
        How many different frames; at least 16.
    size
        Side of a frame in pixels.
    endurance
        Frames more, e.g. 1000, to see whether memory grows.
    idle_seconds
        How long an empty folder is watched for the load of doing nothing; 0 leaves it out.
    """
    prepared = _prepared(shared)
    from atomid_live.bench import Plan, run_bench

    return run_bench(prepared, Plan(frames, size, endurance, idle_seconds))


@app.command
def acceptance(*, shared: Shared = Shared(), seeds: int = 5, frames: int = 40, size: int = 1024) -> int:
    """Run simulated sessions with known truth through the whole program on this PC, and print how they came out.

    Parameters
    ----------
    seeds
        How many sessions.
    frames
        Frames in each.
    size
        Side of a frame in pixels.
    """
    prepared = _prepared(shared)
    from atomid_live.acceptance import run_acceptance

    return run_acceptance(prepared, seeds, frames, size)


@app.command
def calibrate(
    files: Annotated[list[Path], Parameter(consume_multiple=True, negative=())],
    /,
    *,
    crystal: str,
    microscope: str,
    axis: str | None = None,
    mode: str | None = None,
    pair: bool = False,
    turn_deg: float | None = None,
    folder: Path = Path("calibration"),
    shared: Shared = Shared(),
) -> int:
    """Measure the scan's distortion on a known crystal and write FOLDER/MICROSCOPE/MODE.toml for --calibration.

    Parameters
    ----------
    files
        Frames of one place in the order of acquisition (drift is then measured and taken off), or, with --pair, two scans.
    crystal
        si110, srtio3, another known material (a wrong name lists them), or a .cif file.
    microscope
        Name of the microscope, for the profile.
    axis
        Direction of view, such as 001 or 110, for a crystal known along several.
    mode
        Name of the profile; by default made of rotation and dwell time.
    pair
        Two scans of the same place, the second turned by 90 degrees: tells drift from distortion.
    turn_deg
        Angle of the second scan, clockwise on the screen; by default from the files, or 90.
    folder
        Where profiles are kept.
    """
    prepared = _prepared(shared)
    from atomid_live.calibrate import Task, run_calibrate

    return run_calibrate(prepared, Task(tuple(files), crystal, microscope, axis, mode, pair, turn_deg, folder))


@app.command
def doctor(folder: Path | None = None, /, *, shared: Shared = Shared()) -> int:
    """Look over this PC: versions, processors, model, disk, folder and clock; says what to do about each problem.

    Parameters
    ----------
    folder
        The folder you mean to watch.
    """
    prepared = _prepared(shared)
    from atomid_live.doctor import examine

    return examine(prepared, folder)


@engine.command
def build(*, model: str | None = None, precision: Literal["fp32", "fp16", "int8"] = "fp16", side: tuple[str, ...] = ()) -> int:
    """Build the TensorRT plan of an engine on this PC's NVIDIA GPU, ahead of the first session.

    Parameters
    ----------
    model
        Engine by name or folder; default is the shipped one.
    precision
        Numbers that the network computes with.
    side
        Frame sizes in pixels, such as 1024 or 1024x2048; may be given more than once.
    """
    from atomid_live.backends.engine_build import build_engine_plan

    print(build_engine_plan(model, precision, side))
    return 0


@engine.command
def parity(*, model: str | None = None, seed: int = 700_000) -> int:
    """Compare an engine's 16- and 8-bit versions with its 32-bit one, through the whole detector on this PC's processor.

    Parameters
    ----------
    model
        Engine by name or folder; default is the shipped one.
    seed
        Of the simulated frames, one for each kind of scene of the small benchmark.
    """
    from atomid_live.evaluate.parity import compare_precisions, parity_table

    print(parity_table(compare_precisions(model, seed)))
    return 0


@config.command
def show(*, shared: Shared = Shared()) -> int:
    """Print each setting with its value, its origin and its meaning."""
    from atomid_live.settings import describe, resolve

    settings, origins = resolve(shared.config, shared.keys())
    for line in describe(settings, origins):
        print(line)
    return 0


def _fail(message: str, code: int) -> NoReturn:
    print(f"atomid-live: {message}", file=sys.stderr)
    raise SystemExit(code)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and leave with the exit code of CONTRACT."""
    try:
        raise SystemExit(app(arguments, exit_on_error=False, print_error=False, result_action="return_value") or 0)
    except cyclopts.CycloptsError as error:
        _fail(f"{error}\nTry `atomid-live --help`.", 2)
    except AtomidError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 1)
