"""What the judge is shown of each candidate, and what it decides: CUDA sources on the processor against the processor's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from device_scenes import CountedNetwork, OrtOnProcessor, agree, device_detector, processor_detector
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from atomid_live.backends.engine import Engine
from atomid_live.detect import judge as rule
from atomid_live.detect.look import NOISY, Looker
from atomid_live.gpu_check.bandpass import lattice_frame
from atomid_live.settings import DetectSettings
from atomid_live.types import Frame

pytestmark = pytest.mark.torch


def clear() -> Frame:
    """A lattice with little noise, columns over the borders."""
    return lattice_frame((200, 250))


def noisy() -> Frame:
    """The same with so few electrons that the lattice is asked what stands behind a peak."""
    frame = lattice_frame((240, 300))
    return replace(frame, pixels=np.random.default_rng(3).poisson(0.015 * frame.pixels).astype(np.uint16))


def sparse() -> Frame:
    """Twenty single atoms on speckle."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:260, :330]
    image = np.full((260, 330), 12.0)
    for place in rng.uniform(12, 248, (20, 2)) * (1.0, 1.25):
        image += 25.0 * np.exp(-0.5 * ((y - place[0]) ** 2 + (x - place[1]) ** 2) / 2.2**2)
    return replace(lattice_frame((64, 80)), pixels=rng.poisson(image).astype(np.uint16))


@pytest.mark.parametrize(("make", "kind"), [(clear, "lattice"), (noisy, "noisy"), (sparse, "sparse")])
def test_every_feature_is_the_processors(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, make: Callable[[], Frame], kind: str
) -> None:
    from atomid_live.backends.onnxruntime import OnnxRuntimeNetwork
    from atomid_live.kernels import judge as device_judge
    from atomid_live.kernels.layout import State

    frame, seen = make(), dict[str, Any]()
    original = device_judge.features

    def kept(run: Any, b: Any, heat: Any, kind: str) -> Any:
        table = original(run, b, heat, kind)
        count = int(b.state[State.COUNT])
        seen.update(kind=kind, table=table[:count].numpy().copy(), yx=b.start[:count].numpy().copy())
        return table

    monkeypatch.setattr(device_judge, "features", kept)
    look = Looker(OnnxRuntimeNetwork(engine, 1, "fp32")).look(frame.pixels)
    assert look is not None
    expected = rule.features(look.peaks)
    assert (look.scale.kind == "lattice" and look.scale.noise_fraction > NOISY) == (kind == "noisy")
    own = DetectSettings()
    with device_detector(engine, OrtOnProcessor(engine), detect=own) as detector:
        agree(detector.detect(frame), processor_detector(engine, detect=own).detect(frame), 15)
    assert seen["kind"] == kind
    away, place = cKDTree(seen["yx"]).query(look.peaks.yx_px)
    assert away.max() < 1e-3
    assert len(set(place)) == len(expected) == len(seen["table"])
    for column, name in enumerate(rule.FEATURES):
        np.testing.assert_allclose(seen["table"][place, column], expected[:, column], atol=1e-3, err_msg=name)
    told = {name: np.ptp(expected[:, column]) for column, name in enumerate(rule.FEATURES)}
    assert all(told[name] > 0.0 for name in ("height", "amplitude", "d_prime", "misfit", "shift", "brighter_px", "company_px"))
    assert (told["significance"] > 0.0) == (kind == "sparse")
    assert (told["support"] > 0.0) == (kind == "noisy")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(p=st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.45, 0.45, 0.6, 0.9, 0.999, 1.0]), max_size=40))
def test_the_threshold_is_the_processors(p: list[float]) -> None:
    """Ties, none, all alike; places of the table without a candidate have no say."""
    import torch

    from atomid_live.kernels.judge import best_threshold

    probability = torch.full((64,), 0.7, dtype=torch.float64)
    probability[: len(p)] = torch.tensor(p, dtype=torch.float64)
    found = best_threshold(probability, torch.arange(64) < len(p))
    expected = rule.best_threshold(np.array(p))
    if float(found) != pytest.approx(expected, abs=1e-9):
        # two choices of one expected F1: rounding decides
        f1 = [2.0 * sum(v for v in p if v >= t) / (sum(v >= t for v in p) + sum(p)) for t in (float(found), expected)]
        assert f1[0] == pytest.approx(f1[1], abs=1e-9)


def test_probability_is_the_processors(engine: Engine) -> None:
    import torch

    from atomid_live.detect.unet import read_judge
    from atomid_live.kernels.judge import DeviceJudge

    judge, rng = read_judge(engine), np.random.default_rng(1)
    seen = rng.normal(0.0, 2.0, (300, len(rule.FEATURES))).astype(np.float32)
    found = DeviceJudge.on(judge, torch.device("cpu")).probability(torch.from_numpy(seen))
    np.testing.assert_allclose(found.numpy(), judge.probability(seen), atol=1e-6)
    assert np.ptp(found.numpy()) > 0.5


def test_quantiles_are_numpys() -> None:
    import torch

    from atomid_live.kernels.judge import quantile

    values, which = torch.rand(200, dtype=torch.float64), torch.rand(200) < 0.4
    for part in (0.0, 0.25, 0.75, 0.97, 1.0):
        assert float(quantile(values, which, part)) == pytest.approx(float(np.quantile(values[which].numpy(), part)))
    assert float(quantile(values, which & False, 0.5)) == 0.0


@pytest.mark.parametrize(("lattice", "noise", "faint"), [(1.0, 0.1, 0.5), (1.0, 0.1, 0.04), (1.0, 0.3, 0.04), (0.0, 0.1, 0.5)])
def test_strays_are_the_processors(lattice: float, noise: float, faint: float) -> None:
    """Faint peaks by themselves, in numbers, in holes, in a clean lattice, a noisier one, and on speckle."""
    import torch

    from atomid_live.kernels.judge import _strays, best_threshold

    rng, count = np.random.default_rng(6), 3000
    seen = np.zeros((count, len(rule.FEATURES)), np.float32)
    place = rule.FEATURES.index
    seen[:, place("lattice")], seen[:, place("noise_fraction")] = lattice, noise
    seen[:, place("own_amplitude")] = np.where(rng.random(count) < faint, -1.5, -0.2)
    seen[:, place("own_d_prime")], seen[:, place("background")] = rng.uniform(1.0, 3.0, count), rng.uniform(-0.3, 0.2, count)
    seen[:, place("significance")] = rng.uniform(1.0, 3.0, count)
    score = rng.random(count)
    likely = torch.from_numpy(score) >= best_threshold(torch.from_numpy(score), torch.ones(count, dtype=torch.bool))
    found = likely & ~_strays(torch.from_numpy(seen), likely)
    np.testing.assert_array_equal(found.numpy(), rule.chosen(score, seen))
    dropped = int((likely & ~found).sum())
    assert dropped > 0


def test_a_frame_the_network_does_not_know_goes_to_the_classical_detector(engine: Engine) -> None:
    from atomid_live.backends.onnxruntime import OnnxRuntimeNetwork
    from atomid_live.detect.unet import UnetDetector
    from atomid_live.flags import Flag

    frame, own = lattice_frame((200, 260)), DetectSettings()
    mine, counted = OrtOnProcessor(engine), CountedNetwork(OnnxRuntimeNetwork(engine, 1, "fp32"))
    mine.gain = counted.gain = 0.05
    expected = UnetDetector(counted, engine, own).detect(frame)
    assert expected.frame_flags & Flag.MODEL_OUT_OF_RANGE
    assert len(expected) > 100
    with device_detector(engine, mine, detect=own) as detector:
        found = detector.detect(frame)
    assert found.frame_flags == expected.frame_flags
    np.testing.assert_array_equal(found.yx_px, expected.yx_px)
