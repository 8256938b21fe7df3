"""The results page: what belongs to the command is written anew, what does not stays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from atomid_live.errors import UsageError
from atomid_live.evaluate import tables
from atomid_live.evaluate.real_frames import SETS, labelled, real_data_folder, stacked_sigma, truth_from
from atomid_live.evaluate.report import BEGIN, END, as_text, markdown, place
from atomid_live.evaluate.scenes import SCENES
from atomid_live.evaluate.scoring import Answer, score_image
from atomid_live.evaluate.suite import Outcome, Plan, Row, evaluate_suite
from atomid_live.evaluate.targets import TARGETS, Target, mean_of
from atomid_live.simulate.imaging import render


def rows() -> tuple[Row, ...]:
    made = []
    for k in range(5):
        for who, loss in (("dog", 0.02), ("unet", 0.01)):
            numbers = {
                "f1": 1 - loss - 0.001 * k,
                "f1_quarter": 0.9,
                "ms": 10.0,
                "ms peaks": 10.0,
                "cd_px": 1.0,
                "jaccard": 0.9,
            }
            made.append(Row(who, "S02", "metal", 2000 + k, numbers))
    made.append(Row("LoG (oracle)", "S02", "metal", 2000, {"f1": 0.97, "f1_quarter": 0.8, "ms": 50.0, "ms LoG": 50.0}))
    return tuple(made)


def outcome() -> Outcome:
    return Outcome(Plan(models=("dog", "unet"), seeds=5), ("dog", "unet"), rows(), (), ("Atomap: not here",), {"same": 5})


def test_section_is_replaced_and_the_rest_of_the_page_stays(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "results.md"
    place(page, "first")
    text = page.read_text(encoding="utf-8")
    page.write_text(f"Before.\n{text}After.\n", encoding="utf-8")
    place(page, "second")
    text = page.read_text(encoding="utf-8")
    assert "second" in text and "first" not in text
    assert text.startswith("Before.") and text.endswith("After.\n")


def test_each_command_owns_its_section_alone(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    place(page, "points")
    place(page, "motion", "drift")
    place(page, "moved", "drift")
    text = page.read_text(encoding="utf-8")
    assert "moved" in text and "motion" not in text
    assert "points" in text.split(END)[0]
    assert text.count("<!-- evaluate drift: begin -->") == 1


def test_a_page_without_markers_is_not_touched(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    for text in ("mine", f"{END} {BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"):
        page.write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match="section"):
            place(page, "new")
        assert page.read_text(encoding="utf-8") == text


def test_differences_are_paired_and_marked_when_sure() -> None:
    text = "\n".join(tables.differences(rows(), "unet", ["dog", "LoG (oracle)"], "f1"))
    assert "**+0.0100 [+0.0100, +0.0100]**" in text
    assert "+0.0200 |" in text


def test_rivals_are_compared_on_the_images_that_all_saw() -> None:
    text = "\n".join(tables.comparison(rows(), ["dog", "LoG (oracle)"], "f1"))
    assert "0.9800 ± 0.0000" in text
    assert "5.0" in tables.stages(rows(), ["dog", "LoG (oracle)"])[3]


def test_page_and_terminal_tell_of_everyone() -> None:
    for text in (markdown(outcome(), [("a.png", "A")]), as_text(outcome())):
        assert all(word in text for word in ("dog", "unet", "LoG (oracle)", "Atomap: not here"))
    page = markdown(outcome(), [("a.png", "A")])
    assert "figures/a.png" in page and "0.9780" in page


def test_targets_speak_of_scenes_and_numbers_that_exist() -> None:
    names = {scene.name: {variant.name for variant in scene.variants} for scene in SCENES}
    for target in TARGETS:
        if target.scene in names and target.variant:
            assert target.variant in names[target.scene], target.words
    assert Target("S02", "", "f1", "least", 0.97).met(0.98) and not Target("S02", "", "cd_px", "most", 0.5).met(0.6)
    assert mean_of(rows(), "dog", Target("S02", "", "f1", "least", 0.9)) == pytest.approx(0.978)
    assert np.isnan(mean_of(rows(), "dog", Target("S03", "", "f1", "least", 0.9)))


def test_whole_command_writes_page_figures_and_numbers(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plan = Plan(scenes=("S04",), small=True, seeds=1, rivals=("findfoci",))
    told: list[str] = []
    done = evaluate_suite(plan, page=tmp_path / "results.md", json_path=tmp_path / "r.json", tell=told.append)
    assert told and done.contestants == ("dog", "FindFoci (one setting)", "FindFoci (oracle)")
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "S04 x 0.3: f1" in text and (tmp_path / "figures" / "f1_dose.png").stat().st_size < 120_000
    numbers = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert len(numbers["rows"]) == 12 and {"who", "scene", "f1"} <= set(numbers["rows"][0])


def test_width_of_labelled_atoms_is_measured_from_the_frame() -> None:
    rng = np.random.default_rng(0)
    yx = rng.uniform(15, [180, 220], (40, 2))
    pixels = rng.poisson(render(yx, np.full(40, 900.0), 2.8, (200, 240)) + 5.0)
    assert stacked_sigma(pixels, np.rint(yx)) == pytest.approx(2.8, rel=0.12)


def test_labels_alone_make_a_truth() -> None:
    truth = truth_from(np.array([[1.0, 2.0], [30.0, 4.0]]), True, np.array([True, False]))
    assert truth.target.tolist() == [True, False] and truth.dont_care.tolist() == [False, True]


def test_a_folder_without_labelled_sets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="labelled/res2"):
        list(labelled(tmp_path))


def test_real_frames_score_their_own_labels_as_perfect(real_data: Path) -> None:
    seen = set()
    for image in labelled(real_data):
        seen.add(image.scene)
        if image.variant in ("labels", "bpy_crop1", "021", "Pb", "A sites"):
            told = score_image(image, Answer(image.truth.yx_px[image.truth.target]))
            assert told["f1"] == 1.0 and told["targets"] > 20
            y, x = np.rint(image.truth.yx_px[image.truth.target]).astype(int).T
            inside = (y < image.pixels.shape[0]) & (x < image.pixels.shape[1])
            assert image.pixels[y[inside], x[inside]].mean() > image.pixels.mean(), image.name
    assert len(seen) == len(SETS)


def test_folder_of_real_frames_given_or_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ATOMID_LIVE_REAL_DATA", raising=False)
    assert real_data_folder(None) is None
    monkeypatch.setenv("ATOMID_LIVE_REAL_DATA", str(tmp_path))
    assert real_data_folder(None) == tmp_path
    assert real_data_folder(Path("other")) == Path("other")
