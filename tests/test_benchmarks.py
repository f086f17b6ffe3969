"""Every benchmark runs in tiny sizes and writes its figures; what they compare computes the same."""

import contextlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
OWN = {
    f"bench_{name}": []
    for name in (
        "loader",
        "start",
        "precision",
        "flat",
        "wedge",
        "scaling",
        "tilts",
        "limits",
        "quality",
        "calibration",
        "geometry",
        "positions",
        "thick",
        "starts",
    )
}
OWN["bench_tomography"] = ["--sweep=fraction"]
WITH_TORCH = {"bench_step": ["--form=tuned, micro", "--form=loop"], "bench_lecture": []}
HAS_TORCH = importlib.util.find_spec("torch") is not None
pytestmark = pytest.mark.slow
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed")


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """`figures(script)` are the rows of its quick run; all run side by side, as only their figures' sense is tested."""
    folder, running = tmp_path_factory.mktemp("figures"), {}

    def rows(script):
        said, _ = running[script].communicate()
        assert running[script].returncode == 0, said
        return json.loads((folder / script).read_text())["rows"]

    with contextlib.ExitStack() as stack:
        for script, options in (OWN | (WITH_TORCH if HAS_TORCH else {})).items():
            command = [
                sys.executable,
                BENCHMARKS / f"{script}.py",
                "--quick",
                "--json",
                folder / script,
                *options,
            ]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            running[script] = stack.enter_context(process)
            stack.callback(process.kill)
        yield rows


@pytest.fixture
def benchmark_modules(monkeypatch):
    """Scripts of the benchmarks can be imported."""
    monkeypatch.syspath_prepend(BENCHMARKS)


def test_loader_waits_and_computes(figures):
    (found,) = figures("bench_loader")
    assert 0 < found["waited_s"] < found["both_s"]


def test_a_batch_in_turns_takes_no_more_memory(figures):
    (ours,) = figures("bench_limits")
    small, large = (ours["peaks"][size] for size in ("2", "8"))
    assert 1e8 < large < 1.2 * small  # libraries, and chunks of one size


def test_packages_hold_a_batch_by_a_straight_line(benchmark_modules):
    line = importlib.import_module("bench_limits").line
    runs = [{"batch": n, "peak_bytes": 1000 + 30 * n, "version": "1"} for n in (4, 16)]
    assert line("one", runs, limit=1615)["most"] == 20
    assert line("none", [runs[0], {"batch": 16, "failed": "no memory"}], limit=1600)["failed"] == {
        16: "no memory"
    }


def test_floor_counts_four_transforms_and_the_bytes(benchmark_modules):
    rates = importlib.import_module("common").Rates(copy=1e9, fft={"8x6": 1e-6})
    assert rates.floor((8, 6), planes=10, moved=5000) == pytest.approx(4e-5 + 5e-6)


def test_small_angles_turn_in_three_steps(figures):
    found = {row["kernel"]: row for row in figures("bench_tilts")}
    assert set(found) == {"linear", "cubic", "linear, Euler", "cubic, Euler", "plain"}
    assert found["cubic, Euler"]["turn_ms"] > found["cubic"]["turn_ms"]


def test_slabs_hold_a_part_of_what_one_device_holds(figures):
    rows = figures("bench_scaling")
    found = {row["slabs"]: row for row in rows if row["scaling"] == "strong"}
    most = max(found)
    assert found[most]["held_mb"] < (0.2 + 1 / most) * found[1]["held_mb"]  # the probe lies on all
    assert all(row["patterns_s"] > 0 for row in rows)
    shared = [row["communication"] for row in rows if row["groups"] * row["slabs"] > 1]
    assert all(0 <= share < 1 for share in shared)


@needs_torch
def test_step_agrees_with_pytorch(figures):
    found = {row["contender"]: row for row in figures("bench_step")}
    assert set(found) == {"jaxptycho", "tuned, micro", "loop"}
    for row in found.values():
        assert row["loss"] == pytest.approx(found["jaxptycho"]["loss"], rel=1e-4)  # and none failed
        assert row["to_floor"] > 1


@needs_torch
def test_lecture_comes_back_in_all(figures):
    found = {(row["package"], row["what"]): row for row in figures("bench_lecture")}
    process, first, again = (
        found["jaxptycho", what]["seconds"] for what in ("process", "reconstruct", "again")
    )
    assert process > first > again > 0  # which needs no compiling
    for package in ("jaxptycho", "jax"):
        assert found[package, "reconstruct"]["psnr"] == pytest.approx(
            found["torch", "reconstruct"]["psnr"], abs=1.0
        )


def test_start_reaches_its_moments_in_order(figures):
    found = {row["what"]: row["seconds"] for row in figures("bench_start")}
    moments = [found[f"demo, first {what}"] for what in ("pattern", "batch", "epoch")]
    assert moments == sorted(moments)


def test_fewer_bits_change_less_than_another_measurement(figures):
    found = {(row["slices"], row["what"]): row["phase"] for row in figures("bench_precision")}
    noise = found[3, "other counts"]
    assert (
        found[3, "complex64"]
        < 1e-5
        < found[3, "float16 waves"]
        < found[3, "bfloat16 waves"]
        < 0.1 * noise
    )


def test_calibrations_are_scored(figures):
    for row in figures("bench_calibration"):
        assert row["verdict"] in ("right", "ambiguous", "wrong and determined")
        assert not row["no_disc"]
        assert set(row["found"]) == set(row["visible"])


def test_all_benchmarks_are_one_command(tmp_path):
    command = [sys.executable, BENCHMARKS / "all.py", tmp_path, "--quick", "--only", "fused"]
    assert (
        "fused: ended" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    )
    rows = json.loads((tmp_path / "all.json").read_text())["benchmarks"]["fused"]["figures"]["rows"]
    assert {"multislice", "multislice_fused", "multislice_fused_dft"} < {row["way"] for row in rows}
    assert max(row["error"] for row in rows) < 1e-5


def test_small_tilts_tell_depth(figures):
    one, three = figures("bench_flat")
    assert three["W_fwhm"] < 0.7 * one["W_fwhm"]
    assert three["apart"] == pytest.approx(three["true"], abs=1.5)


def test_solvers_reach_a_quality_without_a_rate(figures):
    found = {row["solver"]: row for row in figures("bench_quality")}
    assert set(found) == {"adam", "awf"}
    assert max(row["best_R"] for row in found.values()) < 0.3


def test_priors_fill_the_wedge(figures):
    found = {row["prior"]: row for row in figures("bench_wedge")}
    filled = [found[name]["wedge_fsc"] for name in ("none", "positivity", "atomicity")]
    assert filled == sorted(filled)
    assert filled[-1] > max(0.8, found["emptied"]["wedge_fsc"])
    assert found["positivity"]["F1"] > found["none"]["F1"]


def test_numbers_of_the_geometry_come_with_their_errors(figures):
    found = {row["name"]: row for row in figures("bench_geometry")}
    assert set(found) == {"scan.scale", "scan.rotation"}
    assert all(0 < row["error"] < 0.1 for row in found.values())


def test_positions_by_both_ways_start_equally(figures):
    gradients, search = figures("bench_positions")
    assert gradients["before"] == search["before"] > 0
    assert gradients["after"] > 0 < search["after"]


def test_a_series_is_aligned_with_half_its_shots_or_quanta(figures):
    found = {(row["case"], row["stage"]): row["shift_A"] for row in figures("bench_tomography")}
    for case in ("all", "1/2 shots", "1/2 dose"):
        assert found[case, "align"] < 0.8 * found[case, "simulated"]
        assert found[case, "fine"] < 0.8 * found[case, "simulated"]


def test_many_targets_are_foretold_better_together(figures):
    found = {row["way"]: row for row in figures("bench_acquisition")}
    assert found["filter"]["median"] < found["rule"]["median"] / 2
    assert found["filter"]["focus_median"] < 10 < found["rule"]["focus_median"]
