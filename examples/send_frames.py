"""Send frames to `atomid-live listen tcp://127.0.0.1:5555`: needs numpy and pyzmq only."""

import json
import sys
import time

import numpy as np
import zmq


def main(address: str = "tcp://127.0.0.1:5555", count: int = 10, pace_s: float = 1.0) -> None:
    """Publish `count` frames of a square lattice that moves two pixels to the right each time."""
    socket = zmq.Context.instance().socket(zmq.PUB)
    socket.bind(address)
    time.sleep(1.0)  # a subscriber that connects later misses what was sent before
    y, x = np.mgrid[0:512, 0:640]
    for number in range(count):
        pattern = np.cos(2 * np.pi * (x - 2 * number) / 20) + np.cos(2 * np.pi * y / 20)
        pixels = np.random.default_rng(number).poisson(20 * np.exp(pattern)).astype("<u2")
        header = {"htype": "array-1.0", "type": "uint16", "shape": pixels.shape, "frame": number, "timeStamp": time.time()}
        header |= {"source": "HAADF", "x-atomid": {"pixel_size_m": [1.5e-11, 1.5e-11]}}
        socket.send_multipart([json.dumps(header).encode(), pixels.tobytes()])
        time.sleep(pace_s)
    socket.close(linger=500)


if __name__ == "__main__":
    main(*sys.argv[1:2])
