"""The step trainer: a timestep per call, equal to the sequential trainer to the bit, whoever owns the loop."""

import copy
import importlib
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rltrain.agents.base import Agent
from rltrain.checkpoints import CheckpointsConfig, CheckpointStore, verify
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.errors import ConfigError, RunError
from rltrain.evaluation import EvaluationConfig
from rltrain.runs import Run
from rltrain.seeding import EVALUATION_ENVIRONMENTS
from rltrain.tracking import TrackingConfig
from rltrain.trainers import SequentialTrainer, StepTrainer, TrainerConfig

pytest.importorskip("torch")  # the default backend, which the runs here are of

NETWORK = {"policy_sizes": [8], "value_sizes": [8]}
ONE = [("ppo", 4, {"rollout_length": 8, "epochs": 2, "minibatches": 2})]
TWO = [
    ("ppo", 3, {"rollout_length": 8, "epochs": 2, "normalize_observations": True, "learning_rate_schedule": "linear"}),
    ("a2c", 5, {"rollout_length": 5}),
]


class Hooked(Agent):
    """Writes down what each hook is told of time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.told: list[tuple[str, int, int]] = []

    def pre_interaction(self, timestep, timesteps):
        self.told.append(("pre", timestep, timesteps))
        super().pre_interaction(timestep, timesteps)

    def act(self, *args, timestep, timesteps, **kwargs):
        self.told.append(("act", timestep, timesteps))
        return super().act(*args, timestep=timestep, timesteps=timesteps, **kwargs)

    def record_transition(self, *, timestep, timesteps, **kwargs):
        self.told.append(("record", timestep, timesteps))
        super().record_transition(timestep=timestep, timesteps=timesteps, **kwargs)

    def post_interaction(self, timestep, timesteps):
        self.told.append(("post", timestep, timesteps))
        super().post_interaction(timestep, timesteps)


def make(
    cls: type, parts: list = ONE, timesteps: int | None = 60, *, env_id: str = "CartPole-v1", backend: str = "torch",
    evaluation: bool = True, agent_class: type = Agent, **how: Any,
) -> Any:  # fmt: skip
    """Return a trainer of one agent per part."""
    cfg = {"id": env_id, "num_envs": sum(size for _, size, _ in parts)}
    env = GymnasiumEnv(cfg, seed=2)
    agents = []
    for index, (name, size, settings) in enumerate(parts):
        module = importlib.import_module(f"rltrain.agents.{name}.{backend}")
        arguments = {"num_envs": size, "cfg": {"network": NETWORK, **settings}, "seed": 2, "index": index}
        algorithm = getattr(module, name.upper())(env.observation_space, env.action_space, **arguments)
        agents.append(agent_class(algorithm, name=f"{name}_{index}"))
    if evaluation:
        how["evaluation_env"] = GymnasiumEnv(cfg, seed=2, role=EVALUATION_ENVIRONMENTS)
    settings = {"timesteps": timesteps, "disable_progressbar": True, **how.pop("cfg", {})}
    return cls(env, agents, [size for _, size, _ in parts], settings, **how)


def kept(trainer: Any) -> dict[str, Any]:
    """Return everything that a checkpoint holds, but for the clock."""
    parts, exact = trainer.snapshot()
    assert exact
    parts["trainer"].pop("training_seconds")
    return parts


def make_run(directory: Path | None, **how: int) -> Run:
    return Run(
        directory=directory,
        tracking=TrackingConfig(interval=16, tensorboard=False),
        checkpoints=CheckpointsConfig(interval=how.get("checkpoints", 25), keep=20),
        evaluation=EvaluationConfig(interval=how.get("evaluation", 20), episodes=3),
    )


def contents(directory: Path) -> tuple[Any, Any]:
    """Return a run's rows and its checkpoints' files, without what depends on the clock."""
    from command_line import rows

    store, saved = CheckpointStore(directory / "checkpoints"), {}
    for path in sorted(path for path in store.directory.iterdir() if path.is_dir()):
        files = verify(path)["files"]
        saved[path.name] = {name: file["sha256"] for name, file in files.items() if not name.startswith("trainer.")}
    pointers = {name: path.name for name in ("latest", *store.bests(), "best") if (path := store.pointer(name))}
    return rows(directory), (saved, pointers)


# -- step == sequential ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [ONE, TWO], ids=["one", "two"])
@pytest.mark.parametrize(
    ("backend", "env_id"),
    [("torch", "CartPole-v1"), ("torch", "Pendulum-v1"), ("jax", "CartPole-v1"),
     pytest.param("jax", "Pendulum-v1", marks=pytest.mark.slow)],
)  # fmt: skip
def test_step_by_step_is_sequential(backend, env_id, parts):
    pytest.importorskip(backend)
    sequential, step = (make(cls, parts, env_id=env_id, backend=backend) for cls in (SequentialTrainer, StepTrainer))
    sequential.train()
    for t in range(60):
        assert step.timestep == t and not step.is_finished
        step.train()
    assert step.is_finished and all(agent.updates >= 7 for agent in step.agents)
    np.testing.assert_equal(kept(step), kept(sequential))
    assert step.eval(episodes=5) == sequential.eval(episodes=5)


@pytest.mark.parametrize("parts", [ONE, TWO], ids=["one", "two"])
def test_files_are_those_of_the_sequential_trainer(parts, tmp_path):
    """Rows, evaluations, checkpoints, best and latest; the last step brings the run to its end."""
    for cls in (SequentialTrainer, StepTrainer):
        trainer = make(cls, parts, timesteps=70, run=make_run(tmp_path / cls.__name__))
        while trainer.timestep < 70:
            trainer.train()
        assert trainer.run._metrics is None  # closed
    one, other = (contents(tmp_path / cls.__name__) for cls in (SequentialTrainer, StepTrainer))
    assert one == other
    assert {"20", "25", "50", "70"} <= one[1][0].keys() and one[1][1]["latest"] == "70"


@pytest.mark.parametrize(
    ("first", "second"), [(StepTrainer, StepTrainer), (StepTrainer, SequentialTrainer), (SequentialTrainer, StepTrainer)]
)
@pytest.mark.parametrize("stop", [1, 24, 40, 43])
def test_resumed_is_uninterrupted_across_trainers(first, second, stop):
    whole = make(SequentialTrainer, TWO)
    whole.train()
    stopped, rest = make(first, TWO, timesteps=stop, horizon=60), make(second, TWO)
    stopped.train_to_end()
    rest.restore(copy.deepcopy(stopped.snapshot()[0]))
    rest.train_to_end()
    np.testing.assert_equal(kept(rest), kept(whole))


def test_jax_on_its_own_environment_acts_step_by_step_and_equals_the_fused_run():
    pytest.importorskip("jax")
    from functional_envs import make_trainer

    from rltrain.agents.a2c.jax import A2C
    from rltrain.agents.ppo.jax import PPO

    parts = [(PPO, 3, {"rollout_length": 16, "epochs": 2, "normalize_observations": True}), (A2C, 2, {"rollout_length": 24})]
    fused = make_trainer(parts, timesteps=105, fused="true")
    fused.train()
    step = make_trainer(parts, timesteps=105, fused="auto", kind=StepTrainer)
    results = [step.train() for _ in range(105)]
    np.testing.assert_equal(kept(step), kept(fused))
    assert len({float(result.rewards[0]) for result in results}) > 50
    with pytest.raises(ConfigError, match=r"trainer.fused=true: a step trainer makes one timestep at a time; use auto or false"):
        make_trainer(parts, timesteps=105, fused="true", kind=StepTrainer)


# -- what a call is told and returns -----------------------------------------------------------------------------------------


def test_a_step_returns_the_true_successors():
    trainer = make(StepTrainer, timesteps=200)
    ended = 0
    for _ in range(200):
        observations, rewards, terminated, truncated, infos = trainer.train()
        assert observations.shape == (4, 4) and rewards.tolist() == [1.0] * 4 and isinstance(infos, dict)
        out = (np.abs(observations[:, 0]) > 2.4) | (np.abs(observations[:, 2]) > 12 * 2 * np.pi / 360)
        assert (out == terminated).all() and not truncated.any()
        assert (np.abs(trainer.observations[terminated]) <= 0.05).all()  # where an episode begins
        assert np.array_equal(trainer.observations[~terminated], observations[~terminated])
        ended += terminated.sum()
    assert ended > 10


@pytest.mark.parametrize("parts", [ONE, TWO], ids=["one", "two"])
def test_every_hook_is_told_the_same(parts):
    trainer = make(StepTrainer, parts, timesteps=100, agent_class=Hooked, horizon=500)
    trainer.train()
    trainer.train(timesteps=30)
    trainer.train(timestep=2)
    trainer.train(2 + 1, 40)
    trainer.train()
    for agent in trainer.agents:
        hooks = ("pre", "act", "record", "post")
        expected = [(0, 500), (1, 30), (2, 500), (3, 40), (4, 500)]
        assert agent.told == [(hook, *time) for time in expected for hook in hooks]
        agent.told.clear()
    trainer.eval()
    trainer.eval(timestep=7, timesteps=9)
    trainer.eval()
    assert [agent.told for agent in trainer.agents] == [[("act", 0, 500), ("act", 7, 9), ("act", 8, 500)]] * len(parts)


def test_timesteps_may_come_with_the_call():
    trainer = make(StepTrainer, timesteps=None, agent_class=Hooked)
    with pytest.raises(ConfigError, match=r"trainer.timesteps=null: say how long to train"):
        trainer.train()
    for timestep in range(10):
        trainer.train(timestep, 10)
    assert trainer.is_finished and trainer.agents[0].told[-1] == ("post", 9, 10)
    whole = make(SequentialTrainer, timesteps=10)
    whole.train()
    np.testing.assert_equal(kept(trainer), kept(whole))


@pytest.mark.parametrize(("how", "sentence"), [
    ({"timestep": -1}, "timestep=-1: must be a whole number >= 0"),
    ({"timestep": 1.0}, "timestep=1.0: must be"),
    ({"timestep": True}, "timestep=true: must be"),
    ({"timesteps": 0}, "timesteps=0: must be a whole number >= 1"),
    ({"timestep": 60}, "trainer.timesteps=60: all of them were made"),
])  # fmt: skip
def test_what_a_call_refuses_changes_nothing(how, sentence):
    trainer = make(StepTrainer)
    trainer.train()
    before = kept(trainer)
    with pytest.raises(ConfigError, match=sentence):
        trainer.train(**how)
    np.testing.assert_equal(kept(trainer), before)


# -- the end -----------------------------------------------------------------------------------------------------------------


def test_after_the_last_timestep(tmp_path):
    trainer = make(StepTrainer, timesteps=10, run=make_run(tmp_path, checkpoints=0, evaluation=0))
    for _ in range(10):
        trainer.train()
    before = kept(trainer), contents(tmp_path)
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"trainer.timesteps=10: all of them were made; set trainer.timesteps to more"):
            trainer.train()
    np.testing.assert_equal((kept(trainer), contents(tmp_path)), before)
    trainer.timesteps = 25  # goes on in the same files
    while not trainer.is_finished:
        trainer.train()
    rows, (saved, _) = contents(tmp_path)
    assert [row["timestep"] for row in rows] == [10, 16, 25] and list(saved) == ["10", "25"]
    whole = make(SequentialTrainer, timesteps=25, horizon=10)
    whole.train()
    np.testing.assert_equal(kept(trainer), kept(whole))


def test_finish_ends_it_before(tmp_path):
    trainer = make(StepTrainer, run=make_run(tmp_path, checkpoints=0, evaluation=0))
    trainer.finish()  # nothing was begun
    assert not list(tmp_path.iterdir())
    trainer.timesteps = 60
    for _ in range(10):
        trainer.train()
    assert not CheckpointStore(tmp_path / "checkpoints").pointer("latest")
    trainer.finish()
    trainer.finish()
    rows, (saved, _) = contents(tmp_path)
    assert trainer.is_finished and [row["timestep"] for row in rows] == [10] and list(saved) == ["10"]
    whole = make(SequentialTrainer, timesteps=10, horizon=60)
    whole.train()
    np.testing.assert_equal(kept(trainer), kept(whole))


def test_an_error_in_a_step_closes_the_files_and_gives_the_signals_back(tmp_path):
    trainer = make(StepTrainer, run=make_run(tmp_path))
    handler = signal.getsignal(signal.SIGTERM)
    trainer.train()
    assert signal.getsignal(signal.SIGTERM) != handler  # also between steps
    trainer.env.step = lambda actions: 1 / 0
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert signal.getsignal(signal.SIGTERM) == handler and trainer.run._metrics is None


def test_a_trainer_takes_what_every_trainer_takes():
    assert make(StepTrainer, cfg={"render_interval": 3}).cfg.render_interval == 3
    env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 4})
    assert StepTrainer(env, make(StepTrainer).agents, cfg=TrainerConfig(timesteps=7)).timesteps == 7
    with pytest.raises(ConfigError, match=r"trainer\.callbak=1: no such key; did you mean 'callback'"):
        make(StepTrainer, cfg={"callbak": 1})
    with pytest.raises(ConfigError, match=r"trainer.callback=a:b: names are for the command line; give the function"):
        make(StepTrainer, cfg={"callback": "a:b"})


# -- signals -----------------------------------------------------------------------------------------------------------------


class Signalling(Agent):
    """Sends this process a signal in the middle of a step."""

    at: tuple[int, int] = (-1, 0)

    def act(self, *args, timestep, **kwargs):
        if timestep == self.at[0]:
            os.kill(os.getpid(), self.at[1])
        return super().act(*args, timestep=timestep, **kwargs)


def test_a_signal_in_a_step_of_a_run_with_a_directory(tmp_path, monkeypatch):
    """test_signals.py has the other signals; a script that has caught it may evaluate what it has."""
    monkeypatch.setattr(Signalling, "at", (10, signal.SIGUSR1))
    trainer = make(StepTrainer, agent_class=Signalling, run=make_run(tmp_path, checkpoints=0, evaluation=0))
    with pytest.raises(SystemExit) as raised:
        while not trainer.is_finished:
            trainer.train()
    assert raised.value.code == 138 and trainer.timestep == 11 and list(contents(tmp_path)[1][0]) == ["11"]
    monkeypatch.setattr(Signalling, "at", (-1, 0))
    assert len(trainer.eval(episodes=5)["ppo_0"]["returns"]) == 5 and trainer.is_finished
    assert (tmp_path / "train.log").read_text().count("stopped by") == 1


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_without_a_directory_ends_the_script_after_the_step(number, error, monkeypatch):
    monkeypatch.setattr(Signalling, "at", (10, number))
    trainer = make(StepTrainer, agent_class=Signalling)
    before = signal.getsignal(number)
    with pytest.raises(error):
        while not trainer.is_finished:
            trainer.train()
            assert signal.getsignal(number) == before
    assert trainer.timestep == 11 and signal.getsignal(number) == before
    while trainer.timestep < 60:  # a script that has caught it may go on
        trainer.train()
    whole = make(SequentialTrainer)
    whole.train()
    np.testing.assert_equal(kept(trainer), kept(whole))


def test_a_signal_between_steps_waits_for_the_next(tmp_path):
    trainer = make(StepTrainer, run=make_run(tmp_path, checkpoints=0, evaluation=0))
    trainer.train()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(SystemExit):
        trainer.train()
    assert trainer.timestep == 2 and list(contents(tmp_path)[1][0]) == ["2"]


# -- evaluation --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [ONE, TWO], ids=["one", "two"])
@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_evaluation_by_steps_is_that_of_the_sequential_trainer(parts, stochastic, backend):
    pytest.importorskip(backend)
    cfg = {"stochastic_evaluation": stochastic}
    sequential, step = (make(cls, parts, cfg=cfg, backend=backend) for cls in (SequentialTrainer, StepTrainer))
    for trainer in (sequential, step):
        trainer.train_to_end()
    before = kept(step)
    rewards = 0.0
    for _ in range(60):
        observations, reward, terminated, truncated, _ = step.eval()
        rewards += reward
        going = ~(terminated | truncated)
        assert np.array_equal(step.evaluation_observations[going], observations[going])
    assert step.evaluation_results() == sequential.eval()
    assert rewards.tolist() == [60.0] * len(rewards)
    np.testing.assert_equal(kept(step), before)


def test_an_evaluation_goes_on_until_timestep_0_is_asked_for():
    trainer = make(StepTrainer)
    first = [trainer.eval().observations.tolist() for _ in range(6)]
    trainer.train()  # has an environment of its own
    assert trainer.eval(timestep=0).observations.tolist() == first[0]
    assert [trainer.eval().observations.tolist() for _ in range(5)] == first[1:]
    trainer.eval(episodes=2)
    assert trainer.evaluation_results() == {} and trainer.evaluation_observations is None
    assert trainer.eval().observations.tolist() == first[0]
    trainer.reset(trainer.timestep)
    assert trainer.eval().observations.tolist() == first[0]


def test_evaluations_between_steps_change_nothing():
    trainer = make(StepTrainer, TWO)
    for t in range(60):
        trainer.train()
        if t % 7 == 0:
            trainer.eval()
        if t == 30:
            trainer.eval(episodes=4)
    whole = make(SequentialTrainer, TWO)
    whole.train()
    np.testing.assert_equal(kept(trainer), kept(whole))


def test_without_an_evaluation_environment_training_begins_new_episodes():
    sequential, step = make(SequentialTrainer, timesteps=13, evaluation=False), make(StepTrainer, evaluation=False)
    said = []
    step.run.say = said.append
    sequential.horizon = 60
    sequential.train()
    for _ in range(13):
        step.train()
    sequential.eval(episodes=4)
    for _ in range(5):
        step.eval()
    assert said == ["evaluation resets the training environment: no evaluation_env was given"]
    assert step.observations is None and step.evaluation_observations is not None
    step.train()
    assert step.evaluation_results() == {}  # its copies train again
    step.eval(episodes=4)
    for _ in range(10):
        step.train()
    assert step.timestep == 24 and step.agents[0].updates == 3


# -- reset -------------------------------------------------------------------------------------------------------------------


def test_reset_begins_new_episodes_and_counts_from_0():
    trainer = make(StepTrainer, agent_class=Hooked)
    for _ in range(13):
        trainer.train()
    learned = trainer.agents[0].snapshot()["policy"]
    observations = trainer.reset()
    assert observations is trainer.observations and (np.abs(observations) <= 0.05).all() and trainer.timestep == 0
    np.testing.assert_equal(trainer.agents[0].snapshot()["policy"], learned)
    for _ in range(60):
        trainer.train()
    assert trainer.agents[0].told[-4 * 60] == ("pre", 0, 60) and trainer.is_finished
    assert trainer.agents[0].updates == 1 + 7  # the rollout under way was dropped
    assert trainer.agents[0].statistics.env_steps == 73 * 4


def test_rows_after_a_reset():
    trainer = make(StepTrainer, run=make_run(None, evaluation=0))
    rows = []
    trainer.run.write_metrics = lambda agent, timestep, env_steps, row: rows.append((timestep, env_steps))
    for _ in range(40):
        trainer.train()
    trainer.reset()
    while not trainer.is_finished:
        trainer.train()
    assert rows == [(16, 64), (32, 128), (16, 224), (32, 288), (48, 352), (60, 400)]


def test_a_timestep_below_the_count_starts_over():
    one, other = make(StepTrainer), make(StepTrainer)
    for trainer in (one, other):
        for _ in range(13):
            trainer.train()
    one.reset()
    one.train()
    other.train(timestep=0)
    np.testing.assert_equal(kept(one), kept(other))


def test_reset_may_count_on():
    """What was recorded is learned from: the rows before it are truncated, with their true successors."""
    trainer = make(StepTrainer, agent_class=Hooked)
    for _ in range(13):
        trainer.train()
    last, rows = trainer.observations, trainer.agents[0].algorithm.memory
    trainer.reset(trainer.timestep)
    assert rows.position == 5 and rows._arrays["truncated"][4].all()
    np.testing.assert_array_equal(rows._successors[-1]["observations"], last)
    while not trainer.is_finished:
        trainer.train()
    assert trainer.timestep == 60 and trainer.agents[0].updates == 7
    assert [time[1] for time in trainer.agents[0].told[::4]] == list(range(60))


def test_reset_before_the_first_step_changes_nothing():
    trainer, whole = make(StepTrainer), make(SequentialTrainer)
    trainer.reset()
    trainer.train_to_end()
    whole.train()
    np.testing.assert_equal(kept(trainer), kept(whole))


def test_a_run_with_files_does_not_count_back(tmp_path):
    trainer = make(StepTrainer, run=make_run(tmp_path))
    for _ in range(13):
        trainer.train()
    for call in (trainer.reset, lambda: trainer.train(timestep=3)):
        with pytest.raises(
            ConfigError, match=r"timestep=\d: the run's files are at timestep 13 already; reset\(trainer.timestep\)"
        ):
            call()
    trainer.reset(trainer.timestep)
    assert trainer.train().rewards.shape == (4,) and trainer.timestep == 14
    trainer.finish()


# -- callbacks ---------------------------------------------------------------------------------------------------------------


def test_a_callback_comes_after_each_step_and_before_what_is_due(tmp_path):
    calls = []

    def callback(trainer, result):
        calls.append((trainer.timestep, result.rewards.shape, trainer.agents[0].updates))
        assert not (tmp_path / "checkpoints" / str(trainer.timestep)).exists()
        if trainer.timestep == 30:
            trainer.finish()

    trainer = make(StepTrainer, run=make_run(tmp_path), callback=callback)
    trainer.train_to_end()
    assert calls == [(t, (4,), t // 8) for t in range(1, 31)]
    assert trainer.timestep == 30 and contents(tmp_path)[1][1]["latest"] == "30"


def test_an_error_in_a_callback_names_it():
    def wrong(trainer, result):
        raise ValueError("no\nmore")

    trainer = make(StepTrainer, callback=wrong)
    with pytest.raises(RunError, match=r"^trainer.callback=.*wrong: after timestep 0: ValueError: no$") as raised:
        trainer.train()
    assert isinstance(raised.value.__cause__, ValueError)
