"""The server behind `--display browser`: loopback only, a few clients at a time, snapshots pulled when a page asks.

The page polls. Every answer is made in the server's threads from one snapshot that all clients share for a quarter of a
second, so that neither many pages nor a stuck one cost the session more.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from threading import BoundedSemaphore, Lock, Thread
from typing import Any

from atomid_live.sinks.browser.message import columns_bytes, preview_jpeg, state_json
from atomid_live.sinks.view import Snapshot, SnapshotSource

log = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
PORT = 8710
CLIENTS = 8
_SHARED_S = 0.25
_SOCKET_S = 5.0
_LET_GO_S = 2.0
_STATIC = {"/": ("page.html", "text/html"), "/page.js": ("page.js", "text/javascript"), "/page.css": ("page.css", "text/css")}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(eq=False)
class _Shot:
    """One snapshot and what is made of it, each part once and only when asked for."""

    snapshot: Snapshot
    taken_s: float

    @property
    def sequence(self) -> int:
        """The frame it shows, -1 before the first."""
        return self.snapshot.latest.sequence if self.snapshot.latest is not None else -1

    @cached_property
    def state(self) -> bytes:
        return state_json(self.snapshot)

    @cached_property
    def columns(self) -> bytes:
        return columns_bytes(self.snapshot)

    @cached_property
    def jpeg(self) -> bytes:
        return preview_jpeg(self.snapshot)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = CLIENTS

    def __init__(self, source: SnapshotSource, port: int) -> None:
        super().__init__((ADDRESS, port), _Handler)
        self._source, self._lock = source, Lock()
        self._shot: _Shot | None = None
        self.places = BoundedSemaphore(CLIENTS)

    def shot(self, *, fresh: bool) -> _Shot:
        """The shared snapshot; `fresh` asks for one that is not older than a quarter of a second."""
        with self._lock:
            now = time.monotonic()
            if self._shot is None or (fresh and now - self._shot.taken_s > _SHARED_S):
                self._shot = _Shot(self._source.snapshot(preview=True), now)
            return self._shot

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve in a thread of its own, or hang up when all places are taken."""
        if not self.places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Give the place back, whatever happens."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A page that went away is no event; anything else is for the log, never for the screen."""
        log.debug("a browser's request ended early", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SOCKET_S
    server_version, sys_version = "atomid-live", ""

    def do_GET(self) -> None:  # the name is http.server's
        """Answer the few paths there are."""
        port = self.server.server_address[1]
        if self.headers.get("Host") not in (f"{ADDRESS}:{port}", f"localhost:{port}"):
            self._say(403, b"this page is served to this PC only", "text/plain")  # another site's name led here
            return
        path = self.path.partition("?")[0]
        if path in _STATIC:
            name, kind = _STATIC[path]
            self._say(200, resources.files(__package__).joinpath(name).read_bytes(), kind)
        elif path == "/state.json":
            self._say(200, self.server.shot(fresh=True).state, "application/json")
        else:
            self._part(path)

    def _part(self, path: str) -> None:
        """Picture or columns of the frame that the last state told of; of an older one they are gone."""
        shot = self.server.shot(fresh=False)
        parts = {f"/frame/{shot.sequence}.jpg": "image/jpeg", f"/columns/{shot.sequence}.f32": "application/octet-stream"}
        if path not in parts:
            self._say(404, b"not here, or of a frame that has passed", "text/plain")
            return
        self._say(200, shot.jpeg if path.endswith(".jpg") else shot.columns, parts[path])

    def _say(self, code: int, body: bytes, kind: str) -> None:
        self.send_response(code)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind if kind.startswith(("image", "application")) else f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are no news."""


class BrowserDisplay:
    """Serves the page until it is closed.

    Parameters
    ----------
    source : SnapshotSource
        The session.
    port : int
        Wanted port of 127.0.0.1; where it is taken, any free one.
    """

    def __init__(self, source: SnapshotSource, port: int = PORT) -> None:
        self._source, self._port = source, port
        self._server: _Server | None = None
        self._thread: Thread | None = None

    def start(self) -> str:
        """Begin to serve; returns "" or, in words, why not."""
        for port in (self._port, 0):
            try:
                self._server = _Server(self._source, port)
                break
            except OSError as error:
                problem = f"no port of {ADDRESS} can be opened: {error.strerror or error}"
        if self._server is None:
            return problem
        self._thread = Thread(target=self._server.serve_forever, args=(0.1,), name="browser", daemon=True)
        self._thread.start()
        return ""

    @property
    def address(self) -> str:
        """Where the page is."""
        return "" if self._server is None else f"http://{ADDRESS}:{self._server.server_address[1]}/"

    def close(self) -> None:
        """Stop serving; may be called twice, and waits for no page."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(_LET_GO_S)
            self._thread = None
