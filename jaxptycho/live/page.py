"""Page in the browser: one HTML file and one websocket, from a server in a thread.

Whoever looks gets the newest state when it is ready for it, so that a slow browser delays nobody.
"""

import asyncio
import json
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import resources
from types import TracebackType
from typing import Any

from .extra import require_extra
from .listening import listening_socket

PERIOD_S = 0.05  # between two looks for news
LOCAL = ("127.0.0.1", "localhost", "::1")
REQUEST_BYTES = 4096


class Feed:
    """Newest state of what is shown; other threads put it here."""

    def __init__(self):
        self._lock = threading.Lock()
        self._version = 0
        self._plain: dict[str, Any] = {}
        self._pictures: dict[str, tuple[int, Any]] = {}

    def put(self, message: dict[str, Any]) -> None:
        """Replace the state; pictures that are not in `message` stay."""
        with self._lock:
            self._version += 1
            if message.get("series") != self._plain.get("series"):
                self._pictures = {}
            self._plain = {name: value for name, value in message.items() if name != "pictures"}
            for name, picture in message.get("pictures", {}).items():
                self._pictures[name] = (self._version, picture)

    def since(self, version: int) -> tuple[int, dict[str, Any] | None]:
        """Newest version, and what is new since another one; None where nothing is."""
        with self._lock:
            if version == self._version:
                return version, None
            fresh = {n: p for n, (since, p) in self._pictures.items() if since > version}
            return self._version, self._plain | {"pictures": fresh}


class Page:
    """Server of the page at `url`; requests of the browser go to `ask`.

    Beyond this machine a token is required, which is part of the url.
    """

    def __init__(
        self,
        feed: Feed,
        ask: Callable[[dict[str, Any]], None],
        host: str = "127.0.0.1",
        port: int = 0,
    ):
        uvicorn = require_extra("uvicorn", "the page")
        require_extra("websockets", "the page")
        self.token = "" if host in LOCAL else secrets.token_urlsafe(16)
        app = application(feed, ask, self.token)
        self._socket = listening_socket(host, port)
        self.port = self._socket.getsockname()[1]
        self.url = f"http://{host}:{self.port}/" + (f"?token={self.token}" if self.token else "")
        settings = {"log_level": "error", "lifespan": "off", "timeout_graceful_shutdown": 1}
        self._server = uvicorn.Server(uvicorn.Config(app, ws="websockets-sansio", **settings))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(5)
        self._socket.close()


def application(feed: Feed, ask: Callable[[dict[str, Any]], None], token: str) -> Any:
    """ASGI application of the page: `/`, and its websocket `/feed`."""
    starlette = require_extra("starlette.applications", "the page")
    routing = require_extra("starlette.routing", "the page")
    responses = require_extra("starlette.responses", "the page")
    html = resources.files("jaxptycho.live").joinpath("page.html").read_text(encoding="utf-8")

    def allowed(link: Any) -> bool:
        """True for a page of this server, with its token."""
        given = link.query_params.get("token", "")
        origin = link.headers.get("origin")
        same = origin is None or origin.partition("://")[2] == link.headers.get("host")
        return same and secrets.compare_digest(given, token)

    async def page(request: Any) -> Any:
        if not allowed(request):
            return responses.PlainTextResponse("a token is required: ?token=…", 403)
        return responses.HTMLResponse(html)

    async def news(link: Any) -> None:
        if not allowed(link):
            await link.close(1008)
            return
        await link.accept()
        both = asyncio.gather(_tell(link, feed), _listen(link, ask))
        with suppress(Exception):  # the browser has left
            await both
        both.cancel()

    return starlette.Starlette(
        routes=[routing.Route("/", page), routing.WebSocketRoute("/feed", news)]
    )


async def _tell(link: Any, feed: Feed) -> None:
    """Send what is new, when the browser has taken what came before."""
    version = 0
    while True:
        version, message = feed.since(version)
        if message is not None:
            await link.send_text(json.dumps(message))
        await asyncio.sleep(PERIOD_S)


async def _listen(link: Any, ask: Callable[[dict[str, Any]], None]) -> None:
    """Hand on requests; those that are no JSON objects are passed over."""
    while True:
        text = await link.receive_text()
        with suppress(ValueError):
            request = json.loads(text[:REQUEST_BYTES])
            if isinstance(request, dict):
                ask(request)
