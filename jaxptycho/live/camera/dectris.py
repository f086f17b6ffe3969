"""Streams V1 and V2 of the cameras of DECTRIS (`live.sources.dectris`), without compression."""

import json
from hashlib import md5
from typing import Any

import numpy as np

from ...io.stream import Series
from ..extra import require_extra
from ..listening import unavailable
from ..sources.dectris import ARRAY, QUEUE, TYPED
from .transport import AbstractTransport

LINGER_MS = 10_000  # for what is still queued when the camera closes
CAMERA = "DECTRIS ARINA (simulated)"


class Pusher:
    """ZeroMQ socket that pushes messages to whoever pulls."""

    def __init__(self, host: str, port: int):
        zmq = require_extra("zmq", "a camera of DECTRIS")
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.PUSH)
        self.socket.linger = LINGER_MS
        self.socket.set_hwm(QUEUE)
        try:
            self.socket.bind(f"tcp://{host}:{port}")
        except zmq.ZMQError as error:
            self.socket.close()
            self.context.term()
            raise unavailable(host, port, error.strerror) from None
        self.port = int(self.socket.last_endpoint.rpartition(b":")[2])

    def wait(self) -> None:
        """Wait until somebody pulls."""
        zmq = require_extra("zmq", "a camera of DECTRIS")
        while not self.socket.poll(50, zmq.POLLOUT):
            pass

    def send(self, *parts: bytes) -> None:
        """Push one message."""
        self.socket.send_multipart(parts, copy=True)

    def close(self) -> None:
        """Close once all is sent."""
        self.socket.close()
        self.context.term()


class DectrisV2(AbstractTransport):
    """Camera that pushes CBOR."""

    def __init__(self, host: str, port: int):
        self.cbor2 = require_extra("cbor2", "a camera of DECTRIS")
        self.pusher = Pusher(host, port)
        self.port = self.pusher.port
        self.tags = {np.dtype(kind): tag for tag, kind in TYPED.items()}

    def wait(self) -> None:
        self.pusher.wait()

    def begin(self, series: Series) -> None:
        y, x = series.shape
        self._send(
            series,
            type="start",
            number_of_images=series.frames,
            image_size_x=x,
            image_size_y=y,
            image_dtype=series.dtype.name,
            channels=["0"],
            detector_description=CAMERA,
            incident_energy=1e3 * series.about.get("voltage_kv", 0.0),
            count_time=1e-3,
        )

    def send(self, series: Series, numbers: np.ndarray, frames: np.ndarray) -> int:
        tag = self.cbor2.CBORTag
        for number, frame in zip(numbers, frames, strict=True):
            typed = tag(self.tags[series.dtype], np.ascontiguousarray(frame).tobytes())
            data = {"0": tag(ARRAY, [list(series.shape), typed])}
            self._send(series, type="image", image_id=int(number), data=data)
        return len(numbers)

    def end(self, series: Series) -> None:
        self._send(series, type="end")

    def close(self) -> None:
        self.pusher.close()

    def _send(self, series: Series, **fields: Any) -> None:
        named = {"series_id": 1, "series_unique_id": series.name}
        self.pusher.send(self.cbor2.dumps(fields | named))


class DectrisV1(AbstractTransport):
    """Camera that pushes JSON with patterns behind it."""

    def __init__(self, host: str, port: int):
        self.pusher = Pusher(host, port)
        self.port = self.pusher.port
        self.series = 0

    def wait(self) -> None:
        self.pusher.wait()

    def begin(self, series: Series) -> None:
        self.series += 1
        y, x = series.shape
        settings = {
            "description": CAMERA,
            "nimages": series.frames,
            "ntrigger": 1,
            "trigger_mode": "exts",
            "x_pixels_in_detector": x,
            "y_pixels_in_detector": y,
            "bit_depth_image": 8 * series.dtype.itemsize,
            "photon_energy": 1e3 * series.about.get("voltage_kv", 0.0),
            "count_time": 1e-3,
        }
        self.pusher.send(self._part("dheader-1.0", header_detail="basic"), _json(settings))

    def send(self, series: Series, numbers: np.ndarray, frames: np.ndarray) -> int:
        y, x = series.shape
        described = {"shape": [x, y], "type": series.dtype.name, "encoding": "<"}
        for number, frame in zip(numbers, frames, strict=True):
            data = np.ascontiguousarray(frame).tobytes()
            self.pusher.send(
                self._part("dimage-1.0", frame=int(number), hash=md5(data).hexdigest()),
                _json({"htype": "dimage_d-1.0", "size": len(data)} | described),
                data,
                _json({"htype": "dconfig-1.0", "start_time": 0, "stop_time": 0, "real_time": 0}),
            )
        return len(numbers)

    def end(self, series: Series) -> None:
        self.pusher.send(self._part("dseries_end-1.0"))

    def close(self) -> None:
        self.pusher.close()

    def _part(self, kind: str, **fields: Any) -> bytes:
        return _json({"htype": kind, "series": self.series} | fields)


def _json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()
