"""The device's detector, kernels from their CUDA source on the processor, against the processor's own detector."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from device_scenes import CountedNetwork, OrtOnProcessor, agree, device_detector, processor_detector

from atomid_live.backends.engine import Engine
from atomid_live.errors import ModelError
from atomid_live.flags import Flag
from atomid_live.gpu_check.bandpass import lattice_frame
from atomid_live.settings import DetectSettings, FrameSettings

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64", "int64"])
def test_every_type_of_pixel(engine: Engine, dtype: str) -> None:
    frame = lattice_frame((200, 256), dtype=dtype)
    with device_detector(engine, OrtOnProcessor(engine)) as detector:
        agree(detector.detect(frame), processor_detector(engine).detect(frame), 100)


@pytest.mark.parametrize(
    ("shape", "spacing", "sigma"), [((301, 243), 11.0, 2.2), ((500, 620), 24.0, 5.0), ((190, 400), 7.0, 1.4)]
)
def test_reduced_and_unreduced_frames(engine: Engine, shape: tuple[int, int], spacing: float, sigma: float) -> None:
    frame = lattice_frame(shape, spacing, sigma)
    with device_detector(engine, OrtOnProcessor(engine)) as detector:
        agree(detector.detect(frame), processor_detector(engine).detect(frame), 100)


def test_dark_columns_clipping_and_nan(engine: Engine) -> None:
    settings = FrameSettings(polarity="dark")
    frame = lattice_frame((240, 300), dtype="float32")
    pixels = 300.0 - frame.pixels
    pixels[40:42, 50] = np.nan
    turned = replace(frame, pixels=pixels)
    with device_detector(engine, OrtOnProcessor(engine), frame=settings) as detector:
        found = detector.detect(turned)
        agree(found, processor_detector(engine, frame=settings).detect(turned), 100)
        assert found.frame_flags & Flag.SANITISED
    bright = lattice_frame((240, 300), dtype="uint16")
    bright = replace(bright, pixels=np.minimum(bright.pixels, 90).astype(np.uint16))
    with device_detector(engine, OrtOnProcessor(engine)) as detector:
        found = detector.detect(bright)
        agree(found, processor_detector(engine).detect(bright), 100)
        assert np.any(found.flags & Flag.CLIPPED)


@pytest.mark.parametrize(
    "detect",
    [DetectSettings(threshold=0.2), DetectSettings(threshold=0.7), DetectSettings(threshold=0.5, min_separation="12px")],
)
def test_threshold_and_separation(engine: Engine, detect: DetectSettings) -> None:
    frame = lattice_frame((240, 300))
    with device_detector(engine, OrtOnProcessor(engine), detect=detect) as detector:
        agree(detector.detect(frame), processor_detector(engine, detect=detect).detect(frame), 60)


@pytest.mark.parametrize("pixels", [np.full((64, 80), 7), np.random.default_rng(0).poisson(9.0, (96, 128)), np.zeros((40, 33))])
def test_nothing_to_see_is_an_empty_table(engine: Engine, pixels: Any) -> None:
    frame = replace(lattice_frame((64, 80)), pixels=pixels.astype(np.uint16))
    with device_detector(engine, OrtOnProcessor(engine)) as detector:
        found, expected = detector.detect(frame), processor_detector(engine).detect(frame)
        assert len(found) == len(expected) == 0
        assert found.frame_flags == expected.frame_flags


@pytest.mark.parametrize(("spacing", "sigma", "depth"), [(11.0, 2.2, 1.0), (16.0, 3.4, 0.5), (8.0, 1.6, 1.0)])
def test_low_peaks_in_company_are_kept_alike(engine: Engine, spacing: float, sigma: float, depth: float) -> None:
    """Without a threshold of the user's: contamination lowers a part of the columns, and both sides keep the same of them."""
    frame = lattice_frame((260, 330), spacing, sigma)
    shade = 1.0 - depth * 0.8 * (np.mgrid[:260, :330][1] / 330.0)
    pixels = np.random.default_rng(7).poisson(20.0 + (frame.pixels.astype(float) - 20.0).clip(0) * shade).astype(np.uint16)
    dirty, own = replace(frame, pixels=pixels), DetectSettings()
    with device_detector(engine, OrtOnProcessor(engine), detect=own) as detector:
        agree(detector.detect(dirty), processor_detector(engine, detect=own).detect(dirty), 100)


def test_sparse_atoms_must_stand_out_of_the_noise(engine: Engine) -> None:
    """Twenty single atoms on speckle: the same ones pass the matched filter on both sides."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:260, :330]
    image = np.full((260, 330), 12.0)
    for place in rng.uniform(12, 248, (20, 2)) * (1.0, 1.25):
        image += 25.0 * np.exp(-0.5 * ((y - place[0]) ** 2 + (x - place[1]) ** 2) / 2.2**2)
    frame = replace(lattice_frame((64, 80)), pixels=rng.poisson(image).astype(np.uint16))
    own = DetectSettings()
    with device_detector(engine, OrtOnProcessor(engine), detect=own) as detector:
        found = detector.detect(frame)
        assert any(name == "significance" for name, _ in detector._run.launches)
        agree(found, processor_detector(engine, detect=own).detect(frame), 12)


def test_a_second_frame_of_the_same_shape_leaves_nothing_of_the_first(engine: Engine) -> None:
    many, few = lattice_frame((240, 300), seed=1), lattice_frame((240, 300), 19.0, 2.2, seed=2)
    with device_detector(engine, OrtOnProcessor(engine)) as detector:
        first = detector.detect(many)
        agree(detector.detect(few), processor_detector(engine).detect(few), 60)
        again = detector.detect(many)
    np.testing.assert_array_equal(again.yx_px, first.yx_px)


def test_more_peaks_than_room_are_found_all_the_same(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from atomid_live.backends import device, device_chain

    monkeypatch.setattr(device, "ROOM", 400)
    monkeypatch.setattr(device_chain, "FETCHED", 128)
    frame = lattice_frame((300, 380), 8.0, 1.6)
    with device_detector(engine, OrtOnProcessor(engine)) as detector:
        agree(detector.detect(frame), processor_detector(engine).detect(frame), 1500)


@pytest.mark.parametrize("height", [1.0, 0.03])
def test_the_network_runs_as_often_as_on_the_processor(engine: Engine, height: float) -> None:
    """Once on a clear frame; at other scales too where its peaks are low."""
    from atomid_live.backends.onnxruntime import OnnxRuntimeNetwork
    from atomid_live.detect.unet import UnetDetector

    frame = lattice_frame((200, 260))
    mine, counted = OrtOnProcessor(engine), CountedNetwork(OnnxRuntimeNetwork(engine, 1, "fp32"))
    mine.gain = counted.gain = height
    with device_detector(engine, mine) as detector:
        detector.detect(frame)
    UnetDetector(counted, engine).detect(frame)
    assert mine.runs == counted.runs
    assert (counted.runs > 1) == (height < 1.0)


def test_another_look_when_the_network_sees_other_columns(engine: Engine) -> None:
    """The network insists on wider columns: the frame is shown again, at most twice, and as the processor would."""
    network, frame = OrtOnProcessor(engine), lattice_frame((300, 380))
    with device_detector(engine, network) as detector:
        detector.detect(frame)
        agreeing, network.width_px = network.runs, 4.0
        detector.detect(frame)
    assert 1 < network.runs - agreeing <= 12


def test_held_scale_is_renewed_when_the_shape_changes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with device_detector(engine, OrtOnProcessor(engine), hold_scale=True) as detector:
        seen: list[tuple[int, int]] = []
        oriented = detector._dog.oriented
        monkeypatch.setattr(detector._dog, "oriented", lambda prepared: seen.append(prepared.image.shape) or oriented(prepared))
        for shape in ((240, 300), (240, 300), (300, 240)):
            frame = lattice_frame(shape)
            agree(detector.detect(frame), processor_detector(engine).detect(frame), 100)
    assert seen == [(240, 300), (300, 240)]


def test_closing_closes_the_network(engine: Engine) -> None:
    network = OrtOnProcessor(engine)
    with device_detector(engine, network) as detector:
        detector.warm_up((64, 96))
    assert network.closed


@pytest.mark.parametrize("kernel", ["to_float_u16", "fit_among"])
def test_exhausted_memory_says_what_to_do_and_the_next_frame_goes_on(engine: Engine, kernel: str) -> None:
    import torch

    frame = lattice_frame((200, 250))
    with device_detector(engine, OrtOnProcessor(engine)) as detector:
        whole = detector.detect(frame)
        run, left = detector.last_chain.run, [kernel]

        def exhausted(name: str, threads: int, *arguments: Any) -> None:
            if name in left:
                left.clear()
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            run(name, threads, *arguments)

        detector.last_chain.run = exhausted
        with pytest.raises(ModelError, match=r"GPU memory ran out for a frame of \(200, 250\).*close other programs"):
            detector.detect(frame)
        np.testing.assert_array_equal(detector.detect(frame).yx_px, whole.yx_px)


def test_exhausted_memory_while_a_shape_is_prepared(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from atomid_live.kernels import stages

    def exhausted(*arguments: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(stages, "allocate", exhausted)
    with (
        device_detector(engine, OrtOnProcessor(engine)) as detector,
        pytest.raises(ModelError, match=r"frames of \(200, 250\)"),
    ):
        detector.detect(lattice_frame((200, 250)))
