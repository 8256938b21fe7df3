"""The scenes by name: variants, shapes and seeds. An image is a function of scene, variant and seed alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from atomid_live.errors import UsageError
from atomid_live.evaluate.scenes import recipes
from atomid_live.evaluate.scenes.changed import CHANGES, changed
from atomid_live.evaluate.scenes.expose import Conditions
from atomid_live.evaluate.scenes.multislice import LINEAR, multislice, names
from atomid_live.evaluate.scenes.recipes import ATOM_PX_NM, MOS2_PX_NM, RES2_PX_NM
from atomid_live.evaluate.scenes.truth import SceneImage

Build = Callable[[np.random.Generator, tuple[int, int], tuple[str, str, int]], SceneImage]

USUAL_SHAPE, LARGE_SHAPE = (496, 528), (1008, 1040)


@dataclass(frozen=True, slots=True)
class Variant:
    """One condition of a scene; variants with the same `stream` share their random numbers and so their specimen."""

    name: str
    build: Build = field(repr=False)
    stream: int = 0


@dataclass(frozen=True, slots=True)
class Scene:
    """A scene of the benchmark: `number` makes its seeds (1000 number + k), `shape` is (rows, cols) of its full images."""

    name: str
    number: int
    title: str
    variants: tuple[Variant, ...]
    shape: tuple[int, int] = USUAL_SHAPE


def _scene(
    number: int, title: str, variants: dict[str, Build], shape: tuple[int, int] = USUAL_SHAPE, shared: bool = False
) -> Scene:
    listed = tuple(Variant(name, build, 0 if shared else n) for n, (name, build) in enumerate(variants.items()))
    return Scene(f"S{number:02d}", number, title, listed, shape)


def _plain(crystal: str, c: Conditions, metal: bool = True) -> Build:
    return partial(recipes.plain, crystal=crystal, c=c, metal=metal)


def _every(crystal: str, c: Conditions) -> Build:
    """All columns of d' 5 and more of a crystal."""
    return _plain(crystal, replace(c, least_d_prime=5.0), metal=False)


_FIELDS_NM = (9.0, 12.7, 18.0, 25.4, 36.0)
_MOS2 = Conditions(MOS2_PX_NM)
_OTHERS: dict[str, Build] = {
    "SrTiO3 [001]": _every("srtio3", Conditions(0.0150, dose=0.3)),
    "GaN": _every("gan", Conditions(0.0150, dose=0.5)),
    "Au [110]": _every("au_110", Conditions(0.0140, dose=0.3)),
    "Pt [110]": _every("pt_110", Conditions(0.0160, dose=0.1)),
    "Si [110]": _every("si_110", Conditions(0.0180)),
    "graphene": _every("graphene", Conditions(0.0110, dose=60.0, beam_share=0.0002, sigma_nm=0.05)),
    "WSe2": _every("wse2", Conditions(0.0170)),
    "ReO3": _every("reo3", Conditions(0.0170, dose=0.3)),
    "Bi2O2Se": _every("bi2o2se", Conditions(0.0200, dose=0.5)),
    "PbTiO3": _every("pbtio3", Conditions(0.0150, dose=0.2)),
    "1T' MoS2": _plain("mos2_1t_prime", Conditions(0.0140, dose=1.5)),
}


def _scales() -> dict[str, Build]:
    return {
        f"{name} {field_nm:g} nm": _plain(crystal, Conditions(field_nm / 1024))
        for name, crystal in (("MoS2", "mos2"), ("ReS2", "res2"))
        for field_nm in _FIELDS_NM
    }


def _multislice() -> Scene:
    """Each cell by the linear model and by multislice, with the same random numbers."""
    listed = []
    for stream, cell in enumerate(names()):
        for linear in (True, False):
            build = partial(multislice, cell=cell, linear=linear)
            listed.append(Variant(cell + LINEAR * linear, build, stream))
    return Scene("S18", 18, "multislice against the linear model", tuple(listed))


SCENES: tuple[Scene, ...] = (
    _scene(1, "MoS2, clean", {
        "metal": _plain("mos2", _MOS2), "all columns": _plain("mos2", _MOS2, metal=False),
    }, LARGE_SHAPE, True),
    _scene(2, "ReS2, clean", {"metal": _plain("res2", Conditions(RES2_PX_NM))}),
    _scene(3, "ReS2 as the real frames show it", {"metal": recipes.realistic}),
    _scene(4, "dose", {f"x {dose:g}": _plain("mos2", Conditions(MOS2_PX_NM, dose=dose)) for dose in (1.0, 0.3, 0.1, 0.03)}),
    _scene(5, "defocus", {
        f"{z:+g} nm": partial(recipes.aberrated, defocus=z) for z in (-10.0, -6.0, -4.0, -2.0, 2.0, 4.0, 6.0, 10.0)
    }, shared=True),
    _scene(6, "astigmatism and coma", {
        "astigmatism 3 nm": partial(recipes.aberrated, astigmatism=3.0),
        "astigmatism 5 nm": partial(recipes.aberrated, astigmatism=5.0),
        "astigmatism 10 nm": partial(recipes.aberrated, astigmatism=10.0),
        "coma 500 nm": partial(recipes.aberrated, coma=500.0),
    }),
    _scene(7, "contamination", {f"x {dirt:g}": partial(recipes.contaminated, dirt=dirt) for dirt in (0.5, 1.0, 2.0, 3.0)}),
    _scene(8, "scan jitter, hum, fly-back", {f"{rms:g} px": partial(recipes.shaken, jitter_px=rms) for rms in (0.5, 1.0)}),
    _scene(9, "vacuum edge and hole", {
        "MoS2": partial(recipes.edge, crystal="mos2"), "WS2": partial(recipes.edge, crystal="ws2"),
    }),
    _scene(10, "vacancies", {f"{100 * part:g} %": partial(recipes.vacant, fraction=part) for part in (0.01, 0.03, 0.10)}),
    _scene(11, "grain boundary", {
        "60 deg": partial(recipes.boundary, angle_deg=60.0, crystal="mos2"),
        "21 deg": partial(recipes.boundary, angle_deg=21.0, crystal="mos2"),
    }),
    _scene(12, "bilayer", {
        "AA'": partial(recipes.bilayer, twist_deg=180.0, shift=(1 / 3, 2 / 3)),
        "AB": partial(recipes.bilayer, twist_deg=0.0, shift=(1 / 3, 2 / 3)),
        "twist 7 deg": partial(recipes.bilayer, twist_deg=7.0),
        "twist 21 deg": partial(recipes.bilayer, twist_deg=21.0),
        "twist 30 deg": partial(recipes.bilayer, twist_deg=30.0),
    }),
    _scene(13, "single atoms on amorphous carbon", {"Pt": recipes.single_atoms}),
    _scene(14, "scale sweep", _scales()),
    _scene(15, "empty", {kind: partial(recipes.empty, kind=kind) for kind in (
        "vacuum 2", "vacuum 14", "texture 0.6", "texture 1.0", "texture 2.0", "texture 5.0", "amorphous 5", "amorphous 20",
    )}, LARGE_SHAPE),
    _scene(16, "other crystals", _OTHERS),
    _scene(17, "invariance", {change: partial(changed, change=change) for change in CHANGES}, shared=True),
    _multislice(),
    Scene("U1", 19, "uncertainty", (
        Variant("MoS2", partial(recipes.uncertain, crystal="mos2"), 0),
        Variant("ReS2", partial(recipes.uncertain, crystal="res2"), 1),
        Variant("WS2", partial(recipes.uncertain, crystal="ws2"), 2),
    )),
)  # fmt: skip

SMALL = ("S01", "S02", "S03", "S04", "S07", "S08", "S09", "S10", "S11", "S12", "S13", "S15")
SMALL_SHAPE = (288, 352)


def scene_named(name: str) -> Scene:
    """Return a scene by name, e.g. "S04"; an unknown one raises `UsageError`."""
    for scene in SCENES:
        if scene.name.lower() == name.lower():
            return scene
    raise UsageError(f"unknown scene {name!r}; known: {', '.join(scene.name for scene in SCENES)}")


def make_image(scene: Scene, variant: Variant, k: int, shape: tuple[int, int] | None = None, offset: int = 0) -> SceneImage:
    """Make image `k` of a variant.

    Parameters
    ----------
    scene, variant : Scene, Variant
    k : int
        Number of the image from 0; its seed is `offset` + 1000 * scene number + k, for numpy's PCG64.
    shape : (int, int), optional
        Rows and columns; the scene's own by default. Another shape is another image.
    offset : int
        Another set of images by the same recipes, e.g. one kept for releases.
    """
    seed = offset + 1000 * scene.number + k
    rng = np.random.Generator(np.random.PCG64(seed).jumped(variant.stream))
    return variant.build(rng, shape or scene.shape, (scene.name, variant.name, seed))


__all__ = ["ATOM_PX_NM", "SCENES", "SMALL", "SMALL_SHAPE", "Scene", "Variant", "make_image", "scene_named"]
