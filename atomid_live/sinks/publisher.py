"""Results for other programs on a ZMQ PUB socket: a courtesy that never blocks and is never waited for."""

from __future__ import annotations

import uuid

import zmq

from atomid_live.errors import UsageError
from atomid_live.types import Frame, Result
from atomid_live.wire import encode_advice, encode_result


class Publisher:
    """Sink that publishes each result; subscribers that are slow miss some (see `docs/stream-protocol.md`).

    Parameters
    ----------
    address : str
        Where to bind, e.g. ``tcp://127.0.0.1:5556``; only this machine's loopback is accepted.
    advise : bool
        Also publish, after each result, by how much the scan would have to follow the specimen.
    """

    def __init__(self, address: str, advise: bool = False) -> None:
        self._advise = advise
        if not address.startswith(("tcp://127.0.0.1:", "tcp://localhost:", "ipc://", "inproc://")):
            raise UsageError(f"--publish {address}: results are published on this machine only, e.g. tcp://127.0.0.1:5556")
        self.session = uuid.uuid4().hex
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUB)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.SNDHWM, 4)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self._socket.close()
            raise UsageError(f"--publish {address}: {error}; choose another port") from error

    @property
    def endpoint(self) -> str:
        """Address actually bound (tells the port when it was chosen by the system)."""
        return self._socket.get_string(zmq.LAST_ENDPOINT)

    def write(self, frame: Frame, result: Result) -> None:
        """Send one result without waiting."""
        self._socket.send_multipart(encode_result(result, self.session), flags=zmq.NOBLOCK)
        if self._advise:
            self._socket.send_multipart(encode_advice(result, self.session), flags=zmq.NOBLOCK)

    def close(self) -> None:
        """Release the port."""
        self._socket.close()
