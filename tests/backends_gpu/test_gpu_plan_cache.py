"""The plan cache: what it refuses, and what it says when it does."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import fields, replace
from pathlib import Path

import pytest

from atomid_live.backends.plan_cache import PlanCache, PlanKey
from atomid_live.errors import ModelError

KEY = PlanKey("ab" * 32, "11.4.0", "NVIDIA H100", "9.0", "580.95", "13.0", "Linux x86_64", "fp16", 1)
POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows keeps access lists, not modes")


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    """An empty cache."""
    return PlanCache(tmp_path / "deep" / "plans")


def test_a_plan_comes_back_with_its_timings(cache: PlanCache) -> None:
    assert cache.load(KEY) == (None, "no plan of this network was built here yet")
    path = cache.store(KEY, b"native code")
    cache.store_timings(KEY, b"tactics")
    assert cache.load(KEY) == (b"native code", "")
    assert cache.timings(KEY) == b"tactics"
    assert cache.timings(replace(KEY, driver="590")) == b""
    assert not list(cache.folder.glob(".writing-*"))
    assert path.parent == cache.folder


@pytest.mark.parametrize("name", [field.name for field in fields(PlanKey) if field.name != "onnx_sha256"])
def test_any_difference_means_another_plan_and_is_named(cache: PlanCache, name: str) -> None:
    cache.store(KEY, b"native code")
    other = replace(KEY, **{name: 2 if name == "builder" else "other"})
    plan, reason = cache.load(other)
    assert plan is None
    assert f"{name} {getattr(KEY, name)} instead of {getattr(other, name)}" in reason
    assert "built anew" in reason


def test_another_network_does_not_speak_of_this_one(cache: PlanCache) -> None:
    cache.store(KEY, b"native code")
    assert cache.load(replace(KEY, onnx_sha256="cd" * 32))[1] == "no plan of this network was built here yet"


def test_a_changed_plan_is_not_loaded(cache: PlanCache) -> None:
    path = cache.store(KEY, b"native code")
    path.write_bytes(b"foreign code")
    plan, reason = cache.load(KEY)
    assert plan is None
    assert "changed or damaged" in reason


@pytest.mark.parametrize("change", [{"schema": 2}, {"key": {}}, {"sha256": ""}])
def test_a_changed_manifest_is_not_believed(cache: PlanCache, change: dict[str, object]) -> None:
    manifest = cache.store(KEY, b"native code").with_suffix(".json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    assert cache.load(KEY)[0] is None


def test_a_torn_manifest_is_not_an_accident(cache: PlanCache) -> None:
    manifest = cache.store(KEY, b"native code").with_suffix(".json")
    manifest.write_bytes(manifest.read_bytes()[:40])
    plan, reason = cache.load(KEY)
    assert plan is None
    assert "built anew" in reason


def test_a_dropped_plan_is_gone(cache: PlanCache) -> None:
    cache.store(KEY, b"native code")
    cache.drop(KEY)
    assert cache.load(KEY)[0] is None
    assert not list(cache.folder.iterdir())


@POSIX
def test_only_the_owner_can_enter_and_read(cache: PlanCache) -> None:
    path = cache.store(KEY, b"native code")
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@POSIX
def test_a_folder_that_others_could_write_is_emptied_and_closed(cache: PlanCache) -> None:
    cache.store(KEY, b"native code")
    cache.folder.chmod(0o777)
    again = PlanCache(cache.folder)
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert again.load(KEY)[0] is None


@POSIX
def test_links_and_files_of_others_are_refused(cache: PlanCache, tmp_path: Path) -> None:
    path = cache.store(KEY, b"native code")
    elsewhere = tmp_path / "elsewhere.plan"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    plan, reason = cache.load(KEY)
    assert plan is None
    assert "not a plain file" in reason
    path.unlink()
    elsewhere.rename(path)
    path.chmod(0o666)
    assert "written by others" in cache.load(KEY)[1]


@POSIX
def test_a_linked_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "plans").symlink_to(tmp_path / "real")
    with pytest.raises(ModelError, match="remove it"):
        PlanCache(tmp_path / "plans")


def test_a_broken_write_leaves_nothing(cache: PlanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        cache.store(KEY, b"native code")
    assert not list(cache.folder.iterdir())
