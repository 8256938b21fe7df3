"""Cut anywhere, fail anywhere: what has a whole line is whole, and the session goes on."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from atomid_live.errors import RecordingError
from atomid_live.session_file import SessionFolder, SessionInfo, SessionRecord, find_latest, read_session, reopen
from atomid_live.session_file.journal import Journal
from atomid_live.types import Refused, Result

Make = Callable[..., Result]
INFO = SessionInfo("/data/watched")


def check(path: Path) -> SessionRecord:
    """Everything a reader relies on."""
    session = read_session(path)
    numbers = [frame["sequence"] for frame in session.frames]
    assert len(set(numbers)) == len(numbers)
    processed = [frame["sequence"] for frame in session.processed()]
    for number in processed:
        if session.frame(number)["atoms"]:
            assert len(session.atoms(number)) == session.frame(number)["columns"]
    on_disk = {int(file.stem) for file in (path / "atoms").glob("*.csv")}
    assert on_disk == {number for number in processed if session.frame(number)["atoms"]}
    for name, table in (("drift.csv", session.drift_table()), ("strain.csv", session.strain_table())):
        text = (path / name).read_text()
        assert text.endswith("\n")
        assert sorted(int(row.split(",")[0]) for row in text.splitlines()[1:]) == processed
        assert list(table["frame"]) == processed
    assert not list(path.rglob("*.tmp"))
    return session


@pytest.fixture
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What reaches a file is the question, not when."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def killed(tmp_path: Path, result: Make, refused: Callable[..., Refused]) -> Path:
    """A session of four frames that was never finished."""
    folder = SessionFolder.create(tmp_path / "made", INFO)
    folder.record(result(0))
    folder.refuse(refused(1))
    folder.record(result(2, count=2))
    folder.record(result(3, count=2))
    folder.close()
    return folder.path


def put(path: Path, data: bytes) -> None:
    """Write a file anew; writing over one may wait for the disk."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def kind(byte: int) -> str:
    """What a byte is to a parser; each mark of its own is its own kind."""
    text = chr(byte)
    return "letter" if text.isalpha() else "digit" if text.isdigit() else text


def cuts(whole: bytes) -> list[int]:
    """In the last two lines: a place for each pair of kinds of byte that a cut can part, and all places near the ends.

    No cut inside a line leaves it whole, so that pairs of a kind differ only in where they stand; that the journal sees it so
    at every byte is tested by itself.
    """
    ends = [at for at, byte in enumerate(whole) if byte == 10]
    near = {end + offset for end in ends[-3:] for offset in range(-25, 3)}
    parted = dict[tuple[bool, str, str], int]()
    for cut in range(ends[-3] + 2, len(whole)):
        parted.setdefault((cut > ends[-2] + 1, kind(whole[cut - 1]), kind(whole[cut])), cut)
    return sorted(set(parted.values()) | near.intersection(range(ends[-3] + 1, len(whole) + 1)))


def test_the_journal_counts_whole_lines_and_goes_on_wherever_it_is_cut(killed: Path, tmp_path: Path, fast_disk: None) -> None:
    """At every byte of a processed frame's line, and about the end of the one before, without the rest of the folder."""
    whole = (killed / "frames.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    last, ends = b"".join(lines[-2:]), (len(lines[-2]) - 1, len(lines[-2]) + len(lines[-1]) - 1)
    first = json.loads(lines[-2])["sequence"]
    for cut in range(len(lines[-2]) - 25, len(last) + 1):
        left = last[:cut]
        put(tmp_path / "frames.jsonl", left)
        journal = Journal(tmp_path, new=False)
        journal.settle()
        kept = sum(cut >= end for end in ends)  # a line is whole even without its line feed
        assert journal.next_sequence == (first + kept if kept else 0)
        journal.append({"kind": "frame", "sequence": first + kept})
        journal.close()
        assert (tmp_path / "frames.jsonl").read_bytes().startswith(left)
        assert [record["sequence"] for record in journal.frames()] == list(range(first, first + kept + 1))


def test_cut_in_the_lines_of_processed_frames(killed: Path, tmp_path: Path, result: Make, fast_disk: None) -> None:
    whole = (killed / "frames.jsonl").read_bytes()
    ends = [at for at, byte in enumerate(whole) if byte == 10]
    wanted = {name: (killed / name).read_bytes() for name in ("drift.csv", "strain.csv")}
    path = tmp_path / "cut"
    for cut in cuts(whole):
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(killed, path)
        put(path / "frames.jsonl", whole[:cut])
        folder = reopen(path)
        kept = sum(cut >= end for end in ends)  # a line is whole even without its line feed
        assert folder.next_sequence == kept
        assert len(list((path / "atoms").glob("*.orphan"))) == 4 - kept
        folder.record(result(folder.next_sequence, count=3))
        folder.close()
        assert (path / "frames.jsonl").read_bytes().startswith(whole[:cut])
        session = check(path)
        assert [frame["sequence"] for frame in session.frames] == list(range(kept + 1))
        assert [other["kind"] for other in session.others] == ["resumed"]
        if kept == 4:
            assert all((path / name).read_bytes().startswith(text) for name, text in wanted.items())


def test_cut_at_every_byte_of_the_last_two_lines(tmp_path: Path, refused: Callable[..., Refused], fast_disk: None) -> None:
    folder = SessionFolder.create(tmp_path, INFO)
    for number in range(3):
        folder.refuse(refused(number))
    folder.close()
    journal, about = folder.path / "frames.jsonl", folder.path / "session.json"
    whole, begun = journal.read_bytes(), about.read_bytes()
    ends = [at for at, byte in enumerate(whole) if byte == 10]
    for cut in range(ends[0] + 1, len(whole) + 1):
        put(journal, whole[:cut])
        put(about, begun)
        again = reopen(folder.path)
        kept = sum(cut >= end for end in ends)
        assert again.next_sequence == kept
        again.refuse(refused(kept))
        again.close()
        after = journal.read_bytes()
        assert after.startswith(whole[:cut]) and after.endswith(b"\n")
        session = read_session(folder.path)
        assert [frame["sequence"] for frame in session.frames] == list(range(kept + 1))
        assert session.bad_lines == (cut - 1 not in ends and cut not in ends)


@pytest.mark.parametrize("name", ["drift.csv", "strain.csv"])
def test_a_table_cut_anywhere_is_written_again_as_it_was(killed: Path, name: str, fast_disk: None) -> None:
    whole = (killed / name).read_bytes()
    begun = {other: (killed / other).read_bytes() for other in ("frames.jsonl", "session.json")}
    last_row = whole.rstrip(b"\n").rfind(b"\n")
    for cut in (0, 7, *range(last_row - 3, len(whole))):
        put(killed / name, whole[:cut])
        for other, data in begun.items():  # each reopening adds to these
            put(killed / other, data)
        reopen(killed).close()
        assert (killed / name).read_bytes() == whole, cut
    (killed / name).write_bytes(whole[:-40] + b"\0" * 40)
    reopen(killed).close()
    assert (killed / name).read_bytes() == whole


def test_orphans_and_leftovers_are_set_aside_not_lost(killed: Path) -> None:
    (killed / "atoms/000004.csv").write_text("no line")
    (killed / "annotated/.000004.png.tmp").write_text("half")
    folder = reopen(killed)
    folder.close()
    assert (killed / "atoms/000004.csv.orphan").read_text() == "no line"
    session = check(killed)
    assert session.others[-1]["orphans"] == ["000004.csv"]
    assert session.about["resumed"][-1]["next_sequence"] == 4


def test_a_damaged_line_in_the_middle_costs_that_frame_only(killed: Path) -> None:
    data = (killed / "frames.jsonl").read_bytes()
    (killed / "frames.jsonl").write_bytes(data.replace(b'"sequence":2,', b'"sequence":9,'))
    reopen(killed).close()
    session = check(killed)
    assert [frame["sequence"] for frame in session.frames] == [0, 1, 3] and session.bad_lines == 1


def test_resuming_again_after_an_end_clears_the_end(killed: Path) -> None:
    folder = reopen(killed)
    folder.finish("clean", "done")
    folder.close()
    found = find_latest(killed.parent, INFO.source)
    assert found and found.ended
    reopen(killed).close()
    found = find_latest(killed.parent, INFO.source)
    assert found and not found.ended


def test_a_folder_that_is_no_session_is_not_reopened(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"session\.json"):
        reopen(tmp_path)


class Broken:
    """Makes the n-th changing call of the operating system fail; a failing write leaves half of its bytes behind."""

    CALLS = ("open", "write", "fsync", "replace", "ftruncate")

    def __init__(self, fail_at: int) -> None:
        self.count, self.fail_at, self.failed = 0, fail_at, False
        self.real: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in self.CALLS}

    def call(self, name: str) -> Callable[..., Any]:
        def instead(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count == self.fail_at:
                self.failed = True
                if name == "write":
                    self.real["write"](args[0], bytes(args[1])[: len(args[1]) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.real[name](*args, **kwargs)

        return instead

    @contextmanager
    def installed(self) -> Iterator[Broken]:
        with pytest.MonkeyPatch.context() as patch:
            for name in self.CALLS:
                patch.setattr(os, name, self.call(name))
            yield self


def run_with_failure(folder: SessionFolder, result: Make, fail_at: int) -> tuple[bool, set[int]]:
    """Record three frames while one call fails, trying a frame that was refused once more."""
    safe = set()
    with Broken(fail_at).installed() as broken:
        for number in range(3):
            for _ in range(2):
                try:
                    folder.record(result(number, count=2))
                except RecordingError as error:
                    assert "No space left" in str(error)
                else:
                    safe.add(number)
                    break
    return broken.failed, safe


def test_the_nth_call_fails(tmp_path: Path, result: Make) -> None:
    for fail_at in range(1, 200):
        folder = SessionFolder.create(tmp_path / f"{fail_at:03d}", INFO)
        failed, safe = run_with_failure(folder, result, fail_at)
        assert safe == {0, 1, 2}
        folder.finish("clean", "")
        folder.close()
        check(folder.path)
        if not failed:
            break
    assert 20 < fail_at < 199


def test_the_nth_call_fails_and_then_the_program_dies(tmp_path: Path, result: Make) -> None:
    for fail_at in range(1, 200):
        folder = SessionFolder.create(tmp_path / f"{fail_at:03d}", INFO)
        with Broken(fail_at).installed() as broken:
            recorded = 0
            try:
                for number in range(2):
                    folder.record(result(number, count=2))
                    recorded += 1
            except RecordingError:
                pass
        folder.close()
        again = reopen(folder.path)
        assert again.next_sequence >= recorded
        again.record(result(again.next_sequence, count=1))
        again.close()
        check(folder.path)
        if not broken.failed:
            break
    assert 15 < fail_at < 199


def test_reopening_that_fails_at_any_call_can_be_done_again(killed: Path, tmp_path: Path) -> None:
    data = (killed / "frames.jsonl").read_bytes()
    for fail_at in range(1, 200):
        path = tmp_path / f"{fail_at:03d}"
        shutil.copytree(killed, path)
        (path / "frames.jsonl").write_bytes(data[:-20])
        (path / "drift.csv").write_bytes((killed / "drift.csv").read_bytes()[:-5])
        with Broken(fail_at).installed() as broken:
            try:
                reopen(path).close()
            except (RecordingError, OSError) as error:
                assert isinstance(error, RecordingError), error
        reopen(path).close()
        assert [frame["sequence"] for frame in check(path).frames] == [0, 1, 2]
        if not broken.failed:
            break
    assert 8 < fail_at < 199


def test_a_killed_process_leaves_a_session_that_goes_on(tmp_path: Path, result: Make) -> None:
    program = (
        "import sys, os; sys.path.insert(0, sys.argv[1]); from recorded_results import make_result\n"
        "from pathlib import Path; from atomid_live.session_file import SessionFolder, SessionInfo\n"
        "folder = SessionFolder.create(Path(sys.argv[2]), SessionInfo('/data/watched'))\n"
        "for n in range(3): folder.record(make_result(n))\n"
        "os._exit(9)\n"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).parents[1]), str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == 9
    found = find_latest(tmp_path, "/data/watched")
    assert found and not found.ended and not found.running
    folder = reopen(found.path)
    assert folder.next_sequence == 3
    folder.close()
    assert check(found.path).counts["processed"] == 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 kB, where this machine lets us have one."""
    mount = shutil.which("mount")
    place = tmp_path / "small"
    place.mkdir()
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if not made or made.returncode:
        pytest.skip("no small file system can be mounted here (needs root)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_loud_and_the_rest_is_whole(small_disk: Path, result: Make) -> None:
    folder = SessionFolder.create(small_disk, INFO)
    recorded = 0
    with pytest.raises(RecordingError, match="No space left"):
        for number in range(1000):
            folder.record(result(number, count=200))
            recorded += 1
    assert "No space left" in folder.problem
    filled = sorted((folder.path / "atoms").glob("*.csv"))
    assert 0 < len(filled) < recorded
    lost = {path.name for path in filled}
    for path in filled[len(filled) // 2 :]:
        path.unlink()
        lost.discard(path.name)
    folder.record(result(recorded, count=1))
    folder.close()
    session = read_session(folder.path)
    assert [frame["sequence"] for frame in session.frames] == list(range(recorded + 1))
    assert {Path(f["atoms"]["file"]).name for f in session.frames if f["atoms"]} >= lost
    assert all(frame["atoms"] or "No space left" in frame["not_saved"] for frame in session.frames)
