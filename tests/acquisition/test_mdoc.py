"""Metadata of tilt series as SerialEM writes them: read, written, and read again."""

import numpy as np
import pytest

from jaxptycho.acquisition import read_mdoc, read_tilt_log, write_mdoc
from jaxptycho.acquisition.mdoc import mdoc_text, parse_mdoc

TEXT = """PixelSpacing = 1.94
Voltage = 300
ImageFile = a = b.mrc

[T = SerialEM: somewhere   01-Aug-2022  18:58:31]

[T =     Tilt axis angle = 83.8, binning = 1  spot = 10  camera = 1]

[ZValue = 0]
TiltAngle = 0.01
ImageShift = 8.5 8.6
SubFramePath = \\\\host\\frames\\a_000.mrc
DateTime = 01-Aug-2022  18:58:35

[ZValue = 1]
TiltAngle = 3.02
ImageShift = 8.4 8.7
DateTime = 01-Aug-22  19:00:05
Note =
"""
LOGS = (
    "aretomo3_L1_ts_001.mrc.mdoc",
    "aretomo3_L1_tgt_001.mrc.mdoc",
    "murfey_chrom_07_ts_010_first11.mdoc",
    "mdocfile_EMPIAR10164_TS_01.mdoc",
)


def lines(text):
    """Lines with something in them, blanks around them and before brackets apart."""
    stripped = [line.strip().replace(" ]", "]").rstrip("]").rstrip() for line in text.splitlines()]
    return [line for line in stripped if line]


def test_every_key_is_read_as_it_is():
    mdoc = parse_mdoc(TEXT)
    assert mdoc.header == {"PixelSpacing": "1.94", "Voltage": "300", "ImageFile": "a = b.mrc"}
    assert [title[:6] for title in mdoc.titles] == ["T = Se", "T =   "]
    assert mdoc.images[0]["SubFramePath"] == r"\\host\frames\a_000.mrc"
    assert mdoc.images[1]["Note"] == ""
    np.testing.assert_allclose(mdoc.numbers("ImageShift", 2), [[8.5, 8.6], [8.4, 8.7]])
    assert np.isnan(mdoc.numbers("SubFramePath")).all()
    np.testing.assert_allclose(mdoc.seconds(), [0.0, 90.0])


def test_what_is_written_is_what_was_read(tmp_path):
    mdoc = parse_mdoc(TEXT)
    write_mdoc(tmp_path / "a.mdoc", mdoc)
    write_mdoc(tmp_path / "a.mdoc", mdoc)  # replaced as a whole
    assert read_mdoc(tmp_path / "a.mdoc") == mdoc
    assert [path.name for path in tmp_path.iterdir()] == ["a.mdoc"]


@pytest.mark.parametrize("name", LOGS)
def test_recorded_logs_are_written_line_by_line(data_dir, name):
    path = data_dir(f"tilt_logs/{name}")
    text = path.read_text()
    assert lines(mdoc_text(read_mdoc(path))) == lines(text)


def test_tilts_are_in_the_order_of_their_times(tmp_path):
    first, second = TEXT.split("[ZValue = 0]\n")[1].split("[ZValue = 1]\n")
    path = tmp_path / "sorted.mdoc"
    path.write_text(f"[ZValue = 0]\n{second}\n[ZValue = 1]\n{first}")
    log = read_tilt_log(path)
    np.testing.assert_allclose(np.rad2deg(log.angle), [0.01, 3.02])
    np.testing.assert_allclose(log.time, [0.0, 90.0])


def test_a_file_without_images_is_refused(tmp_path):
    (tmp_path / "a.mdoc").write_text("PixelSpacing = 1.94\n")
    with pytest.raises(ValueError, match=r"has no image; a text file with sections \[ZValue"):
        read_mdoc(tmp_path / "a.mdoc")
