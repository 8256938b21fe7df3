"""The watched folder's core, driven by hand with a clock that is only a number."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from velox_files import UUID

from atomid_live.errors import InputGoneError
from atomid_live.settings import SourceSettings
from atomid_live.sources.arrivals import Refusal
from atomid_live.sources.files import Loaded, natural_key
from atomid_live.sources.ledger import Ledger
from atomid_live.sources.listing import Where
from atomid_live.sources.readers.raw import ReadOptions
from atomid_live.sources.scanner import FolderScanner, Found
from atomid_live.types import FrameState


class Driver:
    """A scanner and its clock; `run` polls every 0.1 s and answers what it finds, as a session would."""

    def __init__(self, folder: Path, ledger: Ledger | None = None, **settings: Any) -> None:
        self.now = 0.0
        self.folder, self.ledger = folder, ledger or Ledger()
        given = SourceSettings(**({"existing": "process"} | settings))
        where = Where(folder, given.recursive, (folder / "out",))
        self.scanner = FolderScanner(where, given, ReadOptions(), self.ledger, outage_s=20.0)
        self.sequence = 0

    def run(self, seconds: float, answer: bool = True) -> list[Found]:
        found: list[Found] = []
        end = self.now + seconds
        while self.now < end:
            for one in self.scanner.poll(self.now):
                found.append(one)
                if answer:
                    state = one.state if isinstance(one, Refusal) else FrameState.PROCESSED
                    self.ledger.record(one.origin, self.sequence, state)
                    self.scanner.answered(one.origin)
                self.sequence += 1
            self.now = round(self.now + 0.1, 6)
        return found

    def names(self, seconds: float) -> list[str]:
        return [Path(one.origin.source).name for one in self.run(seconds)]


def save(path: Path, pixels: np.ndarray[Any, Any]) -> Path:
    tifffile.imwrite(path, pixels)
    return path


def test_frames_come_once_and_in_natural_order(tmp_path: Path, frames: Any) -> None:
    for k in (10, 2, 1, 33):
        save(tmp_path / f"img{k}.tif", frames(k))
    driver = Driver(tmp_path)
    assert driver.names(5) == ["img1.tif", "img2.tif", "img10.tif", "img33.tif"]
    assert driver.run(5) == []
    assert driver.scanner.behind() == 0 and driver.scanner.waiting() == ()


def test_acquisition_time_goes_before_the_name(tmp_path: Path, frames: Any, velox_stack: Callable[..., Path]) -> None:
    for name, second in (("a", 300), ("b", 100), ("c", 200)):
        start = {"Acquisition": {"AcquisitionStartDatetime": {"DateTime": str(1726606000 + second)}}}
        velox_stack(tmp_path / f"{name}.emd", [frames(second)], uuid=f"{second:032x}", **start)
    assert Driver(tmp_path).names(5) == ["b.emd", "c.emd", "a.emd"]


def test_natural_order_of_names() -> None:
    names = ["a10", "A2", "a2b", "b1", "10", "9", "a"]
    assert sorted(names, key=natural_key) == ["9", "10", "a", "A2", "a2b", "a10", "b1"]


def test_a_file_is_left_alone_until_it_is_still(tmp_path: Path, frames: Any) -> None:
    data = save(tmp_path / "x.tif", frames(1, (64, 80))).read_bytes()
    (tmp_path / "x.tif").unlink()
    driver = Driver(tmp_path, settle_s=0.4)
    for part in range(1, 6):
        (tmp_path / "a.tif").write_bytes(data[: len(data) * part // 6])
        assert driver.run(0.3) == []
        assert [name for name, _ in driver.scanner.waiting()] in (["a.tif"], [])
    (tmp_path / "a.tif").write_bytes(data)
    (found,) = driver.run(3)
    assert isinstance(found, Loaded) and found.raw is not None
    np.testing.assert_array_equal(found.raw.pixels, frames(1, (64, 80)))


def test_a_truncated_file_waits_is_set_aside_and_comes_back(tmp_path: Path, frames: Any) -> None:
    path = save(tmp_path / "a.tif", frames(1, (64, 80)))
    data = path.read_bytes()
    path.write_bytes(data[:5000])
    driver = Driver(tmp_path, give_up_s=5)
    assert driver.run(3) == []
    assert "truncated" in dict(driver.scanner.waiting())["a.tif"]
    (refused,) = driver.run(10)
    assert isinstance(refused, Refusal) and refused.state is FrameState.QUARANTINED and "truncated" in refused.reason
    assert driver.run(30) == []
    path.write_bytes(data)
    (found,) = driver.run(3)
    assert isinstance(found, Loaded) and found.raw is not None


def test_a_locked_file_waits_for_ever_with_growing_pauses(tmp_path: Path, frames: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.tif", frames(1))
    tries: list[float] = []
    driver = Driver(tmp_path, give_up_s=5)

    def locked(path: Path) -> Any:
        tries.append(driver.now)
        raise PermissionError(13, "sharing violation")

    with monkeypatch.context() as patched:
        patched.setattr("atomid_live.sources.readers.opening._open", locked)
        assert driver.run(120) == []
        assert "another program" in dict(driver.scanner.waiting())["a.tif"]
    pauses = np.diff(tries)
    assert pauses[0] == pytest.approx(0.5, abs=0.15) and pauses.max() == pytest.approx(30, abs=0.2)
    assert len(driver.run(31)) == 1


def test_a_dark_end_is_held_back_and_then_taken_as_it_is(tmp_path: Path) -> None:
    pixels = np.ones((200, 100), np.uint16)
    pixels[100:] = 0
    save(tmp_path / "a.tif", pixels)
    driver = Driver(tmp_path)
    assert driver.run(9) == []
    (found,) = driver.run(4)
    assert isinstance(found, Loaded) and found.raw is not None
    np.testing.assert_array_equal(found.raw.pixels, pixels)


def test_a_copy_that_reserved_its_space_is_taken_when_it_is_filled(tmp_path: Path, frames: Any) -> None:
    data = save(tmp_path / "a.tif", frames(1, (200, 100))).read_bytes()
    driver = Driver(tmp_path)
    for part in range(4):
        cut = len(data) * part // 4
        (tmp_path / "a.tif").write_bytes(data[:cut] + bytes(len(data) - cut))
        os.utime(tmp_path / "a.tif", ns=(part, 1_700_000_000_000_000_000 + part * 10**9))
        assert driver.run(3) == []
    (tmp_path / "a.tif").write_bytes(data)
    (found,) = driver.run(3)
    assert isinstance(found, Loaded) and found.raw is not None
    np.testing.assert_array_equal(found.raw.pixels, frames(1, (200, 100)))


def test_files_without_a_frame_are_skipped_with_the_reason(tmp_path: Path, frames: Any, velox_stack: Any) -> None:
    velox_stack(tmp_path / "a.emd", [frames(1)], detector="BF")
    np.save(tmp_path / "b.npy", np.ones((1, 300)))
    (tmp_path / "c.dm4").write_bytes(b"x" * 100)
    (tmp_path / "d.txt").write_text("no picture, no word about it")
    found = Driver(tmp_path).run(5)
    reasons = {Path(f.origin.source).name: (getattr(f, "state", None), f.reason) for f in found}
    assert reasons["a.emd"][0] is FrameState.SKIPPED and "BF" in reasons["a.emd"][1]
    assert "line scan" in reasons["b.npy"][1]
    assert reasons["c.dm4"][0] is FrameState.QUARANTINED and "DigitalMicrograph" in reasons["c.dm4"][1]
    assert set(reasons) == {"a.emd", "b.npy", "c.dm4"}


def test_a_growing_stack_gives_each_frame_once_and_whole(tmp_path: Path, frames: Any, velox: Any) -> None:
    driver, got = Driver(tmp_path), []
    with velox(tmp_path / "a.emd") as file:
        file.image(UUID, (24, 40), np.uint16)
        for k in range(5):
            file.extend(UUID, k + 1)
            file.file.flush()
            got += driver.run(2)
            file.write(UUID, k, frames(k))
            file.file.flush()
            got += driver.run(3)
    got += driver.run(5)
    assert [one.origin.item_index for one in got] == [0, 1, 2, 3, 4]
    for one in got:
        assert isinstance(one, Loaded) and one.raw is not None
        np.testing.assert_array_equal(one.raw.pixels, frames(one.origin.item_index))


def test_a_stack_that_was_broken_off_is_set_aside_after_its_frames(tmp_path: Path, frames: Any, velox: Any) -> None:
    with velox(tmp_path / "a.emd") as file:
        file.image(UUID, (24, 40), np.uint16)
        file.extend(UUID, 3)
        for k in range(2):
            file.write(UUID, k, frames(k))
    driver = Driver(tmp_path, give_up_s=5)
    got = driver.run(30)
    assert [isinstance(one, Loaded) for one in got] == [True, True, False]
    assert got[2].reason.startswith("frame 3 of 3 is not written yet; unchanged for")
    assert driver.scanner.is_idle() and driver.scanner.waiting() == ()


def test_a_stack_that_never_rests_is_read_all_the_same(tmp_path: Path, frames: Any, velox: Any) -> None:
    driver, got = Driver(tmp_path, settle_s=0.4), []
    with velox(tmp_path / "a.emd") as file:
        file.image(UUID, (24, 40), np.uint16)
        for k in range(40):
            file.extend(UUID, k + 1)
            file.write(UUID, k, frames(k))
            file.file.flush()
            got += driver.run(0.2)
        assert len(got) > 5
    got += driver.run(20)
    assert [one.origin.item_index for one in got] == list(range(40))


def test_a_picture_written_over_is_a_new_frame(tmp_path: Path, frames: Any) -> None:
    driver = Driver(tmp_path)
    for k in range(3):
        save(tmp_path / "live.tif", frames(k))
        os.utime(tmp_path / "live.tif", ns=(k, 1_700_000_000_000_000_000 + k * 10**9))
        (found,) = driver.run(4)
        assert isinstance(found, Loaded) and found.raw is not None
        np.testing.assert_array_equal(found.raw.pixels, frames(k))


@pytest.mark.parametrize(("policy", "expected"), [("last", ["c.tif"]), ("skip", []), ("process", ["a.tif", "b.tif", "c.tif"])])
def test_policy_for_files_that_were_there_first(tmp_path: Path, frames: Any, policy: str, expected: list[str]) -> None:
    for k, name in enumerate("abc"):
        save(tmp_path / f"{name}.tif", frames(k))
        os.utime(tmp_path / f"{name}.tif", ns=(k, 1_700_000_000_000_000_000 + k * 10**9))
    driver = Driver(tmp_path, existing=policy)
    assert driver.names(5) == expected
    save(tmp_path / "d.tif", frames(9))
    assert driver.names(5) == ["d.tif"]
    # A restart, with no policy given, resumes: only what came while nobody watched.
    save(tmp_path / "e.tif", frames(10))
    assert Driver(tmp_path, driver.ledger, existing=None).names(5) == ["e.tif"]


def test_fresh_without_a_policy_takes_the_newest_that_is_a_frame(tmp_path: Path, frames: Any) -> None:
    save(tmp_path / "a.tif", frames(1))
    save(tmp_path / "b.tif", frames(2))
    np.save(tmp_path / "c.npy", np.ones((1, 300)))
    for k, name in enumerate(("a.tif", "b.tif", "c.npy")):
        os.utime(tmp_path / name, ns=(k, 1_700_000_000_000_000_000 + k * 10**9))
    driver = Driver(tmp_path, existing=None)
    assert driver.names(6) == ["c.npy", "b.tif"]
    assert Driver(tmp_path, driver.ledger, existing=None).names(5) == []


def test_a_restart_in_the_middle_of_a_stack_goes_on_where_it_was(tmp_path: Path, frames: Any, velox_stack: Any) -> None:
    velox_stack(tmp_path / "a.emd", [frames(k) for k in range(5)])
    first = Driver(tmp_path)
    while first.sequence < 2:
        first.run(0.1)
    taken = first.sequence
    again = Driver(tmp_path, first.ledger, existing=None)
    assert [one.origin.item_index for one in again.run(5)] == list(range(taken, 5))


def test_unanswered_frames_are_taken_again_after_a_restart(tmp_path: Path, frames: Any) -> None:
    save(tmp_path / "a.tif", frames(1))
    first = Driver(tmp_path)
    assert len(first.run(5, answer=False)) == 1
    assert Driver(tmp_path, first.ledger).names(5) == ["a.tif"]


def test_a_refusal_whose_line_is_safe_is_not_said_again(tmp_path: Path) -> None:
    (tmp_path / "a.dm4").write_bytes(b"x" * 100)
    first = Driver(tmp_path)
    (refusal,) = first.run(5, answer=False)
    assert isinstance(refusal, Refusal)
    again = Ledger()
    again.record(refusal.origin, 0, refusal.state)
    assert Driver(tmp_path, again).run(5) == []
    (tmp_path / "a.dm4").write_bytes(b"x" * 101)
    assert len(Driver(tmp_path, again).run(5)) == 1


def test_own_output_and_unfinished_names_are_passed_over(tmp_path: Path, frames: Any) -> None:
    for name in (".hidden.tif", "~lock.tif", "a.tif.tmp", "b.annotated.png", "out/z.tif", "20261122T201501Z-2/c.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 500)
    (tmp_path / "deep").mkdir()
    save(tmp_path / "deep" / "d.tif", frames(1))
    driver = Driver(tmp_path, recursive=True)
    assert driver.names(5) == ["d.tif"]
    due = driver.scanner.next_due()
    for name in ("out/y.tif", "20261122T201501Z-2/annotated/000001.png"):
        driver.scanner.hint(tmp_path / name, True, driver.now)
    assert driver.scanner.next_due() == due
    assert Driver(tmp_path).names(5) == []


def test_a_folder_that_goes_away_is_said_and_waited_for(tmp_path: Path, frames: Any) -> None:
    folder = tmp_path / "share"
    folder.mkdir()
    save(folder / "a.tif", frames(1))
    driver = Driver(folder)
    assert driver.names(4) == ["a.tif"]
    folder.rename(tmp_path / "away")
    assert driver.run(10) == []
    assert "cannot be listed" in driver.scanner.problem
    (tmp_path / "away").rename(folder)
    save(folder / "b.tif", frames(2))
    assert driver.names(5) == ["b.tif"]
    assert driver.scanner.problem == ""
    folder.rename(tmp_path / "away")
    with pytest.raises(InputGoneError, match="start again to resume"):
        driver.run(30)


def test_a_file_that_vanishes_before_it_is_read_is_forgotten(tmp_path: Path, frames: Any) -> None:
    driver = Driver(tmp_path)
    save(tmp_path / "a.tif", frames(1))
    driver.run(0.2)
    (tmp_path / "a.tif").unlink()
    assert driver.run(5) == [] and driver.scanner.waiting() == ()


def test_a_closed_hint_shortens_the_wait(tmp_path: Path, frames: Any) -> None:
    driver = Driver(tmp_path, scan_interval_s=30, settle_s=5)
    driver.run(0.1)
    path = save(tmp_path / "a.tif", frames(1))
    driver.scanner.hint(path, False, driver.now)
    driver.run(0.1)
    driver.scanner.hint(path, True, driver.now)
    assert len(driver.run(0.5)) == 1
    driver.scanner.hint(save(tmp_path / "b.tif", frames(2)), True, driver.now)
    assert len(driver.run(0.5)) == 1


def test_the_end_settles_what_still_waits(tmp_path: Path, frames: Any) -> None:
    data = save(tmp_path / "a.tif", frames(1, (64, 80))).read_bytes()
    (tmp_path / "a.tif").write_bytes(data[:4000])
    dark = np.ones((200, 100), np.uint16)
    dark[100:] = 0
    save(tmp_path / "b.tif", dark)
    driver = Driver(tmp_path)
    assert driver.run(3) == [] and driver.scanner.is_idle()
    torn, taken = sorted(driver.scanner.finish(driver.now), key=lambda one: one.origin.source)
    assert isinstance(torn, Refusal) and "when the watch ended" in torn.reason
    assert isinstance(taken, Loaded) and taken.raw is not None
