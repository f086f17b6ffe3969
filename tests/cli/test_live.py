"""`jaxptycho live` and `camera`: what cannot work is told in one sentence, with exit code 2."""

import socket
import threading

import numpy as np
import pytest
from typer.testing import CliRunner

from jaxptycho.cli import main as cli
from jaxptycho.cli.live import split_given
from jaxptycho.io.readers.stream import read_records
from jaxptycho.io.stream import Series


def ended(*words):
    """Exit code and error of a command."""
    result = CliRunner().invoke(cli.app, [str(w) for w in words])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("live", "ftp://here:1"), "no camera speaks 'ftp'"),
        (("live", "plain://:9"), "scheme://host:port is required"),
        (("live", "plain://here:9", "--policy", "all"), "known are spill, block, newest"),
        (("live", "plain://here:9", "--set", "scan_shape=64,64"), "--set scan_shape=[64,64]"),
        (("live", "plain://here:9", "--set", "voltage=300"), "no property of a dataset"),
        (("live", "plain://here:9", "--set", "rotation_deg=inf"), "a number of degrees"),
        (("live", "plain://here:9", "--set", "scan_order=spiral"), "raster or serpentine"),
        (("camera", "nothing.h5", "--protocol", "usb"), "known are plain, merlin"),
        (("camera", "nothing.h5", "--drop", "2"), "drop from 0 to 1"),
        (("camera", "nothing.h5"), "nothing.h5"),
        (("watch", "nothing"), "does not exist"),
    ],
)
def test_what_cannot_work_is_told(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, output = ended(*words)
    assert code == 2
    assert said in output
    assert not list(tmp_path.iterdir())


def test_what_is_given_is_sorted():
    given, layout = split_given({"scan_shape": [4, 5], "rotation_deg": 3.0, "voltage_kv": 80.0})
    assert given == {"scan_shape": [4, 5], "voltage_kv": 80.0}
    assert layout == {"rotation_deg": 3.0}


@pytest.mark.slow
def test_a_camera_that_breaks_ends_with_what_had_come(tmp_path):
    series = Series("cut", 50, (6, 8), np.dtype("u2"))
    records = np.zeros(30, series.record)
    records["number"] = np.arange(30)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            client, _ = server.accept()
            with client:
                client.sendall(series.header() + records.tobytes()[:-5])

        threading.Thread(target=serve, daemon=True).start()
        address = f"plain://127.0.0.1:{server.getsockname()[1]}"
        out = tmp_path / "out"
        code, output = ended("live", address, "--headless", "--out", out, "--timeout", "60")
    assert code == 2
    assert "closed the connection before the end" in output
    assert len(read_records(out / "series-000.stream")[1]) == 29
