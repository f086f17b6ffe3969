"""Work done ahead by a thread."""

import queue
import threading
from collections.abc import Generator, Iterable


def prefetch(items: Iterable, depth: int = 2) -> Generator:
    """The same items, made ahead by a thread while the device computes."""
    ready: queue.Queue = queue.Queue(depth)
    done, stop = object(), threading.Event()

    def put(item) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work():
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((done, None))
        except BaseException as error:  # handed to the reader, who raises it
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
