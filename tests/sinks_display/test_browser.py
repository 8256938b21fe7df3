"""The page's server over a real socket: what it tells, whom it refuses, and that it never outlives or holds up a session."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from typing import Any

import cv2
import numpy as np
import pytest
from display_scenes import COLS, DRIFT_YX_PX, PIXEL_NM, ROWS, history, snapshot, status

from atomid_live.sinks.browser import message
from atomid_live.sinks.browser.server import CLIENTS, BrowserDisplay
from atomid_live.sinks.view import Snapshot
from atomid_live.types import NAN


class Source:
    """Hands out one snapshot, and counts how often it was asked."""

    def __init__(self, shown: Snapshot) -> None:
        self.shown, self.asked = shown, 0

    def snapshot(self, *, preview: bool = False) -> Snapshot:
        self.asked += 1
        return self.shown if preview else replace(self.shown, preview=None)


@pytest.fixture(scope="module")
def shot() -> Snapshot:
    """A session of 41 frames."""
    return snapshot(40, picture=True)


@pytest.fixture
def display(shot: Snapshot) -> Iterator[BrowserDisplay]:
    """A server on any free port."""
    served = BrowserDisplay(Source(shot), port=0)
    assert served.start() == ""
    yield served
    served.close()


def port_of(display: BrowserDisplay) -> int:
    return int(display.address.rsplit(":", 1)[1].strip("/"))


def ask(display: BrowserDisplay, path: str, method: str = "GET", host: str = "") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(display), timeout=10)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def test_state_tells_the_newest_frame_with_its_errors(display: BrowserDisplay, shot: Snapshot) -> None:
    """Numbers of known truth: the scene's drift in nm, its strain in % with the standard error."""
    code, headers, body = ask(display, "/state.json")
    told = json.loads(body)
    assert (code, headers["Content-Type"]) == (200, "application/json")
    assert shot.latest is not None
    assert (told["frame"]["sequence"], told["frame"]["columns"]) == (40, len(shot.latest.detections))
    assert (told["frame"]["width_px"], told["frame"]["height_px"]) == (COLS, ROWS)
    assert told["drift"]["unit"] == "nm"
    assert told["drift"]["y"][40] == pytest.approx(40 * DRIFT_YX_PX[0] * PIXEL_NM, abs=1e-6)
    assert told["drift"]["sigma_x"] == pytest.approx(0.05 * PIXEL_NM, abs=1e-6)
    assert told["strain"]["hydrostatic"][0] is None  # the reference was pending
    assert told["strain"]["hydrostatic"][40] == pytest.approx(0.12, abs=0.011)
    assert told["strain"]["sem"][40] == pytest.approx(0.03)
    assert [verdict["title"] for verdict in told["verdicts"]] == ["FRAMES", "DRIFT", "STRAIN", "COLUMNS"]
    assert told["received"] == sum(told["counts"].values())


def test_columns_and_picture_belong_to_the_frame_of_the_state(display: BrowserDisplay, shot: Snapshot) -> None:
    """And those of another frame are refused rather than mixed."""
    sequence = json.loads(ask(display, "/state.json")[2])["frame"]["sequence"]
    code, _, body = ask(display, f"/columns/{sequence}.f32")
    assert code == 200
    table = np.frombuffer(body, "<f4").reshape(-1, 4)
    assert shot.latest is not None
    np.testing.assert_allclose(table[:, 1::-1], shot.latest.detections.yx_px, atol=1e-3)
    np.testing.assert_allclose(table[:, 3], 100 * shot.latest.strain.hydrostatic, atol=1e-5)
    code, headers, body = ask(display, f"/frame/{sequence}.jpg")
    picture = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert (code, headers["Content-Type"]) == (200, "image/jpeg")
    assert shot.preview is not None
    assert picture.shape == shot.preview.shape
    assert np.abs(picture.astype(float) - shot.preview).mean() < 12
    for gone in (f"/columns/{sequence - 1}.f32", f"/frame/{sequence + 1}.jpg", "/frame/../page.js", "/etc/passwd", "/page.py"):
        assert ask(display, gone)[0] == 404


def test_page_loads_nothing_from_outside_and_writes_no_markup(display: BrowserDisplay) -> None:
    """Foreign words go in as text; the browser itself is told to refuse anything else."""
    for path in ("/", "/page.js", "/page.css"):
        code, headers, body = ask(display, path)
        assert code == 200
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
        assert b"//" not in body.replace(b"// ", b"")
        for unsafe in (b"innerHTML", b"outerHTML", b"insertAdjacent", b"document.write", b"eval("):
            assert unsafe not in body


def test_hostile_names_stay_within_their_strings(shot: Snapshot) -> None:
    """Markup is kept as it is, for the page to show as text; control characters are gone."""
    bad = 'a</script><img src=x onerror="alert(1)">\x1b[2J\u202e.emd'
    points = (*shot.history[:-1], replace(shot.history[-1], source=bad))
    told = json.loads(message.state_json(replace(shot, history=points)))
    assert "</script>" in told["frame"]["file"] or "img src" in told["frame"]["file"]
    assert not set("\x1b\u202e") & set(told["frame"]["file"])


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(display: BrowserDisplay, method: str) -> None:
    """Looking is all that a page can do."""
    assert ask(display, "/state.json", method)[0] == 501


def test_only_this_pc_is_served(display: BrowserDisplay) -> None:
    """Loopback only, and not under another site's name."""
    assert display.address.startswith("http://127.0.0.1:")
    for host in ("evil.example", f"evil.example:{port_of(display)}", "127.0.0.1"):
        assert ask(display, "/state.json", host=host)[0] == 403
    assert ask(display, "/state.json", host=f"localhost:{port_of(display)}")[0] == 200


def test_many_pages_cost_the_session_one_snapshot(shot: Snapshot) -> None:
    """A quarter of a second's requests share it."""
    source = Source(shot)
    display = BrowserDisplay(source, port=0)
    display.start()
    begun = time.monotonic()
    for _ in range(10):
        assert ask(display, "/state.json")[0] == 200
    assert source.asked <= 2 + 4 * (time.monotonic() - begun)
    display.close()


def test_stuck_clients_take_few_places_and_do_not_hold_up_the_end(shot: Snapshot) -> None:
    """Beyond eight they are hung up on; closing waits for none of them, and may be done twice."""
    display = BrowserDisplay(Source(shot), port=0)
    display.start()
    stuck = [socket.create_connection(("127.0.0.1", port_of(display)), timeout=10) for _ in range(CLIENTS)]
    until = time.monotonic() + 10
    refused = False
    while not refused and time.monotonic() < until:
        try:
            ask(display, "/state.json")
        except (http.client.HTTPException, OSError):
            refused = True
    assert refused
    begun, port = time.monotonic(), port_of(display)
    display.close()
    display.close()
    assert time.monotonic() - begun < 4
    with pytest.raises(OSError, match=r"refused|reset"):
        socket.create_connection(("127.0.0.1", port), timeout=2).recv(1)
    for one in stuck:
        one.close()


def test_a_taken_port_makes_way_for_a_free_one(display: BrowserDisplay, shot: Snapshot) -> None:
    """Two sessions on one PC."""
    other = BrowserDisplay(Source(shot), port=port_of(display))
    assert other.start() == ""
    assert port_of(other) != port_of(display)
    assert ask(other, "/")[0] == 200
    other.close()


def test_before_the_first_frame_and_without_scale() -> None:
    """Nothing yet is null; without a pixel size lengths are in px; unknown numbers are null, never NaN."""
    from atomid_live.sinks.view import History

    empty = History().snapshot(status(0))
    told: dict[str, Any] = json.loads(message.state_json(empty))
    assert (told["frame"], message.columns_bytes(empty), message.preview_jpeg(empty)) == (None, b"", b"")
    bare = history(8, calibrated=False).snapshot(status(8, latency_p50_ms=NAN))
    told = json.loads(message.state_json(bare))
    assert (told["drift"]["unit"], told["frame"]["pixel_x_nm"], told["latency_ms"][0]) == ("px", None, None)
    assert told["drift"]["speed"].endswith("px/min")
    assert told["drift"]["y"][7] == pytest.approx(7 * DRIFT_YX_PX[0])


def test_very_many_columns_are_thinned_and_counted(shot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page says how many of them it draws."""
    monkeypatch.setattr(message, "MOST_COLUMNS", 500)
    sent = json.loads(message.state_json(shot))["frame"]["columns_sent"]
    assert 250 <= sent <= 500
    assert len(message.columns_bytes(shot)) == 16 * sent


def test_the_page_is_part_of_the_package() -> None:
    """An installed program finds it."""
    names = {item.name for item in resources.files("atomid_live.sinks.browser").iterdir()}
    assert {"page.html", "page.js", "page.css"} <= names
