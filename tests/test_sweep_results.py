"""What a sweep leaves to read: folders with names, `sweep.json`, a table; and that a sweep goes on in its directory."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import SMALL, call, merged, summary
from omegaconf import OmegaConf

from rltrain.commands.sweep_results import Place, job_folder, tell_sweep

SWEEP = ("trainer.timesteps=8", "hydra.sweep.dir=sweep")


def folder(number: int, overrides: list[str], fixed: tuple[str, ...] = (), directory: str = "sweep") -> str:
    """Return the name of the folder of a job with these overrides."""
    job = {"num": number, "config": {"override_dirname": {"exclude_keys": list(fixed)}}}
    hydra = {"job": job, "sweep": {"dir": directory}, "overrides": {"task": overrides}}
    return job_folder(_root_=OmegaConf.create({"hydra": hydra}))


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["seed=2", "agents.ppo.learning_rate=0.001", "total_env_steps=100"], "3_seed-2_learning_rate-0.001"),
        (["agents.ppo.learning_rate=0.0004939665834512466"], "3_learning_rate-0.000494"),
        (["env.id=pkg/Own:X-v0"], "3_env-pkg_Own_X-v0"),
        (["agents.a.epochs=1", "agents.b.epochs=2"], "3_agents.a.epochs-1_agents.b.epochs-2"),
        (["agents_scope.sizes=[2,6]", "+env.kwargs.x='../é'"], "3_agents_scope-2_6_x"),
        (["env.kwargs.api_token=hunter22"], "3_api_token"),
        ([], "3"),
    ],
)
def test_names_of_folders(overrides, name, here):
    assert folder(3, overrides, fixed=("total_env_steps",)) == name


def test_names_are_cut(here):
    name = folder(12, [f"env.kwargs.word={'x' * 500}"])
    assert len(name) <= 100 and name.startswith("12_word-xxx")


def test_the_folder_of_an_older_sweep_is_found(here, trained):
    shutil.copytree(trained, "sweep/3")
    assert folder(3, ["seed=1"]) == "3" and folder(4, ["seed=1"]) == "4_seed-1"


def test_a_sweep_tells_all_jobs_of_its_directory(here, trained, monkeypatch, capsys):
    """One of an older version, one that was killed, one that failed before it began, in a folder below; no other folder."""
    monkeypatch.setenv("COLUMNS", "150")
    shutil.copytree(trained, "sweep/0")
    shutil.copytree(trained, "sweep/1_seed-2")
    for name in ("summary.json", "metrics.jsonl"):
        Path("sweep/1_seed-2", name).unlink()
    Path("sweep/deep/2").mkdir(parents=True)
    about = {"job": 2, "overrides": {"seed": "3", "env.kwargs.x": "[bold]"}, "error": "seed=3: is bad; give another"}
    Path("sweep/deep/2/job.json").write_text(json.dumps(about))
    for folder in ("sweep/.hydra", "sweep/other"):
        Path(folder).mkdir()
    Place().on_multirun_start(OmegaConf.create({"hydra": {"sweep": {"dir": "sweep"}}}))
    tell_sweep()
    jobs = json.loads(Path("sweep/sweep.json").read_text())["jobs"]
    assert [(job["job"], job["state"], job["directory"]) for job in jobs] == [
        (0, "finished", "0"), (1, "killed", "1_seed-2"), (2, "failed", "deep/2"),
    ]  # fmt: skip
    told = summary(trained)["agents"]["ppo"]
    assert (jobs[0]["final"], jobs[0]["best"]) == (told["episode_return_mean"], told["best"]["score"])
    assert jobs[0]["timestep"] == 200 and jobs[1]["final"] is None and jobs[2]["reason"] == about["error"]
    shown = capsys.readouterr().out
    assert "seed=3 x=[bold]" in shown and f"{told['best']['score']:.1f}" in shown
    assert "saved in sweep/sweep.json" in shown and "hydra.sweep.dir=sweep goes on" in shown


def test_of_many_jobs_the_best_are_shown(here, trained, capsys):
    told = json.loads((trained / "summary.json").read_text())
    for number in range(60):
        Path(f"sweep/{number}").mkdir(parents=True)
        Path(f"sweep/{number}/job.json").write_text(json.dumps({"job": number, "overrides": {}, "error": None}))
        told["agents"]["ppo"]["best"]["score"] = 1000.0 + number
        Path(f"sweep/{number}/summary.json").write_text(json.dumps(told))
    Place().on_multirun_start(OmegaConf.create({"hydra": {"sweep": {"dir": "sweep"}}}))
    tell_sweep()
    shown = capsys.readouterr().out
    assert "1059.0" in shown and "1010.0" in shown and "1009.0" not in shown and "the best 50 of 60 jobs" in shown
    assert len(json.loads(Path("sweep/sweep.json").read_text())["jobs"]) == 60


def test_a_killed_sweep_goes_on_in_its_directory(here, zygote):
    """A job that is there goes on, one that is finished stays, all are listed; also with a folder of an older version."""
    seeds = ("seed=1,2", *SWEEP)
    assert zygote.run("train", "-m", *merged(SMALL, seeds)).status == 0
    Path("sweep/0_seed-1").rename("sweep/0")
    Path("sweep/1_seed-2/summary.json").unlink()
    result = zygote.run("train", "-m", *merged(SMALL, ("seed=1,2,3", *SWEEP)))
    assert result.status == 0 and "sweep/0 is finished: 8 of 8 timesteps" in result.out
    jobs = json.loads(Path("sweep/sweep.json").read_text())["jobs"]
    assert [(job["directory"], job["state"]) for job in jobs] == [
        ("0", "finished"), ("1_seed-2", "finished"), ("2_seed-3", "finished"),
    ]  # fmt: skip
    assert [job["overrides"] for job in jobs] == [{"seed": str(seed)} for seed in (1, 2, 3)]


def test_a_subdir_of_ones_own_is_respected(here, zygote):
    subdir = "hydra.sweep.subdir=mine/${hydra.job.num}"
    assert zygote.run("train", "-m", *merged(SMALL, ("seed=1", *SWEEP, subdir))).status == 0
    jobs = json.loads(Path("sweep/sweep.json").read_text())["jobs"]
    assert [job["directory"] for job in jobs] == ["mine/0"] and Path("sweep/mine/0/summary.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_other_launchers_name_folders_and_are_told_alike(launcher, here, zygote):
    seeds = ("seed=1,2", *SWEEP, f"hydra/launcher={launcher}")
    result = zygote.start("train", "-m", *merged(SMALL, seeds)).wait(180)
    assert result.status == 0, result.err
    jobs = json.loads(Path("sweep/sweep.json").read_text())["jobs"]
    assert [job["directory"] for job in jobs] == ["0_seed-1", "1_seed-2"]
    assert "finished" in result.out
    assert call("eval", "sweep/0_seed-1", "episodes=1").status == 0
