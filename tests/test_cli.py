"""The command line as a person or a script meets it: what it prints, how it ends, what it leaves behind."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from command_line import RLTRAIN, SMALL, assert_one_error, call, merged, summary, train, wait_until

from rltrain.agents.ppo.torch import PPO
from rltrain.checkpoints import CheckpointStore, read_part, verify
from rltrain.commands.jobs import check_jobs
from rltrain.commands.plans import make_plan
from rltrain.commands.train import execute
from rltrain.errors import ConfigError

LENGTH = "trainer.timesteps=100"
FAULTY = "env=sample_envs:Faulty-v0"
ARMED = "env=armed_envs:Armed-v0"


def in_python(code: str, **how) -> subprocess.CompletedProcess:
    """Run Python code in a process that has imported nothing."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environ = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environ, **how)


def contents(directory: Path) -> dict[str, bytes]:
    """Return every file of a directory."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def newest(here: Path) -> CheckpointStore:
    return CheckpointStore(here / "run/checkpoints")


# -- looking ---------------------------------------------------------------------------------------------------------------


def test_help_takes_less_than_a_second(here):
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        result = subprocess.run([*RLTRAIN, "--help"], capture_output=True, text=True, timeout=20)
        seconds.append(time.perf_counter() - start)
        assert (result.returncode, result.stderr) == (0, "")
    assert min(seconds) < 1.0
    for word in ("rltrain train", "rltrain eval", "rltrain list", "rltrain checkpoint", "--cfg", "resume=RUN"):
        assert word in result.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "heavy"),
    [
        (["--help"], 0, []),
        (["train", "--help"], 0, []),
        (["--version"], 0, []),
        (["list", "agents"], 0, []),
        (["train", "agents.ppo.epochs=x"], 2, []),
        (["train", "agents.ppo.epochz=3"], 2, []),
        (["train", "agents=pppo"], 2, []),
        (["train", "agents_scope=[1]"], 2, []),
        (["train", "--cfg", "job"], 0, []),
        (["train", "resume=nowhere"], 2, []),
        (["train", "env=CartPol-v1"], 2, ["gymnasium"]),
        (["checkpoint", "verify", "nowhere"], 2, []),
        (["nonsense"], 2, []),
    ],
)
def test_what_is_imported(arguments, status, heavy, here):
    """Neither torch nor jax for anything that does not compute, errors included; a simulator only where an id is looked up."""
    watched = ["torch", "jax", "gymnasium", "tensorboard", "safetensors"]
    code = f"""
import sys
from rltrain.cli import main
status = main({arguments!r})
print([name for name in {watched} if name in sys.modules], file=sys.stderr)
sys.exit(status)
"""
    result = in_python(code)
    assert result.returncode == status, result.stderr
    assert result.stderr.splitlines()[-1] == str(heavy)


def test_version_by_all_ways_in(here):
    import rltrain

    script = Path(sys.executable).parent / "rltrain"
    for command in ([str(script)], list(RLTRAIN)):
        result = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=20)
        assert (result.returncode, result.stdout) == (0, f"rltrain {rltrain.__version__}\n")


def test_no_command_shows_the_help(here):
    assert call().out == call("--help").out == call("help").out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["trian"], "error: rltrain trian: no such command; did you mean 'train'? options: train, "),
        (["seed=1"], "rltrain seed=1: no such command; did you mean 'rltrain train seed=1'?"),
        (["train", "--cfgs"], "error: --cfgs: unknown flag; did you mean --cfg? see rltrain help train"),
        (["train", "--seed=3"], "error: --seed=3: unknown flag; settings have no dashes: seed=3; see rltrain help train"),
        (["train", "--cfg"], "error: --cfg: write --cfg job or --cfg resolved"),
        (["train", "--cfg", "all"], "error: --cfg all: write --cfg job or --cfg resolved"),
        (["train", "-m", "--cfg", "job", "seed=1,2"], "--cfg job: "),
        (["list"], "error: rltrain list: say what to list; options: "),
        (["list", "agent"], "error: rltrain list agent: say what to list; did you mean 'agents'?"),
        (["list", "agents", "nowhere"], "rltrain list agents nowhere: nothing holds these words; options: a2c, "),
        (["list", "envs", "CartPol-v9"], "rltrain list envs CartPol-v9: no such environment; did you mean 'CartPole-v"),
        (["list", "agents", "jsn=true"], "jsn=true: rltrain list takes words, json=true"),
        (["checkpoint"], "error: rltrain checkpoint: say what to do; options: export, show, verify"),
        (["checkpoint", "check", "x"], "error: rltrain checkpoint check x: no such command; options: "),
        (["checkpoint", "verify"], "error: rltrain checkpoint verify: write rltrain checkpoint verify PATH"),
        (["checkpoint", "verify", "nowhere"], "error: nowhere: no such run or checkpoint"),
        (["eval"], "error: rltrain eval: say what to evaluate"),
        (["eval", "nowhere"], "error: nowhere: no such run or checkpoint"),
        (["eval", "latest"], "error: latest: no such run or checkpoint (no run was started under outputs/ here)"),
        (["eval", "a", "b"], "error: b: a is given too"),
        (["eval", "checkpoint=1e3"], "checkpoint=1e3: no such run or checkpoint"),
        (["eval", "."], "error: .: holds no run"),
        (["eval", "--json"], "error: --json: unknown flag; "),
    ],
)
def test_wrong_commands(arguments, sentence, here):
    assert_one_error(call(*arguments), 2, sentence)
    assert not list(here.iterdir())


def test_a_dry_run_says_what_would_be_and_does_nothing(here):
    """4-64-64-2 and 4-64-64-1: 320 + 4160 + 130 + 320 + 4160 + 65 parameters; 12500 // 128 updates of 4 x 4 steps."""
    result = call("train", "dry_run=true", "seed=3")
    assert result.status == 0
    assert "12,500 timesteps x 8 copies = 100,000 env steps, seed 3" in result.out
    assert "9,155 parameters" in result.out
    assert "97 updates of 16 gradient steps" in result.out
    assert not list(here.iterdir())


def test_debug_adds_the_traceback(here):
    assert_one_error(call("train", "seed=x"), 2, "seed=x: must be")
    result = call("train", "seed=x", "--debug")
    assert result.status == 2
    assert result.err.startswith("error: seed=x: must be")
    assert "Traceback (most recent call last)" in result.err


# -- checkpoints -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/latest", "/best", "/checkpoints/latest", "/checkpoints/200"])
def test_verify_and_show(path, trained, here):
    expected = (trained / "checkpoints/best").read_text() if path == "/best" else "200"
    result = call("checkpoint", "verify", f"{trained}{path}")
    assert result.status == 0
    assert f"checkpoints/{expected}: good, 4 files" in result.out
    shown = call("checkpoint", "show", f"{trained}{path}")
    assert shown.status == 0
    manifest = json.loads(shown.out)
    assert (manifest["timestep"], manifest["agents"], manifest["exact_resume"]) == (int(expected), {"ppo": "PPO"}, True)


def test_verify_of_a_run_ignores_temporaries_and_finds_damage(trained, here):
    shutil.copytree(trained, "run")
    (here / "run/checkpoints/.tmp-300-1").mkdir()
    assert call("checkpoint", "verify", "run").status == 0
    (here / "run/checkpoints/200/trainer.safetensors").write_bytes(b"short")
    assert_one_error(call("checkpoint", "verify", "run"), 3, "trainer.safetensors: 5 bytes, the manifest says")
    (here / "run/checkpoints/200/manifest.json").unlink()
    assert_one_error(call("checkpoint", "verify", "run/checkpoints/200"), 3, "manifest.json is missing")
    assert_one_error(call("checkpoint", "show", "run"), 3, "manifest.json is missing")
    shutil.rmtree("run/checkpoints/200")
    assert_one_error(call("checkpoint", "verify", "run"), 3, "checkpoints/200: no checkpoint there")


# -- eval ----------------------------------------------------------------------------------------------------------------------

FIGURES = ["episodes", "mean", "mean_interval", "std", "median", "iqm", "min", "max", "length_mean", "success_rate"]


def test_json_is_alone_on_stdout_with_exactly_these_keys(trained, here):
    result = call("eval", f"checkpoint={trained}", "episodes=7", "json=true")
    assert result.status == 0
    figures = json.loads(result.out)
    assert list(figures) == ["agents"]
    assert list(figures["agents"]) == ["ppo"]
    assert list(figures["agents"]["ppo"]) == FIGURES
    ppo = figures["agents"]["ppo"]
    assert (ppo["episodes"], ppo["success_rate"], ppo["mean"]) == (7, None, ppo["length_mean"])
    assert ppo["min"] <= ppo["mean_interval"][0] <= ppo["mean"] <= ppo["mean_interval"][1] <= ppo["max"]
    (path,) = here.glob("outputs/evaluations/**/eval.json")
    saved = json.loads(path.read_text())
    assert saved["agents"] == figures["agents"]
    returns = saved["episodes"]["ppo"]["returns"]
    assert (len(returns), np.mean(returns), np.median(returns)) == (7, ppo["mean"], ppo["median"])
    assert saved["about"]["deterministic"] is True
    assert saved["about"]["timestep"] == 200


def test_the_table(trained, here):
    result = call("eval", str(trained), "episodes=3", "run.dir=there")
    assert result.status == 0
    for word in ("CartPole-v1, 4 copies, seed 1, deterministic", "mean", "interquartile mean", "saved in there/eval.json"):
        assert word in result.out
    assert json.loads((here / "there/eval.json").read_text())["agents"]["ppo"]["episodes"] == 3


def evaluated(*arguments: str) -> dict:
    result = call("eval", *arguments, "json=true")
    assert result.status == 0, result.err
    return json.loads(result.out)["agents"]["ppo"]


def test_same_seed_same_figures(trained, here):
    first = evaluated(str(trained), "episodes=6")
    assert evaluated(str(trained), "episodes=6") == first
    assert evaluated(str(trained), "episodes=6e0") == first
    assert evaluated(str(trained), "episodes=6", "seed=1") == first  # the run's seed
    assert evaluated(str(trained), "episodes=6", "seed=2") != first
    assert evaluated(str(trained), "episodes=6", "env.vectorization=async", "env.num_envs=4") == first


def test_the_final_figure_uses_other_seeds_than_best(trained, here):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    (evaluation,) = [line for line in lines if line["timestep"] == 200]
    assert evaluated(str(trained), "episodes=3")["mean"] != evaluation["evaluation/episode_return_mean"]


@pytest.mark.parametrize(("episodes", "copies"), [(1, 4), (3, 4), (4, 4), (9, 4), (5, 1), (2, 16)])
def test_exactly_the_episodes_that_were_asked_for(episodes, copies, trained, here):
    assert evaluated(str(trained), f"episodes={episodes}", f"env.num_envs={copies}")["episodes"] == episodes


def test_ways_to_name_what_is_evaluated(trained, here):
    best = int((trained / "checkpoints/best").read_text())
    shutil.copytree(trained, here / "outputs/x/run")
    (here / "outputs/latest").symlink_to("x/run")
    for path, timestep in [
        ("latest", 200), ("outputs/latest", 200), ("outputs/x/run", 200), ("outputs/x/run/latest", 200),
        ("outputs/x/run/best", best), ("outputs/latest/best", best), ("outputs/x/run/checkpoints/best", best),
        (f"outputs/x/run/checkpoints/{best}", best),
    ]:  # fmt: skip
        for argument in (path, f"checkpoint={path}"):
            shutil.rmtree("there", ignore_errors=True)
            assert call("eval", argument, "episodes=1", "run.dir=there").status == 0
            assert json.loads(Path("there/eval.json").read_text())["about"]["timestep"] == timestep


def test_a_path_with_odd_characters(trained, here):
    shutil.copytree(trained, "a=b,c [d]")
    for argument in ("a=b,c [d]", "checkpoint=a=b,c [d]"):
        assert call("eval", argument, "episodes=1").status == 0
    assert call("train", "resume=a=b,c [d]", "trainer.timesteps=204").status == 0


def test_best_of_a_run_without_evaluations(here):
    train("trainer.timesteps=4", "run.dir=run")
    assert_one_error(call("eval", "run/best"), 2, "run/best: this run has no best checkpoint: set evaluation.interval")


def test_eval_never_writes_into_the_run(trained, here):
    shutil.copytree(trained, "run")
    before = contents(here / "run")
    assert call("eval", "run", "episodes=1").status == 0
    for directory in ("run", "run/evaluation", "run/checkpoints/200", "run/checkpoints/200/more"):
        result = call("eval", "run", "episodes=1", f"run.dir={directory}")
        assert_one_error(result, 2, f"run.dir={directory}: ")
    assert contents(here / "run") == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["episodes=0"], "episodes=0: must be a whole number >= 1"),
        (["episodes=1.5"], "episodes=1.5: must be"),
        (["episodes=many"], "episodes=many: must be"),
        (["episodes=[1"], "episodes=[1: can't be read"),
        (["seed=-1"], "seed=-1: must be"),
        (["json=3"], "json=3: must be true or false"),
        (["fail_under=high"], "fail_under=high: must be a finite number"),
        (["fail_under=.nan"], "fail_under=nan: must be a finite number"),
        (["render=video"], "render=video: unknown; options: human"),
        (["episode=3"], "episode=3: "),
        (["agents.ppo.epochs=3"], "agents.ppo.epochs=3: is the checkpoint's; an evaluation takes env.*"),
        (["agents=ppo"], "agents=ppo: is the checkpoint's"),
        (["total_env_steps=5"], "total_env_steps=5: is the checkpoint's"),
        (["trainer.timesteps=5"], "trainer.timesteps=5: is the checkpoint's"),
        (["+env.nums=3"], "+env.nums=3: no such key"),
        (["env.num_env=3"], "env.num_env=3: no such key; did you mean 'env.num_envs'?"),
        (["env.num_envs=0"], "env.num_envs=0: must be"),
        (["env.id=CartPol-v1"], "did you mean 'CartPole-v1'?"),
        (["backend.device=cuda:99"], "backend.device=cuda:99: not found"),
    ],
)
def test_bad_options_of_eval(arguments, sentence, trained, here):
    assert_one_error(call("eval", str(trained), *arguments), 2, sentence)
    assert not list(here.iterdir())


def test_render_without_a_display(trained, here, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert_one_error(call("eval", str(trained), "render=human"), 2, "render=human: there is no display here")


def test_fail_under(trained, here):
    result = call("eval", str(trained), "episodes=3", "fail_under=501", "json=true")
    assert (result.status, list(json.loads(result.out))) == (1, ["agents"])
    assert result.err.startswith("error: fail_under=501: the mean of ppo is below")
    assert call("eval", str(trained), "episodes=3", "fail_under=1").status == 0


def test_stochastic_evaluation(trained, here):
    result = evaluated(str(trained), "episodes=8", "trainer.stochastic_evaluation=true")
    assert result != evaluated(str(trained), "episodes=8")
    assert result == evaluated(str(trained), "episodes=8", "trainer.stochastic_evaluation=true")


def test_eval_is_stopped_by_a_signal(trained, here, zygote):
    mark = """
from rltrain.evaluation import EpisodeCounter
def record(self, step, real=EpisodeCounter.record):
    open("started", "w")
    return real(self, step)
EpisodeCounter.record = record
"""
    for name, status in (("SIGINT", 130), ("SIGHUP", 143)):
        process = zygote.start("eval", str(trained), "episodes=10000000", before=mark)
        wait_until(lambda: (here / "started").exists(), 20)
        process.send(getattr(signal, name))
        result = process.wait(5)
        assert (result.status, "Traceback" in result.err) == (status, False)
        os.remove("started")
    assert not list(here.iterdir())


# -- the environment, the agent, a number ----------------------------------------------------------------------------------------


def test_nan_rewards_name_copy_and_key_and_leave_the_checkpoint(here):
    nan = (FAULTY, "env.kwargs.what=nan_reward", "env.kwargs.when=45")
    result = train(*nan, "checkpoints.interval=20", LENGTH, "run.dir=run", status=1)
    sentence = "error: env.id=sample_envs:Faulty-v0: copy 0: step 44: rewards=nan is not finite"
    assert result.err.splitlines()[-1].startswith(sentence)
    assert verify(newest(here).pointer("latest"))["timestep"] == 40
    assert "is not finite" in (here / "run/error.log").read_text()
    assert summary(here / "run")["exit_reason"].startswith("failed: NonFiniteError: env.id=sample_envs:Faulty-v0: copy 0")


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_an_environment_that_raises_in_a_step(vectorization, here, zygote):
    """Names copy, id, phase and step; its own traceback on the screen and in error.log; the agents are saved and go on."""
    overrides = merged(SMALL, (ARMED, f"env.vectorization={vectorization}", "env.num_envs=2", LENGTH, "run.dir=run"))
    result = zygote.run("train", *overrides, ARMED="step:45:raise")
    assert result.status == 1
    first = r"error: env.id=armed_envs:Armed-v0: copy [01]: step at step 44: RuntimeError: armed in step"  # both raise
    assert any(re.fullmatch(first, line) for line in result.err.splitlines())
    assert 'raise RuntimeError(f"armed in {phase}")' in result.err
    assert 'raise RuntimeError(f"armed in {phase}")' in (here / "run/error.log").read_text()
    manifest = verify(newest(here).pointer("latest"))
    assert (manifest["timestep"], manifest["exact_resume"]) == (44, False)
    assert call("train", "resume=run").status == 0
    assert summary(here / "run")["timestep"] == 100


def test_an_environment_that_raises_in_a_reset(here, monkeypatch):
    """The timestep before it was learned from and counts: going on neither repeats nor loses it."""
    monkeypatch.setenv("ARMED", "reset:3:raise")
    result = train(ARMED, "env.num_envs=2", "trainer.timesteps=300", "run.dir=run", status=1)
    assert ": reset at step " in result.err
    path = newest(here).pointer("latest")
    trainer = read_part(path, "trainer", verify(path))
    statistics = read_part(path, "agents/ppo/training", verify(path))["statistics"]
    assert statistics["env_steps"] == 2 * trainer["timestep"] > 0
    monkeypatch.delenv("ARMED")
    assert call("train", "resume=run").status == 0
    assert summary(here / "run")["env_steps"] == 600
    assert summary(here / "run")["agents"]["ppo"]["updates"] == 300 // 32


def test_an_environment_that_raises_in_make_or_the_first_reset(here):
    for phase in ("make", "reset"):
        result = train(FAULTY, f"env.kwargs.phase={phase}", LENGTH, f"run.dir={phase}", status=1)
        assert f"error: env.id=sample_envs:Faulty-v0: copy 0: {phase} at step 0: RuntimeError: broken on purpose" in result.err
        assert "Traceback" in result.err
    assert not (here / "make").exists()


def test_an_error_in_close_is_told_and_hides_nothing(here, monkeypatch):
    monkeypatch.setenv("ARMED", "close:1:raise")
    result = train(ARMED, LENGTH, "run.dir=run", status=1)
    assert ": close at step " in result.err
    assert "armed in close" in result.err
    manifest = verify(newest(here).pointer("latest"))
    assert (manifest["timestep"], manifest["exact_resume"]) == (100, True)
    assert summary(here / "run")["exit_reason"] == "finished"
    monkeypatch.setenv("ARMED", "close:1:raise step:45:raise")
    result = train(ARMED, LENGTH, "run.dir=other", status=1)
    assert "armed in step" in result.err
    assert "armed in close" not in result.err


def test_a_failure_keeps_an_exact_checkpoint_of_the_same_timestep(here, monkeypatch):
    """The checkpoint of 40 was just written, then the step after it fails: it is not replaced by one without environment."""
    monkeypatch.setenv("ARMED", "step:41:raise")
    train(ARMED, "env.num_envs=2", "checkpoints.interval=20", LENGTH, "run.dir=run", status=1)
    manifest = verify(newest(here).pointer("latest"))
    assert (manifest["timestep"], manifest["exact_resume"]) == (40, True)


def test_an_agent_that_raises(here, monkeypatch):
    def update(self, progress):
        raise ZeroDivisionError("my agent is broken")

    monkeypatch.setattr(PPO, "update", update)
    result = train(LENGTH, "checkpoints.interval=20", "run.dir=run", status=1)
    first = r"error: agents.ppo: post_interaction, timestep \d+: ZeroDivisionError: my agent is broken"
    assert any(re.fullmatch(first, line) for line in result.err.splitlines())
    assert 'raise ZeroDivisionError("my agent is broken")' in result.err
    assert 'raise ZeroDivisionError("my agent is broken")' in (here / "run/error.log").read_text()
    assert summary(here / "run")["exit_reason"] == "failed: ZeroDivisionError: my agent is broken"
    assert verify(newest(here).pointer("latest"))["timestep"] == 20


def test_a_loss_that_is_not_finite(here):
    """Rewards grow to 1e38 after 70 steps: the third update overflows; the checkpoint of 80 is the last finite one."""
    huge = (ARMED, "env.kwargs.scale=1e38", "env.kwargs.scale_from=70")
    result = train(*huge, "checkpoints.interval=40", LENGTH, "run.dir=run", status=1)
    (line,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: agents.ppo: ")
    assert "not finite after update 3 at timestep 95; lower learning_rate or grad_norm_clip" in line
    path = newest(here).pointer("latest")
    assert verify(path)["timestep"] == 80
    policy = read_part(path, "agents/ppo/policy", verify(path))
    assert all(np.isfinite(array).all() for array in policy["parameters"].values())


def test_a_parameter_that_is_not_finite(here, monkeypatch):
    real = PPO.update

    def update(self, progress):
        metrics = real(self, progress)
        next(iter(self.learners["actor_critic"].parameters.named.values())).data.view(-1)[0] = float("nan")
        return metrics

    monkeypatch.setattr(PPO, "update", update)
    result = train(LENGTH, "checkpoints.interval=20", "run.dir=run", status=1)
    assert "agents.ppo: a parameter is not finite after update 1 at timestep 31" in result.err
    assert verify(newest(here).pointer("latest"))["timestep"] == 20


# -- processes -----------------------------------------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    """Return all descendants of a process."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(entry.parent.name))
    return found + [grandchild for child in found for grandchild in children(child)]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def start_async(zygote, here, *overrides, **how):
    """Start a long run on asynchronous copies; return it and all its processes."""
    settings = merged(SMALL, ("env.vectorization=async", "env.num_envs=2", "run.dir=run", *overrides))
    process = zygote.start("train", *settings, **how)
    metrics = here / "run/metrics.jsonl"
    wait_until(lambda: (metrics.exists() and metrics.stat().st_size) or process.poll() is not None, 30)
    family = children(process.pid)
    assert len(family) >= 2, process.err.read_text()
    return process, family


ENDLESS = "trainer.timesteps=10000000"


def test_workers_end_when_the_main_process_is_killed(here, zygote):
    process, family = start_async(zygote, here, ENDLESS)
    process.send(signal.SIGKILL)
    assert process.wait().status == -9
    wait_until(lambda: not any(map(is_alive, family)), 5, lambda: f"alive: {list(filter(is_alive, family))}")


def test_an_interrupt_from_the_terminal_reaches_all_and_ends_well(here, zygote):
    process, family = start_async(zygote, here, ENDLESS, before="import os; os.setpgid(0, 0)")
    os.killpg(process.pid, signal.SIGINT)
    result = process.wait(10)
    assert (result.status, "Traceback" in result.err) == (130, False), result.err
    assert verify(newest(here).pointer("latest"))["exact_resume"] is True
    wait_until(lambda: not any(map(is_alive, family)), 5)


@pytest.mark.parametrize("what", ["kill", "hang"])
def test_a_worker_that_dies_or_hangs_ends_the_run(what, here, zygote):
    process, family = start_async(zygote, here, ARMED, ENDLESS, "env.timeout=1", ARMED=f"step:400:{what}")
    result = process.wait(30)
    assert result.status == 1
    sentence = {"kill": "ended", "hang": "no answer in 1 s (env.timeout)"}[what]
    (line,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert re.match(r"error: env.id=armed_envs:Armed-v0: copy [01]", line)  # both of them do
    assert ": step at step 399: " in line
    assert sentence in line
    assert verify(newest(here).pointer("latest"))["timestep"] == 399
    wait_until(lambda: not any(map(is_alive, family)), 5)


def test_nobody_reads_stdout(trained, here, zygote):
    """As under `| head -0`: no traceback, and the run is made all the same."""
    result = zygote.run("train", *SMALL, LENGTH, "run.dir=run", out="closed")
    assert (result.status, "Traceback" in result.err, "BrokenPipe" in result.err) == (0, False, False)
    assert summary(here / "run")["exit_reason"] == "finished"
    for arguments in (["--help"], ["list", "envs"], ["train", "--cfg", "job"], ["checkpoint", "show", str(trained)],
                      ["train", "dry_run=true"], ["eval", str(trained), "episodes=1"]):  # fmt: skip
        result = zygote.run(*arguments, out="closed")
        assert (result.status, result.err) == (0, ""), arguments
    result = zygote.run("eval", str(trained), "episodes=1", "json=true", out="closed")
    assert ("Traceback" in result.err, "BrokenPipe" in result.err) == (False, False)


def test_the_terminal_is_gone(here, zygote):
    process = zygote.start("train", *SMALL, ENDLESS, "run.dir=run", out="closed", err="closed")
    metrics = here / "run/metrics.jsonl"
    wait_until(lambda: (metrics.exists() and metrics.stat().st_size) or process.poll() is not None, 30)
    process.send(signal.SIGHUP)
    assert process.wait(10).status == 143
    assert summary(here / "run")["exit_reason"] == "stopped by SIGHUP"


BLOCK = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Block())
from rltrain.cli import main
sys.exit(main({arguments!r}))
"""


@pytest.mark.parametrize(
    ("blocked", "arguments", "sentence"),
    [
        (["torch"], ["train"], "[torch]'"),
        (["gymnasium"], ["train"], "[classic]'"),
        (["Box2D", "box2d"], ["train", "env=LunarLander-v3"], "[box2d]'"),
        (["mujoco"], ["train", "env=HalfCheetah-v5"], "[mujoco]'"),
        (["hydra_plugins"], ["train", "-m", "seed=1,2", "hydra/launcher=joblib"], "hydra/launcher=joblib: no such choice"),
    ],
)
def test_a_package_that_is_not_installed(blocked, arguments, sentence, here):
    result = in_python(BLOCK.format(blocked=blocked, arguments=arguments))
    assert result.returncode == 2, result.stderr
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 3
    assert not list(here.iterdir())


def test_a_resume_checks_before_it_needs_torch(trained, here):
    result = in_python(BLOCK.format(blocked=["torch"], arguments=["checkpoint", "verify", str(trained)]))
    assert (result.returncode, result.stderr) == (0, "")


# -- sweeps --------------------------------------------------------------------------------------------------------------------

SWEEP = (FAULTY, "env.kwargs.when=1000,5,1001", "trainer.timesteps=40", "hydra.sweep.dir=sweep")


def check_sweep(result, here) -> None:
    """The job in the middle failed, the others are complete, each in a directory of its own."""
    assert result.status == 1, result.err
    for name in ("0_when-1000", "2_when-1001"):
        assert summary(here / "sweep" / name)["exit_reason"] == "finished"
        assert verify(CheckpointStore(here / "sweep" / name / "checkpoints").pointer("latest"))["timestep"] == 40
    assert summary(here / "sweep/1_when-5")["exit_reason"].startswith("failed: EnvironmentFailure")
    assert "broken on purpose" in (here / "sweep/1_when-5/error.log").read_text()
    jobs = json.loads((here / "sweep/sweep.json").read_text())["jobs"]
    assert [(job["job"], job["state"]) for job in jobs] == [(0, "finished"), (1, "failed"), (2, "finished")]
    assert "copy" in jobs[1]["reason"] and jobs[1]["overrides"] == {"env.kwargs.when": "5"}
    assert jobs[0]["final"] == summary(here / "sweep" / jobs[0]["directory"])["agents"]["ppo"]["episode_return_mean"]


def test_a_sweep_goes_on_after_a_failed_job(here, zygote):
    result = zygote.run("train", "-m", *SMALL, *SWEEP)
    check_sweep(result, here)
    assert "broken on purpose" in result.text and "HYDRA_FULL_ERROR" not in result.text
    assert re.search(r"^job 1: error: env.id=.*\n(.*\n)?Traceback", result.err, re.MULTILINE), result.err
    assert result.err.count("Traceback") == 1
    assert result.err.splitlines()[-1].startswith("error: job 1: env.id=sample_envs:Faulty-v0: copy"), result.err


def test_a_job_that_is_wrong_is_told_without_a_traceback(here, zygote):
    result = zygote.run("train", "-m", "agents=td3,a2c", "trainer.timesteps=20", "hydra.sweep.dir=sweep")
    assert (result.status, "Traceback" in result.text) == (1, False), result.text
    error = "job 0: error: env.action_space=Discrete(2): this agent acts in Box spaces of floats; use dqn, sac or ppo"
    assert error in result.err and summary(here / "sweep/1_agents-a2c")["exit_reason"] == "finished"
    jobs = json.loads((here / "sweep/sweep.json").read_text())["jobs"]
    assert [(job["state"], job["directory"]) for job in jobs] == [("failed", "0_agents-td3"), ("finished", "1_agents-a2c")]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launchers(launcher, here, zygote):
    check_sweep(zygote.start("train", "-m", *SMALL, *SWEEP, f"hydra/launcher={launcher}").wait(180), here)


def test_a_sweep_of_good_jobs(here, zygote):
    several = ("seed=range(0,2)", "agents.ppo.learning_rate=1e-3,1e-4")
    result = zygote.run("train", "-m", *merged(SMALL, (*several, "trainer.timesteps=40")))
    assert result.status == 0, result.err
    runs = sorted(here.glob("outputs/multirun/*/*/summary.json"))
    assert len(runs) == 4
    assert len({json.loads(path.read_text())["agents"]["ppo"]["parameters_sha256"] for path in runs}) == 4
    single = train("trainer.timesteps=40", "seed=0", "agents.ppo.learning_rate=1e-3", "run.dir=single")
    assert single.status == 0
    first = json.loads(runs[0].read_text())["agents"]["ppo"]["parameters_sha256"]
    assert summary(here / "single")["agents"]["ppo"]["parameters_sha256"] == first


def test_jobs_take_whole_numbers_as_single_runs_do():
    """A job that can't be would raise; 1e3 of seeds is as whole as 1000, 1e-3 stays."""
    check_jobs(["total_env_steps=1e4"])
    check_jobs(["total_env_steps=1e4,2e4", "checkpoints.interval=1e4", "agents.ppo.learning_rate=1e-3,1e-4"])
    check_jobs(["seed=range(1e1,3e1,1e1)", "evaluation.interval=choice(1e3,5000)"])
    with pytest.raises(ConfigError, match=r"total_env_steps=1\.5: must be a whole number"):
        check_jobs(["total_env_steps=1e4,1.5"])


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["agents.ppo.epochs=2,0"], "agents.ppo.epochs=0: must be a whole number >= 1"),
        (["seed=1,x"], "seed=x: must be"),
        (["agents.ppo.epochz=1,2"], "agents.ppo.epochz=1: no such key; did you mean 'agents.ppo.epochs'?"),
        (["agents=ppo,pppo"], "agents=pppo: no such choice"),
        (["env=CartPole-v1,[gymnasium]"], "env="),
        (["seed=range(0,"], "seed=range(0,: can't be read"),
        (["seed=1,2", "resume=x"], "resume=x: is for one run"),
        (["seed=1,2", "run.dir=x"], "run.dir=x: is for one run"),
        (["seed=1,2", "hydra/launcher=nope"], "hydra/launcher=nope: no such choice; options: basic, "),
        (["seed=1,2", "hydra/launcher=ray"], "; pip install hydra-ray-launcher brings it"),
        (["seed=1,2", "hydra/sweeper=ax"], "hydra/sweeper=ax: no such choice; options: basic; pip install hydra-ax-sweeper"),
        (["seed=1,2", "hydra.launcher.partition=x"], "hydra.launcher.partition=x: no such key of Hydra's with what is chosen; "),
        (["seed=1,2", "hydra.run.dir=x"], "hydra.run.dir=x: has no effect in a sweep; hydra.sweep.dir is the directory"),
        (["seed=1,2", "hydra.mode=RUN"], "hydra.mode=RUN: has no effect in a sweep; leave it out"),
        (["seed=range(0,1000000)"], "seed=range(0,1000000): makes 1,000,000 jobs of at most 10,000 in a sweep; give several"),
        (["seed=range(0,1e300)"], "seed=range(0,1e300): makes over 1,000,000,000 jobs"),
        (["seed=range(0,3000)", "env.num_envs=4,5,6,7"], "seed=range(0,3000): makes 12,000 jobs"),
        (["seed=range(5,5)"], "seed=range(5,5): is empty: the sweep has no job"),
        (["seed=range(0,5,0)"], "seed=range(0,5,0): has a step of 0"),
        (["seed=interval(1,3)"], "seed=interval(1,3): an interval has no list of jobs"),
        (["seed=range(0,200)", "agents.ppo.epochs=3,0"], "agents.ppo.epochs=0: must be a whole number >= 1"),
        (["agents.ppo.learning_rate=range(0.2,0.4,0.1)", "env.num_envs=4,0"], "env.num_envs=0: must be"),
        (["seed=1,2", "total_env_steps=10", "trainer.timesteps=10"], "total_env_steps=10 is given too"),
        (["seed=1,2", "agents_scope=[3],[4]"], "agents_scope.sizes=[3]: add up to 3"),
    ],
)
def test_a_sweep_with_a_bad_job_runs_none(overrides, sentence, here):
    assert_one_error(call("train", "-m", *overrides), 2, sentence)
    assert not list(here.iterdir())


SUBMISSION = "sbatch: error: invalid partition specified: nosuch"


def test_a_launcher_that_fails_is_one_sentence(here, zygote):
    """Of a cluster that isn't there, of one that refuses; the traceback with --debug."""
    slurm = ("seed=1,2", "hydra/launcher=submitit_slurm", "hydra.launcher.partition=nosuch")
    how = ("train", "-m", *merged(SMALL, slurm))
    bare = str(here / "bin")
    sentence = "hydra/launcher=submitit_slurm: could not run the jobs ("
    assert_one_error(zygote.run(*how, PATH=bare), 1, f'{sentence}RuntimeError: Could not detect "srun"')
    (here / "bin").mkdir()
    for name, script in (("srun", "exit 0"), ("sbatch", f"echo '{SUBMISSION}' >&2; exit 1")):
        (here / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (here / "bin" / name).chmod(0o755)
    result = zygote.run(*how, PATH=f"{bare}:{os.environ['PATH']}")
    told = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert (result.status, "Traceback" in result.err, "HYDRA_FULL_ERROR" in result.err) == (1, False, False), result.err
    assert len(told) == 1 and told[0].startswith(f"error: {sentence}FailedJobError: {SUBMISSION}); see hydra.launcher.*"), told
    assert len(result.err.splitlines()) <= 3
    result = zygote.run(*how, "--debug", PATH=f"{bare}:{os.environ['PATH']}")
    assert result.status == 1 and "Traceback" in result.err and "in launch" in result.err


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["hydra.run.dir=x"], "hydra.run.dir=x: has no effect in a single run; run.dir is a run's directory"),
        (["hydra.sweep.dir=x"], "run.dir is a run's directory; hydra.sweep.dir is for a sweep: add -m"),
        (["hydra.output_subdir=x"], "the configuration is always in config.yaml of the run's directory"),
        (["hydra.job.chdir=true"], "hydra.job.chdir=true: has no effect in a single run; a run stays in the directory"),
        (["hydra/launcher=joblib"], "hydra/launcher=joblib: has no effect in a single run; it is for sweeps: add -m"),
        (["+hydra.verbose=true"], "it is for sweeps: add -m"),
        (["resume=nowhere", "hydra.run.dir=x"], "hydra.run.dir=x: has no effect in a single run"),
    ],
)
def test_settings_of_hydra_that_would_do_nothing_are_refused(overrides, sentence, here):
    assert_one_error(call("train", *overrides), 2, sentence)
    assert not list(here.iterdir())


def test_numbers_of_a_sweep_are_checked_as_they_are_composed(monkeypatch):
    """Jobs that differ in numbers alone are composed once; the configurations are those that composing each would make."""
    from rltrain import config
    from rltrain.commands import jobs

    composed, checked = [], []
    real = config.compose
    monkeypatch.setattr(config, "compose", lambda overrides: composed.append(list(overrides)) or real(overrides))
    monkeypatch.setattr(config, "check", lambda cfg: checked.append(cfg) or types.SimpleNamespace(init_from=None))
    monkeypatch.setattr(jobs.assemble, "find_callback", lambda config: None)
    jobs.check_jobs(["seed=range(0,3)", "agents.ppo.learning_rate=1e-3,0.5", "agents.ppo.epochs=4", "trainer=sequential,step"])
    assert len(composed) == 2
    for seed, rate, trainer in itertools.product(("0", "1", "2"), ("1e-3", "0.5"), ("sequential", "step")):
        single = [f"seed={seed}", f"agents.ppo.learning_rate={rate}", "agents.ppo.epochs=4", f"trainer={trainer}"]
        assert real(single) == checked.pop(0)
    assert not checked


def test_an_interrupt_ends_a_sweep(here, zygote):
    """The job in hand is saved, the jobs after it are not begun."""
    process = zygote.start("train", "-m", *merged(SMALL, ("seed=1,2,3", ENDLESS, "hydra.sweep.dir=sweep")))
    metrics = here / "sweep/0_seed-1/metrics.jsonl"
    wait_until(lambda: (metrics.exists() and metrics.stat().st_size) or process.poll() is not None, 30)
    process.send(signal.SIGINT)
    result = process.wait(10)
    assert result.status == 130, result.err
    assert summary(here / "sweep/0_seed-1")["exit_reason"] == "stopped by SIGINT"
    assert not list(here.glob("sweep/1*"))
    assert "stopped by SIGINT" in (here / "sweep/sweep.json").read_text()
    assert "the same command with hydra.sweep.dir=sweep goes on" in result.out


def test_the_objective_of_a_job(here):
    """The best evaluation, else the mean return of the last episodes."""
    evaluation = ("evaluation.interval=20", "evaluation.episodes=2")
    status, objective = execute(make_plan([*SMALL, "trainer.timesteps=60", "run.dir=a", *evaluation]))
    assert (status, objective) == (0, summary(here / "a")["agents"]["ppo"]["best"]["score"])
    lines = [json.loads(line) for line in (here / "a/metrics.jsonl").read_text().splitlines()]
    assert objective == max(line["evaluation/episode_return_mean"] for line in lines)
    status, objective = execute(make_plan([*SMALL, "trainer.timesteps=60", "run.dir=b"]))
    assert objective == summary(here / "b")["agents"]["ppo"]["episode_return_mean"]
