"""Benchmark scenes with exact truth: fixed seeds, fixed recipes, a hash of every image (SCIENCE 6.2 of the project's notes)."""

from atomid_live.evaluate.scenes.catalogue import SCENES, Scene, Variant, make_image, scene_named
from atomid_live.evaluate.scenes.truth import SceneImage, SceneTruth

__all__ = ["SCENES", "Scene", "SceneImage", "SceneTruth", "Variant", "make_image", "scene_named"]
