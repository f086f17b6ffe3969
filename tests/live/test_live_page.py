"""The page and its websocket: what is new, to whoever may see it; and runs as its source."""

import json
import socket
from queue import SimpleQueue
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest

from jaxptycho.live.pictures import LiveImage
from jaxptycho.live.snapshot import Snapshot, grey_range, png_of
from jaxptycho.live.watch import WatchedRun, history_of, run_line, run_status

STATUS = {"frames": 9, "arrived": np.int64(4), "rate": float("nan"), "over": False, "note": ""}
FLAT = LiveImage(np.full((4, 5), np.nan), "rad", "Phase")
RAMP = LiveImage(np.arange(20.0).reshape(4, 5), "counts", "Bright field")


@pytest.fixture
def served():
    """Modules of the page, or the test is skipped where the extra is not installed."""
    for module in ("starlette", "uvicorn", "websockets"):
        pytest.importorskip(module)
    from websockets.sync.client import connect

    from jaxptycho.live import page

    return page, connect


def snapshot(**pictures):
    return Snapshot("scan", STATUS, {"defocus": "150 ± 2 Å"}, pictures, (2.0, 2.5, 1.0))


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:websockets|uvicorn")
def test_a_browser_gets_news_and_is_heard(served):
    page, connect = served
    feed = page.Feed()
    asked = SimpleQueue()
    feed.put(snapshot(phase=FLAT).message())
    with page.Page(feed, asked.put) as shown:
        assert b"<title>jaxptycho</title>" in urlopen(shown.url).read()
        with connect(f"ws://127.0.0.1:{shown.port}/feed") as link:
            first = json.loads(link.recv(5))
            feed.put(snapshot(bright_field=RAMP).message())
            second = json.loads(link.recv(5))
            link.send("no json")
            link.send(json.dumps({"do": "refocus", "defocus": -3.0}))
            assert asked.get(timeout=5) == {"do": "refocus", "defocus": -3.0}
    assert first["status"] == {"frames": 9, "arrived": 4, "rate": None, "over": False, "note": ""}
    assert set(first["pictures"]) == {"phase"}
    assert set(second["pictures"]) == {"bright_field"}
    assert second["disc"] == [2.0, 2.5, 1.0]


def test_a_late_browser_gets_all_pictures_and_another_series_none():
    from jaxptycho.live.page import Feed

    feed = Feed()
    feed.put(snapshot(phase=FLAT).message())
    feed.put(snapshot(bright_field=RAMP).message())
    version, message = feed.since(0)
    assert message is not None
    assert set(message["pictures"]) == {"phase", "bright_field"}
    assert feed.since(version) == (version, None)
    feed.put(Snapshot("next", STATUS).message())
    assert feed.since(0)[1]["pictures"] == {}


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:websockets|uvicorn")
def test_others_require_the_token(served):
    page, connect = served
    from websockets.exceptions import InvalidStatus

    with page.Page(page.Feed(), print, "0.0.0.0") as shown:
        assert shown.token in shown.url
        local = f"127.0.0.1:{shown.port}"
        with pytest.raises(HTTPError, match="403"):
            urlopen(f"http://{local}/?token=guess")
        with pytest.raises(InvalidStatus, match="403"):
            connect(f"ws://{local}/feed")
        with pytest.raises(InvalidStatus, match="403"):
            connect(f"ws://{local}/feed?token={shown.token}", origin="http://elsewhere")
        with connect(f"ws://{local}/feed?token={shown.token}", origin=f"http://{local}"):
            pass


def test_a_port_in_use_is_told(served):
    page, _ = served
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ValueError, match="cannot be opened"):
            page.Page(page.Feed(), print, "127.0.0.1", port)


def test_pictures_of_any_values_are_png():
    for image in (FLAT, RAMP, LiveImage(np.zeros((2, 2)), "", "")):
        assert png_of("mean_pattern", image).startswith(b"\x89PNG")
    assert grey_range(FLAT.image) == (0.0, 1.0)


def test_a_run_is_a_source_of_the_page(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises(ValueError, match="is no run"):
        WatchedRun(folder)
    (folder / "run.toml").write_text("[[step]]\nkind = 'refine'\nepochs = 10\n")
    run = WatchedRun(folder)
    assert run.news()["status"]["note"] == "before the first epoch"
    assert run.news() is None
    rows = "epoch,step,loss,held_out,seconds\n1,refine,5.0,,2.0\n2,refine,3.0,4.0,4.0\n"
    (folder / "history.csv").write_text(rows)
    (folder / "figures").mkdir()
    (folder / "figures" / "phase.png").write_bytes(png_of("phase", RAMP))
    news = run.news()
    assert news["status"]["minutes_left_at_most"] == pytest.approx(8 * 3 / 60)
    assert news["curves"]["losses"]["lines"][1]["y"] == [None, 4.0]
    assert set(news["pictures"]) == {"phase"}
    line = run_line(run_status(folder, history_of(folder / "history.csv")))
    assert line == "epoch 2 of at most 10, loss 3, held-out 4, at most 0.4 min left"
