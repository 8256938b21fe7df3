"""Labelled real frames as images of the same kind as the scenes, so that the same code scores both. Numbers only leave here.

The frames are other people's and not part of the program; a folder that holds them is named on the command line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit
from scipy.spatial import cKDTree

from atomid_live.errors import UsageError
from atomid_live.evaluate.points import read_points
from atomid_live.evaluate.scenes.truth import SceneImage, SceneTruth
from atomid_live.types import NAN, FloatArray

Reader = Callable[[Path], Iterator[SceneImage]]

VARIABLE = "ATOMID_LIVE_REAL_DATA"
RES2_BAR = (50.0, 215.0, 885.0, 975.0)
RES2_SIGMA_PX = 4.78
RES2_PIXEL_NM, PT_PIXEL_NM = 0.0131, 0.0293
PROFILE_PX, RECENTRE_PX = 9, 2


def truth_from(yx_px: FloatArray, periodic: bool, target: NDArray[np.bool_] | None = None) -> SceneTruth:
    """Truth of labels (N, 2) alone: all are targets (or those given; the others are don't-cares), nothing else is known."""
    count = len(yx_px)
    every = np.ones(count, np.bool_) if target is None else target
    nan = np.full(count, NAN)
    return SceneTruth(
        yx_px, yx_px, np.zeros(count, np.int64), np.full(count, ""), nan, nan, nan, every, ~every, periodic=periodic
    )


def stacked_sigma(pixels: NDArray[Any], yx_px: FloatArray) -> float:
    """Width in px of what is labelled: a Gaussian fitted to the mean radial profile about each label's brightest pixel.

    The width comes from the labels alone, so that the radius of a match favours no detector.
    """
    image = pixels.astype(np.float64)
    rows, cols = image.shape
    step = np.arange(-PROFILE_PX, PROFILE_PX + 1)
    patches = []
    for y, x in np.rint(yx_px).astype(int):
        if PROFILE_PX + RECENTRE_PX < y < rows - PROFILE_PX - RECENTRE_PX - 1 and (
            PROFILE_PX + RECENTRE_PX < x < cols - PROFILE_PX - RECENTRE_PX - 1
        ):
            near = image[y - RECENTRE_PX : y + RECENTRE_PX + 1, x - RECENTRE_PX : x + RECENTRE_PX + 1]
            dy, dx = np.unravel_index(near.argmax(), near.shape)
            patches.append(image[np.ix_(y + int(dy) - RECENTRE_PX + step, x + int(dx) - RECENTRE_PX + step)])
    mean = np.mean(patches, axis=0)
    radius = np.hypot(step[:, None], step)
    within = radius <= PROFILE_PX - 2
    start = (float(np.ptp(mean)), 2.5, float(mean.min()))

    def profile(r: FloatArray, height: float, sigma: float, floor: float) -> FloatArray:
        return np.asarray(height * np.exp(-(r**2) / (2 * sigma**2)) + floor)

    # The central pixel is the brightest of its neighbourhood by choice, so noise alone lifts it.
    within &= radius > 0.5
    (_, sigma, _), _ = curve_fit(profile, radius[within], mean[within], start)
    return float(abs(sigma))


def _rhenium(folder: Path) -> Iterator[SceneImage]:
    """000.bmp against its labels (for F1) and against joint-fit positions (for localisation)."""
    from PIL import Image

    with Image.open(folder / "000.bmp") as opened:
        pixels = np.asarray(opened.convert("L"))
    labels, joint = read_points(folder / "000.csv"), read_points(folder / "000_joint.csv")
    # The joint fit leaves out the border; labels without a partner there are neither right nor wrong.
    alone = labels[cKDTree(joint).query(labels)[0] > 2 * RES2_SIGMA_PX]
    fitted = truth_from(np.concatenate([joint, alone]), True, np.arange(len(joint) + len(alone)) < len(joint))
    for variant, truth in (("labels", truth_from(labels, True)), ("joint fit", fitted)):
        yield SceneImage("ReS2 000", variant, 0, pixels, RES2_PIXEL_NM, RES2_SIGMA_PX, truth, (RES2_BAR,))


def _grey(path: Path) -> NDArray[Any]:
    if path.suffix.lower() in (".tif", ".tiff"):
        import tifffile

        return np.asarray(tifffile.imread(path))
    from PIL import Image

    with Image.open(path) as opened:
        return np.asarray(opened) if opened.mode in ("L", "I;16", "I", "F") else np.asarray(opened.convert("L"))


def _atoms(name: str, pictures: list[Path], labels: Callable[[Path], Path], pixel_nm: float) -> Iterator[SceneImage]:
    """A set of single-atom frames; one width for all of them."""
    frames = [(path, _grey(path), read_points(labels(path))) for path in pictures]
    sigma = float(np.median([stacked_sigma(pixels, yx) for _, pixels, yx in frames]))
    for number, (path, pixels, yx) in enumerate(frames):
        yield SceneImage(name, path.stem.split("_HAADF")[0], number, pixels, pixel_nm, sigma, truth_from(yx, False))


def _platinum(folder: Path) -> Iterator[SceneImage]:
    pictures = sorted(folder.glob("*.tif"))
    return _atoms("Pt atoms", pictures, lambda p: p.with_name(f"{p.name.split('_')[0]}_Results.csv"), PT_PIXEL_NM)


def _rhenium_atoms(folder: Path) -> Iterator[SceneImage]:
    pictures = sorted([*folder.glob("*.png"), *folder.glob("*.tif")])
    return _atoms("Re atoms", pictures, lambda p: p.with_suffix(".csv"), NAN)


def _particles(folder: Path) -> Iterator[SceneImage]:
    """Fitted columns of two nanoparticles; surplus detections are no fault here, since only fitted columns are known."""
    with np.load(folder / "Tutorial_Example2.npz") as z:
        pixel_A = float(z["input_dx"])
        xy = z["output_coordinates"] / pixel_A - 1.0
        yield _particle("Pb", z["input_obs"], xy, pixel_A)
    with np.load(folder / "Example_PtIr.npz") as z:
        pixel_A = float(z["dx_angstrom"])
        xy = z["coords_fit"][:, :2] / pixel_A - 1.0
        yield _particle("PtIr", z["obs"], xy, pixel_A)


def _particle(name: str, pixels: NDArray[Any], xy: FloatArray, pixel_A: float) -> SceneImage:
    yx = np.ascontiguousarray(xy[:, ::-1])
    return SceneImage("nanoparticle", name, 0, pixels, pixel_A / 10, stacked_sigma(pixels, yx), truth_from(yx, True))


def _superlattice(folder: Path) -> Iterator[SceneImage]:
    """One sublattice of a PbTiO3/SrRuO3 stack; the others' columns are not labelled, so recall alone means something."""
    import h5py

    xy = np.load(folder / "atom_positions1.npy")
    with h5py.File(folder / "Cropped_PTO-SRO_Aligned.hspy") as file:
        experiment = next(iter(file["Experiments"].values()))
        pixels = np.asarray(experiment["data"])
    yx = np.ascontiguousarray(xy[:, ::-1])
    yield SceneImage("PbTiO3/SrRuO3", "A sites", 0, pixels, 0.015, stacked_sigma(pixels, yx), truth_from(yx, True))


def _low_dose(folder: Path) -> Iterator[SceneImage]:
    """Simulated frames of others, with their exact positions."""
    with np.load(folder / "graphene_low_dose_1.npz") as z:
        pixels, nm = z["image"], float(z["sampling"]) / 10
        yx = np.asarray(z["positions"], np.float64)
    yield SceneImage("simulated by others", "graphene, low dose", 0, pixels, nm, 0.06 / nm, truth_from(_on(yx, pixels), True))
    for path in sorted(folder.glob("*_d[0-9]*.npz")):
        with np.load(path) as z:
            pixels, yx = z["image"], _on(np.asarray(z["columns"], np.float64), z["image"])
        sigma = stacked_sigma(pixels, yx)
        yield SceneImage("simulated by others", path.stem, 0, pixels, NAN, sigma, truth_from(yx, True))


def _multislice(folder: Path) -> Iterator[SceneImage]:
    from PIL import Image

    for path in sorted(folder.glob("abtem_like_*.bmp")):
        with Image.open(path) as opened:
            pixels = np.asarray(opened.convert("L"))
        yx = _on(read_points(path.with_suffix(".csv")), pixels)
        yield SceneImage("simulated by others", path.stem, 0, pixels, NAN, stacked_sigma(pixels, yx), truth_from(yx, True))


def _on(yx: FloatArray, pixels: NDArray[Any]) -> FloatArray:
    return np.ascontiguousarray(yx[np.all((yx >= 0) & (yx <= np.array(pixels.shape) - 1), axis=1)])


SETS: dict[str, Reader] = {
    "labelled/res2": _rhenium,
    "labelled/re_single_atoms": _rhenium_atoms,
    "labelled/pt_single_atoms": _platinum,
    "labelled/nanoparticles": _particles,
    "labelled/pto_sro": _superlattice,
    "simulated": _low_dose,
}


def real_data_folder(given: Path | None) -> Path | None:
    """Folder of real frames: the one given, else that of ATOMID_LIVE_REAL_DATA, else None; it is part of no installation."""
    named = os.environ.get(VARIABLE)
    return given if given is not None else Path(named) if named else None


def labelled(folder: Path) -> Iterator[SceneImage]:
    """Yield every labelled frame of the sets that are in a folder.

    Raises
    ------
    UsageError
        The folder, or every known set, is missing.
    """
    present = [name for name in SETS if (folder / name).is_dir()]
    if not present:
        raise UsageError(f"{folder} holds none of the labelled sets {', '.join(SETS)}; name the folder that does")
    for name in present:
        yield from SETS[name](folder / name)
    if (folder / "simulated").is_dir():
        yield from _multislice(folder / "simulated")
