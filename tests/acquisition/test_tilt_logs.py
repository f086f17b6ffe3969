"""Tilt logs, the community rule and the replay of both predictors on recorded series."""

import numpy as np
import pytest

from jaxptycho.acquisition import CommunityRule, read_tilt_log, replay_filter, replay_rule

MDOC = """PixelSpacing = 1.94
[T = SerialEM: somewhere]

[ZValue = 0]
TiltAngle = 0.01
Defocus = -0.5
ImageShift = 8.5 8.6
SpecimenShift = -1.25 0.5
EucentricOffset = 0.0

[ZValue = 1]
TiltAngle = 3.02
Defocus = -0.75
ImageShift = 8.4 8.7
SpecimenShift = -1.5 0.625
EucentricOffset = 0.3

[ZValue = 2]
TiltAngle = -2.99
Defocus = -0.5
ImageShift = 8.4 8.7
SpecimenShift = -1.5 0.75
EucentricOffset = 0.4
"""


def test_mdoc_becomes_angstroms_and_radians(tmp_path):
    path = tmp_path / "series.mdoc"
    path.write_text(MDOC)
    log = read_tilt_log(path)
    np.testing.assert_allclose(np.rad2deg(log.angle), [0.01, 3.02, -2.99])
    np.testing.assert_allclose(log.shift, [[-12500, 5000], [-15000, 6250], [-15000, 7500]])
    np.testing.assert_allclose(log.defocus, [5000, 7500, 5000])
    np.testing.assert_allclose(log.height, [0, 3000, 4000])
    assert log.shift_is_of_specimen
    assert log.branch.tolist() == [0, 1, -1]
    assert np.rad2deg(log.increment) == pytest.approx(3.0)
    path.write_text(MDOC.replace("SpecimenShift", "Other"))
    log = read_tilt_log(path)
    assert not log.shift_is_of_specimen
    np.testing.assert_allclose(log.shift[0], [85000, 86000])


def test_a_file_without_tilts_is_refused(tmp_path):
    path = tmp_path / "empty.mdoc"
    path.write_text("PixelSpacing = 1.94\n")
    with pytest.raises(ValueError, match=r"has 0 tilts; an .mdoc with sections \[ZValue = n\]"):
        read_tilt_log(path)


@pytest.mark.parametrize("side", [1, -1])
def test_the_rule_is_exact_without_errors(side):
    n0 = 4e4
    z0 = -3e3
    angles = side * np.deg2rad(np.arange(0, 61, 3))
    y = n0 * np.cos(angles) - z0 * np.sin(angles)
    z = n0 * np.sin(angles) + z0 * np.cos(angles)
    rule = CommunityRule.begin(angles[0], angles[1], n0, y[0])
    for k in range(1, len(angles)):
        if k > 5:  # the predicted first step is no longer among the last four
            assert rule.z0 == pytest.approx(z0)
            assert rule.y + rule.predicted_step(angles[k]) == pytest.approx(y[k])
            assert rule.predicted_focus_step(angles[k]) == pytest.approx(z[k] - z[k - 1])
        rule = rule.record(angles[k], y[k])


@pytest.mark.parametrize(
    ("name", "n0"),
    [("aretomo3_L1_ts_001.mrc.mdoc", 0.0), ("murfey_chrom_07_ts_010_first11.mdoc", 40_200.0)],
)
def test_replay_of_the_rule_is_the_logged_height(data_dir, name, n0):
    log = read_tilt_log(data_dir(f"tilt_logs/{name}"))
    apart = np.abs(replay_rule(log, n0).height - log.height)
    assert np.median(apart) < 5.0
    assert apart.max() < 15.0


def test_the_filter_reports_the_loss_that_the_rule_ran_away_with(data_dir):
    log = read_tilt_log(data_dir("tilt_logs/aretomo3_L1_ts_001.mrc.mdoc"))
    replay = replay_filter(log)
    degrees = np.rad2deg(log.angle)
    assert replay.lost.tolist() == (degrees > 41.9).tolist()
    assert abs(replay.height[-1]) < 15_000
    assert np.max(log.height) > 500_000  # what the rule made of it
    good = ~replay.lost & (np.arange(len(degrees)) > 0)
    assert np.mean(np.abs(replay.error[good] / replay.sigma[good]) < 4) > 0.97


def test_a_table_of_tomography_5_has_the_residual_of_its_alignment(data_dir):
    log = read_tilt_log(data_dir("tilt_logs/tomo5_Position_16_3.csv"))
    assert len(log.angle) == 31
    np.testing.assert_allclose(log.residual[1], np.array([-1.176, -6.704]) * 1.54)
    assert log.defocus[0] == pytest.approx(18_600)
