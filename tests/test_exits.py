"""`sys.exit()` and KeyboardInterrupt raised by an environment's, agent's or plugin's code end a run as any of their errors do."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import quitting
from command_line import SMALL, Result, assert_one_error, call, merged, summary, train, wait_until

from rltrain.checkpoints import CheckpointStore, verify

pytest.importorskip("torch")  # the default backend, which the runs here are of
pytest.importorskip("pettingzoo")

ENV, RUN = "env=quitting:Quits-v0", ("trainer.timesteps=40", "run.dir=run")
TEAM = ("env=pettingzoo", "env.id=quitting:QuitsTeam", "env.num_envs=2", "agents=ippo", "tracking.tensorboard=false", *RUN)
AGENT = ("plugins=[quitting_agents]", "agents=[quitter]", "agents.quitter.rollout_length=8", *RUN)
SAID = {"exit": "SystemExit: 0", "interrupt": "KeyboardInterrupt", "generator": "GeneratorExit"}


@pytest.fixture
def quits(monkeypatch, here):
    """Say who quits where: quits("step:5:exit")."""

    def say(orders: str) -> None:
        quitting.calls.clear()
        monkeypatch.setenv("QUIT", orders)

    return say


def check(result: Result, sentence: str, *, saved: int | None = None, created: bool = True) -> None:
    """Check status, sentence, traceback and error.log; the agents were saved at timestep `saved`."""
    assert result.status == 1
    assert f"error: {sentence}" in result.err and "in perhaps" in result.err, result.err
    assert Path("run").exists() == created
    if created:
        assert "in perhaps" in Path("run/error.log").read_text()
        assert summary(Path("run"))["exit_reason"].startswith("failed: ")
    if saved is not None:
        assert verify(CheckpointStore(Path("run/checkpoints")).pointer("latest"))["timestep"] == saved


@pytest.mark.parametrize("what", SAID)
def test_an_environment_quits_in_a_step(what, quits):
    """Copy, id, phase and step are named and the agents saved, as where it raises."""
    quits(f"step:42:{what}")
    check(train(ENV, *RUN, status=1), f"env.id=quitting:Quits-v0: copy 1: step at step 10: {SAID[what]}", saved=10)


@pytest.mark.parametrize(("orders", "copy", "phase", "created"), [
    ("make:3:exit", "copy 2: ", "make at step 0", False),
    ("reset:4:interrupt", "copy 3: ", "reset at step 0", True),
])  # fmt: skip
def test_an_environment_quits_at_the_beginning(orders, copy, phase, created, quits):
    quits(orders)
    said = SAID[orders.rpartition(":")[2]]
    check(train(ENV, *RUN, status=1), f"env.id=quitting:Quits-v0: {copy}{phase}: {said}", created=created)


def test_an_environment_quits_in_close_or_render(quits):
    quits("close:2:exit")
    result = train(ENV, *RUN, status=1)
    assert "error: env.id=quitting:Quits-v0: copy 1: close at step 40: SystemExit: 0" in result.err
    assert summary(Path("run"))["exit_reason"] == "finished"
    from rltrain.envs.gymnasium import GymnasiumEnv
    from rltrain.errors import EnvironmentFailure

    quits("render:2:exit")
    env = GymnasiumEnv({"id": "quitting:Quits-v0", "num_envs": 2}, seed=1, render_mode="rgb_array")
    env.reset()
    with pytest.raises(EnvironmentFailure, match="copy 1: render at step 0: SystemExit: 0"):
        env.render()


@pytest.mark.parametrize("orders", ["make:1:interrupt", "step:12:exit"])
def test_a_native_vector_environment_quits(orders, quits):
    quits(orders)
    phase = "make at step 0" if orders.startswith("make") else "step at step 11"
    result = train(ENV, "env.vectorization=native", *RUN, status=1)
    check(result, f"env.id=quitting:Quits-v0: {phase}: {SAID[orders.rpartition(':')[2]]}", created="step" in orders)


def test_an_async_copy_quits(zygote, here):
    overrides = merged(SMALL, (ENV, "env.vectorization=async", "env.num_envs=2", *RUN))
    check(zygote.run("train", *overrides, QUIT="step:12:exit"), "env.id=quitting:Quits-v0: copy ", saved=11)


@pytest.mark.slow
def test_an_async_copy_s_process_ends(zygote, here):
    """`os._exit`, which nobody can catch, is told by its process."""
    overrides = merged(SMALL, (ENV, "env.vectorization=async", "env.num_envs=2", *RUN))
    result = zygote.run("train", *overrides, QUIT="step:12:die")
    assert result.status == 1 and "(exit code 0): step at step 11: its process ended" in result.err


@pytest.mark.parametrize(("orders", "sentence", "created"), [
    ("make:2:exit", "copy 1: make at step 0: SystemExit: 0", False),
    ("spaces:1:exit", "make: SystemExit: 0", False),
    ("reset:3:interrupt", "copy 1: reset at step 0: KeyboardInterrupt", True),  # the first finds out about the state
    ("step:25:interrupt", "copy 0: step at step 12: KeyboardInterrupt", True),
    ("state:6:exit", "copy 0: state at step 1: SystemExit: 0", True),
])  # fmt: skip
def test_a_team_s_environment_quits(orders, sentence, created, quits):
    quits(orders)
    saved = {"step": 12, "state": 1}.get(orders.partition(":")[0])
    check(call("train", *TEAM), f"env.id=quitting:QuitsTeam: {sentence}", created=created, saved=saved)


@pytest.mark.parametrize(("orders", "sentence"), [
    ("update:2:exit", "agents.quitter: post_interaction, timestep 15: SystemExit: 0"),
    ("act:3:interrupt", "agents.quitter: act, timestep 2: KeyboardInterrupt"),
    ("snapshot:1:generator", "GeneratorExit"),
])  # fmt: skip
def test_an_agent_quits(orders, sentence, quits):
    quits(orders)
    check(call("train", *AGENT, "env.num_envs=2", "tracking.tensorboard=false"), sentence)


def test_a_callback_quits(quits):
    quits("callback:5:exit")
    result = train("plugins=[quitting]", "trainer=step", "trainer.callback=quitting:callback", *RUN, status=1)
    check(result, "trainer.callback=quitting:callback: after timestep 4: SystemExit: 0")


@pytest.mark.parametrize(("orders", "sentence"), [
    ("act:5:exit", ": act, timestep 4: SystemExit: 0"),
    pytest.param("step:5:interrupt", "step at step 4: KeyboardInterrupt", marks=pytest.mark.slow),
])  # fmt: skip
def test_a_worker_s_agent_or_environment_quits(orders, sentence, zygote, here):
    overrides = ("agents=[a:quitter,b:quitter]", "plugins=[quitting_agents]", "trainer=parallel", ENV, "env.num_envs=2", *RUN)
    result = zygote.run("train", *overrides, "tracking.tensorboard=false", QUIT=orders)
    assert result.status == 1 and "error: agents." in result.err
    assert sentence in result.err and "in perhaps" in result.err


def test_a_module_quits_while_it_is_imported(here, monkeypatch):
    """The command is wrong: nothing is created."""
    monkeypatch.syspath_prepend(here)
    Path("leaving").mkdir()
    Path("leaving/__init__.py").write_text("")
    Path("leaving/leaves.py").write_text("import sys\nsys.exit(0)\n")
    name = "leaving.leaves"
    for overrides in ([f"plugins=[{name}]"], [f"env={name}:Own-v0"], ["env=pettingzoo", f"env.id={name}:Own", "agents=ippo"],
                      ["plugins=[leaving]", "trainer=step", f"trainer.callback={name}:function"]):  # fmt: skip
        assert_one_error(call("train", *overrides, *RUN), 2, name, "can't be imported (SystemExit: 0)")
    assert not Path("run").exists()


def test_a_sweep_s_job_quits(zygote, here):
    """The others are run all the same."""
    sweep = ("-m", "seed=1,2", "hydra.sweep.dir=runs", *AGENT[:-1], "env.num_envs=2", "tracking.tensorboard=false")
    assert zygote.run("train", *sweep, QUIT="update:1:exit").status == 1
    assert [summary(Path(f"runs/{i}_seed-{i + 1}"))["exit_reason"].partition(":")[0] for i in range(2)] == ["failed", "finished"]


def test_an_evaluation_s_environment_quits(quits, trained):
    quits("step:9:exit")
    result = call("eval", str(trained), ENV, "env.num_envs=2", "episodes=2")
    assert result.status == 1
    assert "error: env.id=quitting:Quits-v0: copy 0: step at step 4: SystemExit: 0" in result.err


SCRIPT = """
import signal, sys
from rltrain.agents.base import Agent
from rltrain.agents.ppo.torch import PPO
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.errors import EnvironmentFailure
from rltrain.trainers import SequentialTrainer

if "handler" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
env = GymnasiumEnv({"id": "quitting:Quits-v0", "num_envs": 2}, seed=1)
algorithm = PPO(env.observation_space, env.action_space, num_envs=2, cfg={"rollout_length": 8}, seed=1)
try:
    SequentialTrainer(env, Agent(algorithm), cfg={"timesteps": 20, "disable_progressbar": True}).train()
except EnvironmentFailure as error:
    print(str(error).splitlines()[0])
    raise
"""


def start(orders: str, *arguments: str) -> subprocess.Popen:
    """Start SCRIPT as its own process, which INT ends even where these tests run in the background."""
    environ = {"PATH": "", "PYTHONPATH": str(Path(quitting.__file__).parent), "OMP_NUM_THREADS": "1", "QUIT": orders}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def test_a_script_ends_by_it_and_signals_stay_signals(here):
    """What an environment raises is an error there too; the script's own signals end it as they always did."""
    scripts = [start("step:11:exit"), start("make:1:hang"), start("make:1:hang", "handler")]
    out, err = scripts[0].communicate(timeout=60)
    assert scripts[0].returncode == 1
    assert out == "env.id=quitting:Quits-v0: copy 0: step at step 5: SystemExit: 0\n"
    assert "in perhaps" in err
    for script, number, status in ((scripts[1], signal.SIGINT, -signal.SIGINT), (scripts[2], signal.SIGTERM, 7)):
        assert script.stdout.readline() == "hangs\n"
        script.send_signal(number)
        assert script.wait(30) == status
        script.communicate()


def test_an_interrupt_while_environments_are_made_quits(zygote, here):
    """The user's INT, in the middle of an environment's code, isn't taken for an error of that code."""
    process = zygote.start("train", *merged(SMALL, (ENV, *RUN)), QUIT="make:1:hang")
    wait_until(lambda: process.out.exists() and "hangs" in process.out.read_text(), 30)
    process.send(signal.SIGINT)
    result = process.wait(30)
    assert (result.status, result.err) == (130, "interrupted\n")
