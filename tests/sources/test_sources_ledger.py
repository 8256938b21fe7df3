"""The ledger: nothing forgotten, nothing doubled, damage survived."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from atomid_live.errors import RecordingError
from atomid_live.sources.ledger import Ledger, Seen
from atomid_live.types import FrameState, Origin


def origin(name: str = "a.tif", item: str = "", index: int = 0, identity: str = "1-2-3", sha: str = "abc") -> Origin:
    return Origin(name, item, index, identity, sha)


def test_what_is_recorded_is_known_after_reopening(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    assert ledger.is_empty
    ledger.record(origin(), 7, FrameState.PROCESSED)
    ledger.finish([("a.tif", "1-2-3")])
    ledger.close()
    ledger.close()
    again = Ledger(tmp_path / "ledger.sqlite")
    assert not again.is_empty
    assert again.taken("a.tif", "1-2-3", "", 0)
    assert again.seen_content("abc") == Seen(7, "a.tif", "", 0)
    assert again.is_finished("a.tif", "1-2-3") and not again.is_finished("a.tif", "1-2-4")
    again.close()


def test_a_plain_picture_is_known_by_its_state_and_a_named_item_by_its_name() -> None:
    ledger = Ledger()
    ledger.record(origin(), 0, "processed")
    ledger.record(origin("b.emd", "uuid", 3), 1, "processed")
    assert not ledger.taken("a.tif", "other", "", 0)
    assert ledger.taken("b.emd", "other", "uuid", 3)
    assert not ledger.taken("b.emd", "1-2-3", "uuid", 4)
    assert ledger.seen_content("") is None and ledger.seen_content("zzz") is None
    ledger.close()


def test_reconcile_puts_back_what_is_missing_and_nothing_else() -> None:
    ledger = Ledger()
    ledger.record(origin(sha="one"), 0, "processed")
    line = {"source": "a.tif", "item": "", "item_index": 0, "identity": "1-2-3", "content_sha256": "one", "sequence": 0}
    lines = [
        line | {"state": "processed"},
        line | {"source": "b.tif", "sequence": 1, "content_sha256": "two", "state": "failed"},
    ]
    assert ledger.reconcile(lines) == 1
    assert ledger.reconcile(lines) == 0
    assert ledger.seen_content("two") == Seen(1, "b.tif", "", 0)
    ledger.close()


def test_an_earlier_sessions_ledger_is_taken_over(tmp_path: Path) -> None:
    old = Ledger(tmp_path / "old.sqlite")
    old.record(origin(), 5, "processed")
    old.finish([("x.tif", "9")])
    with pytest.raises(RecordingError, match="running"):
        Ledger().import_from(tmp_path / "old.sqlite")
    old.close()
    new = Ledger(tmp_path / "new.sqlite")
    assert new.import_from(tmp_path / "old.sqlite") == 1
    assert new.taken("a.tif", "1-2-3", "", 0) and new.is_finished("x.tif", "9")
    new.close()
    with pytest.raises(RecordingError):
        Ledger().import_from(tmp_path / "none.sqlite")


def test_a_damaged_ledger_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"this is not a data base" * 100)
    ledger = Ledger(path)
    assert ledger.is_empty and "damaged" in caplog.text
    assert (tmp_path / "ledger.sqlite.damaged-1").exists()
    ledger.close()


def test_two_sessions_cannot_share_one_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Ledger(tmp_path / "ledger.sqlite")
    with pytest.raises(RecordingError, match="another session"):
        Ledger(tmp_path / "ledger.sqlite")
    first.close()
    with pytest.raises(RecordingError, match="cannot be written"):
        first.record(origin(), 0, "processed")


def test_the_ledger_of_a_killed_process_can_be_taken_over(tmp_path: Path) -> None:
    code = (
        "import os, sys; from atomid_live.sources.ledger import Ledger; from atomid_live.types import Origin\n"
        "ledger = Ledger(sys.argv[1]); ledger.record(Origin('a.tif', '', 0, '1-2-3', 'abc'), 4, 'processed'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "old.sqlite")], check=False).returncode == 9
    shutil.copytree(tmp_path, tmp_path / "copy", ignore=shutil.ignore_patterns("copy"))
    new = Ledger()
    assert new.import_from(tmp_path / "old.sqlite") == 1
    assert new.taken("a.tif", "1-2-3", "", 0)
    again = Ledger(tmp_path / "copy" / "old.sqlite")
    assert again.taken("a.tif", "1-2-3", "", 0)
