"""What the documents say is run: the README's Python, the examples, and the links between pages."""

from __future__ import annotations

import importlib.util
import re
import threading
from pathlib import Path
from types import ModuleType

import pytest
import zmq

from atomid_live import run
from atomid_live.assemble import Prepared
from atomid_live.settings import resolve
from atomid_live.simulate.acquire import Session
from atomid_live.simulate.files import write_frame
from atomid_live.simulate.scenario import Scenario

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It finds the columns of a frame that lies where it says."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    scenario = Scenario(crystal="res2", shape=(320, 384), frames=1, seed=2, contamination_e=0.0)
    write_frame(tmp_path / "frame.emd", scenario, Session(scenario).frame(0))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    count, words = capsys.readouterr().out.split(" ", 1)
    assert int(count) > 100 and words.startswith("columns; drift")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link and picture exists."""
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


def _example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _free_port() -> int:
    socket = zmq.Context.instance().socket(zmq.PUB)
    port: int = socket.bind_to_random_port("tcp://127.0.0.1")
    socket.close(0)
    return port


def test_the_sender_feeds_the_listener_and_the_subscriber_hears_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both examples beside a real session: frames in, results out."""
    frames_in, results_out = (f"tcp://127.0.0.1:{_free_port()}" for _ in range(2))
    given = {"detect.model": "dog", "output.publish": results_out, "output.display": ("none",), "output.out": tmp_path}
    settings, origins = resolve(None, {**given, "output.annotate": "none", "source.max_frames": 3, "source.until_idle_s": 30.0})
    built = Prepared(settings, origins).listen(frames_in, insecure=False)
    hearing = threading.Thread(target=_example("print_results").main, args=(results_out, 1), daemon=True)
    hearing.start()
    sending = threading.Thread(target=_example("send_frames").main, args=(frames_in, 12, 0.3), daemon=True)
    sending.start()
    assert run.execute(built, settings) == 0
    hearing.join(20)
    sending.join(20)
    assert not hearing.is_alive() and not sending.is_alive()
    words = capsys.readouterr().out.split()
    assert int(words[1]) > 500
    assert built.session.counts["processed"] == 3
