"""Print what `atomid-live ... --publish tcp://127.0.0.1:5556` finds: needs numpy and pyzmq only."""

import json
import sys

import numpy as np
import zmq


def main(address: str = "tcp://127.0.0.1:5556", count: int = 0) -> None:
    """Print a line per result; stops after `count` results, 0 for never."""
    socket = zmq.Context.instance().socket(zmq.SUB)
    socket.connect(address)
    socket.subscribe(b"atomid.result")
    number = 0
    while count == 0 or number < count:
        _, text, *parts = socket.recv_multipart()
        header = json.loads(text)
        arrays = {
            entry["name"]: np.frombuffer(part, "<f8").reshape(entry["shape"])
            for entry, part in zip(header["arrays"], parts, strict=True)
        }
        print(header["sequence"], header["columns"], header["drift"]["total_xy_px"], arrays["xy_px"][:1], flush=True)
        number += 1
    socket.close()


if __name__ == "__main__":
    main(*sys.argv[1:2])
