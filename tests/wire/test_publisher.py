"""The result publisher, heard by a real subscriber."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zmq

from atomid_live.errors import UsageError
from atomid_live.sinks.publisher import Publisher
from atomid_live.types import Detections, Frame, Origin, Result


def test_a_subscriber_gets_every_array_of_a_result() -> None:
    """Topic, header, then the arrays named in it."""
    publisher = Publisher("tcp://127.0.0.1:*")
    subscriber = zmq.Context.instance().socket(zmq.SUB)
    subscriber.connect(publisher.endpoint)
    subscriber.subscribe(b"atomid.result")
    frame = Frame(4, np.zeros((6, 8), np.uint8), 0.0, Origin("x"))
    result = Result(4, (6, 8), 0.0, "arrival", Origin("x"), Detections.empty())
    try:
        for _ in range(100):  # a subscription takes a moment to reach the publisher
            publisher.write(frame, result)
            if subscriber.poll(50):
                break
        parts = subscriber.recv_multipart()
    finally:
        subscriber.close(0)
        publisher.close()
    header = json.loads(parts[1])
    assert header["sequence"] == 4 and header["session"] == publisher.session
    assert len(parts) == 2 + len(header["arrays"])


def test_results_are_not_published_to_the_network() -> None:
    """Binding to every interface would hand the session to anyone."""
    with pytest.raises(UsageError, match="this machine only"):
        Publisher("tcp://0.0.0.0:5556")


def test_a_taken_port_is_named() -> None:
    """The next step is in the message."""
    first = Publisher("tcp://127.0.0.1:*")
    try:
        with pytest.raises(UsageError, match="another port"):
            Publisher(first.endpoint)
    finally:
        first.close()
