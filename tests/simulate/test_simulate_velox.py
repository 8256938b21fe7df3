"""The Velox files are laid out as real ones, and another program reads the same values from them."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from atomid_live.simulate.velox import DPC_DTYPE, METADATA_BYTES, ScanFacts, Signal, VeloxFile, metadata

SHAPE = (24, 36)
FACTS = ScanFacts(SHAPE, (0.0124, 0.0125), 1e-5, 0.0118, 12.1, 1_790_000_000.7)


def stack(path: Path, frames: int = 3, extra: bool = False) -> np.ndarray:
    """Write a stack and return its HAADF images, shape (rows, cols, frames)."""
    images = np.random.default_rng(1).integers(0, 65535, (*SHAPE, frames)).astype(np.uint16)
    signals = [Signal("HAADF")]
    if extra:
        signals += [Signal("BF-S", 0), Signal("DPC", 3, DPC_DTYPE)]
    with VeloxFile(path, SHAPE, signals) as file:
        for k in range(frames):
            every = {"HAADF": images[..., k], "BF-S": images[::-1, :, k], "DPC": np.zeros(SHAPE, DPC_DTYPE)}
            file.append(every, ScanFacts(SHAPE, (0.0124, 0.0125), 1e-5, 0.0118, 12.1, 1_790_000_000.7, k + 1))
    return images


def test_layout(tmp_path: Path) -> None:
    path = tmp_path / "a.emd"
    images = stack(path)
    raw = path.read_bytes()
    assert raw[:8] == b"\x89HDF\r\n\x1a\n"
    assert raw[8] == 0, "superblock version"
    with h5py.File(path) as h5:
        assert json.loads(h5["Version"][0])["format"] == "Velox"
        (key,) = h5["Data/Image"]
        assert len(key) == 32
        group = h5["Data/Image"][key]
        assert group["Data"].maxshape == (*SHAPE, None)
        assert group["Data"].chunks == (*SHAPE, 1)
        assert group["Data"].compression is None
        np.testing.assert_array_equal(group["Data"][()], images)
        np.testing.assert_array_equal(group["FrameLookupTable"][()], [0, 1, 2])
        assert group["Metadata"].shape == (METADATA_BYTES, 3)
        text = group["Metadata"][:, 2].tobytes().rstrip(b"\0")
        tree = json.loads(text)
    assert tree["CustomProperties"]["Velox.Series.FrameNumber"]["value"] == "3"
    assert tree["Acquisition"]["AcquisitionStartDatetime"]["DateTime"] == "1790000000"


def leaves(tree: object) -> list[object]:
    """Everything in a tree that is not a mapping."""
    return [leaf for value in tree.values() for leaf in leaves(value)] if isinstance(tree, dict) else [tree]


def test_every_value_is_a_string_and_numbers_survive() -> None:
    tree = metadata(FACTS, Signal("HAADF"))
    assert all(isinstance(leaf, str) for leaf in leaves(tree))
    assert float(tree["BinaryResult"]["PixelSize"]["height"]) == pytest.approx(0.0124e-9, rel=1e-15)
    assert float(tree["BinaryResult"]["PixelSize"]["width"]) == pytest.approx(0.0125e-9, rel=1e-15)
    assert float(tree["Scan"]["FrameTime"]) == 12.1
    index = tree["BinaryResult"]["DetectorIndex"]
    assert tree["Detectors"][f"Detector-{index}"]["DetectorName"] == "HAADF"


def test_an_unknown_pixel_size_is_left_out() -> None:
    nan = float("nan")
    tree = metadata(ScanFacts(SHAPE, (nan, nan), 1e-5, 0.01, 1.0, 0.0), Signal("HAADF"))
    assert not {"PixelSize", "PixelUnitX"} & set(tree["BinaryResult"])
    assert "nan" not in json.dumps(tree)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_rosettasciio_reads_values_scale_and_titles(tmp_path: Path) -> None:
    emd = pytest.importorskip("rsciio.emd")
    path = tmp_path / "three.emd"
    images = stack(path, extra=True)
    found = {item["metadata"]["General"]["title"]: item for item in emd.file_reader(str(path))}
    assert set(found) == {"HAADF", "BF-S", "DPC"}
    np.testing.assert_array_equal(found["HAADF"]["data"], np.moveaxis(images, -1, 0))
    np.testing.assert_array_equal(found["BF-S"]["data"], np.moveaxis(images[::-1], -1, 0))
    assert np.iscomplexobj(found["DPC"]["data"])
    axes = {axis["name"]: axis for axis in found["HAADF"]["axes"]}
    assert axes["x"]["units"] == axes["y"]["units"] == "pm"
    assert axes["x"]["scale"] == pytest.approx(12.5)
    assert axes["y"]["scale"] == pytest.approx(12.4)


def test_pyfive_reads_it_too(tmp_path: Path) -> None:
    pyfive = pytest.importorskip("pyfive")
    images = stack(tmp_path / "p.emd")
    with pyfive.File(str(tmp_path / "p.emd")) as h5:
        (key,) = h5["Data/Image"].keys()
        np.testing.assert_array_equal(h5[f"Data/Image/{key}/Data"][:, :, 1], images[..., 1])


def test_keys_are_those_of_a_real_spectra(real_data: Path) -> None:
    def keys(tree: object, prefix: str = "") -> set[str]:
        if not isinstance(tree, dict):
            return set()
        return {prefix + k for k in tree}.union(*(keys(v, f"{prefix}{k}/") for k, v in tree.items()))

    with h5py.File(real_data / "unlabelled" / "spectra_ws2.emd", locking=False) as h5:
        (key,) = h5["Data/Image"]
        real = json.loads(h5[f"Data/Image/{key}/Metadata"][:, 0].tobytes().rstrip(b"\0"))
        assert h5[f"Data/Image/{key}/Data"].chunks == (1024, 1024, 1)
    ours = {k for k in keys(metadata(FACTS, Signal("HAADF"))) if not k.startswith("Detectors/")}
    assert ours <= keys(real)


def test_a_growing_file_shows_whole_frames_after_each_flush(tmp_path: Path) -> None:
    path = tmp_path / "grow.emd"
    images = np.arange(3 * SHAPE[0] * SHAPE[1], dtype=np.uint16).reshape(3, *SHAPE) + 1
    with VeloxFile(path, SHAPE, [Signal("HAADF")]) as file:
        for k, image in enumerate(images):
            file.append({"HAADF": image}, FACTS)
            file.flush()
            copy = tmp_path / f"seen{k}.emd"
            copy.write_bytes(path.read_bytes())
            with h5py.File(copy) as h5:
                (key,) = h5["Data/Image"]
                np.testing.assert_array_equal(h5[f"Data/Image/{key}/Data"][..., k], image)
                assert h5[f"Data/Image/{key}/FrameLookupTable"].shape == (k + 1,)


def test_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "x.emd").write_text("precious")
    with pytest.raises(FileExistsError):
        VeloxFile(tmp_path / "x.emd", SHAPE, [Signal("HAADF")])
    assert (tmp_path / "x.emd").read_text() == "precious"
