"""Jobs: every mistake named with the nearest right key, and jobs that read back as written."""

import tomllib

import pytest

from jaxptycho.jobs.job import Job
from jaxptycho.jobs.reading import make_job, read_job
from jaxptycho.jobs.runner import start
from jaxptycho.jobs.writing import write_job

MINIMAL = {"data": {"file": "scan.h5"}}


def refine(**keys):
    return {"step": [{"kind": "refine"} | keys]}


@pytest.mark.parametrize("blanks", [False, True])
def test_a_written_job_reads_back_the_same(values, blanks):
    job = make_job(values)
    assert make_job(tomllib.loads(write_job(job, blanks))) == job


def test_every_key_is_explained_in_a_new_job():
    job = make_job(MINIMAL)
    text = write_job(job, blanks=True)
    for section in Job.model_fields:
        found = getattr(job, section)
        kind = type(found[0] if section == "step" else found)
        for name, key in getattr(kind, "model_fields", {}).items():
            if name == "kind" and section == "step":
                continue
            assert key.description, f"{section}.{name} has no description"
            assert key.description in text
            assert name in text


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"data": {}}, "data.file is missing"),
        (
            {"probe": {"semiangle": 20.0}},
            "there is no key probe.semiangle; did you mean semiangle_mrad?",
        ),
        ({"probe": {"semiangle_deg": 1.0}}, "did you mean semiangle_mrad?"),
        ({"data": {"file": "x", "semiangle": 2.0}}, "did you mean probe.semiangle_mrad?"),
        ({"probe": {"semiangle_mrad": 1.03}}, None),
        (
            {"probe": {"semiangle_mrad": 0.0214}},
            "probe.semiangle_mrad = 0.0214: 0.2 to 500 are expected; is it in rad",
        ),
        ({"data": {"file": "x", "voltage_kv": 300000.0}}, "0.3 to 5000 are expected; is it in V?"),
        (
            {"data": {"file": "x", "voltage_kv": "300 kV"}},
            "data.voltage_kv = '300 kV': expected a number",
        ),
        ({"probe": {"modes": 2.5}}, "probe.modes = 2.5: expected an integer"),
        ({"scan": {"kind": "fre"}}, "scan.kind = 'fre': expected 'free' or 'affine'"),
        (
            {"probe": {"aberrations_angstrom": {"C31": 1.0}}},
            "no aberration is called C31; did you mean C30?",
        ),
        ({"prob": {}}, "there is no key prob; did you mean probe?"),
        (refine(optimiser="adm"), "did you mean adam?"),
        (refine(rates={"prob": 1e-3}), "no part is called prob; did you mean probe?"),
        (
            refine(rates={"probe": {"rat": 1e-3, "rate": 1.0}}),
            "there is no key step.0.rates.probe.rat; did you mean rate?",
        ),
        (refine(constraint=[{"kind": "positivty"}]), "did you mean positivity?"),
        (
            refine(constraint=[{"kind": "positivity", "strt": 3}]),
            "step.0.constraint.0.strt; did you mean start?",
        ),
        (refine(constraint=[{}]), "step.0.constraint.0 has no kind"),
        (refine(penalty=[{"kind": "l1"}]), "step.0.penalty.0.weight is missing"),
    ],
)
def test_mistakes_are_named(wrong, said):
    if said is None:
        make_job(MINIMAL | wrong)
        return
    with pytest.raises(ValueError, match=r"^the job: ") as caught:
        make_job(MINIMAL | wrong)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"step": [{"kind": "atoms"}]},
        {"step": [{"kind": "refine"}, {"kind": "linear"}]},
        {"specimen": {"kind": "volume"}, "data": {"file": "x", "near_field": True}},
        {"specimen": {"kind": "volume"}, "probe": {"kind": "relaxed"}},
    ],
)
def test_mistake_of_the_whole_job_has_no_empty_place(wrong):
    with pytest.raises(ValueError, match=r"^the job: \w") as caught:
        make_job(MINIMAL | wrong)
    assert ": :" not in str(caught.value)


@pytest.mark.parametrize("kind", ["phase", "potential"])
@pytest.mark.parametrize("poses", ["shifts", "all"])
def test_poses_of_a_specimen_that_does_not_rotate_are_refused(kind, poses, values, tmp_path):
    job = make_job(values | {"specimen": {"kind": kind}} | refine(poses=poses))
    with pytest.raises(
        ValueError, match=r"step\.0\.poses = .* does not rotate; set poses"
    ) as caught:
        start(job, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_every_mistake_has_its_own_line():
    with pytest.raises(ValueError, match="probe") as caught:
        make_job(MINIMAL | {"probe": {"mode": 3}, "run": {"sed": 1}})
    assert len(str(caught.value).splitlines()) == 2


def test_settings_replace_keys_and_files_are_found_beside_the_job(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text('[data]\nfile = "scan.h5"\n[[step]]\nkind = "refine"\nepochs = 3\n')
    job = read_job(
        path, ["step.0.epochs=7", "step.0.rates.scan=1e-2", "probe.kind=relaxed", "run.seed=4"]
    )
    assert (job.step[0].epochs, job.step[0].rates["scan"].rate, job.run.seed) == (7, 1e-2, 4)
    assert job.probe.kind == "relaxed"
    assert job.data.file == str(tmp_path / "scan.h5")
    for wrong in ("step.1.epochs=7", "epochs", "data.file.name=3"):
        with pytest.raises(ValueError, match="--set"):
            read_job(path, [wrong])


def test_what_is_no_toml_is_refused(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text("[data\n")
    with pytest.raises(ValueError, match="is not valid TOML"):
        read_job(path)


def test_a_scheduled_constraint_is_due_when_it_says():
    text = {"kind": "positivity", "start": 2, "stop": 8, "every": 3}
    term = make_job(MINIMAL | refine(constraint=[text])).step[0].constraint[0]
    assert [epoch for epoch in range(12) if term.due(epoch)] == [2, 5]
