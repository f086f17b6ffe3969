"""Prefetching by a thread."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any


def prefetch(items: Iterable, depth: int = 2) -> Generator:
    """The same items, computed in advance by a thread while the device works."""
    ready: queue.Queue = queue.Queue(depth)
    done = object()
    stop = threading.Event()

    def put(item: Any) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((done, None))
        except BaseException as error:  # raised again in the reader
            put((done, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is done:
                return
            yield item
    finally:
        stop.set()
