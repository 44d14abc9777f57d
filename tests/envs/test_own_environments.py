"""`env=module:Name` where Name is a class or a function of the module, nothing that it registered: like any other environment."""

import json
import sys

import gymnasium
import pytest
import yaml
from command_line import assert_one_error, call, summary, train

from rltrain import modules
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.errors import ConfigError

OWN = '''
import gymnasium
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv


class Point(gymnasium.Env):
    """Walks on a line, pushed about; 1 for every step near the middle."""

    observation_space = gymnasium.spaces.Box(-10, 10, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, push=0.5, render_mode=None):
        self.push, self.render_mode = push, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.steps = self.np_random.normal(), 0
        return np.array([self.at], np.float32), {}

    def step(self, action):
        self.steps += 1
        self.at = float(np.clip(self.at + 0.4 * action - 0.2 + self.np_random.normal(0, self.push), -10, 10))
        return np.array([self.at], np.float32), float(abs(self.at) < 1), abs(self.at) > 5, self.steps >= 30, {}


def short(length=20, **kwargs):
    return gymnasium.wrappers.TimeLimit(Point(**kwargs), length)


class Team:
    pass


Team.__module__ = "own_env"
number = 3
gymnasium.register("OwnPole-v0", CartPoleEnv)
gymnasium.register("OwnPoint-v0", "own_env:Point", max_episode_steps=7)
'''


@pytest.fixture
def own(here):
    """A module in the current directory, which is on no path."""
    before = list(sys.path)
    (here / "own_env.py").write_text(OWN)
    yield here
    modules.begin([], program=False)
    sys.path[:] = before
    forget()


def forget():
    """Have the module imported anew."""
    sys.modules.pop("own_env", None)
    for name in ("OwnPole-v0", "OwnPoint-v0"):
        gymnasium.registry.pop(name, None)


@pytest.fixture
def imported(own, monkeypatch):
    monkeypatch.syspath_prepend(str(own))


@pytest.mark.parametrize(
    "how", [(), ("env.vectorization=async",), ("env.kwargs.max_episode_steps=9", "env.kwargs.push=0.1")]
)  # fmt: skip
def test_a_class_trains_and_is_evaluated(how, own):
    train("env=own_env:Point", "trainer.timesteps=64", "run.dir=run", "env.num_envs=2", *how)
    assert yaml.safe_load((own / "run/config.yaml").read_text())["env"]["id"] == "own_env:Point"
    forget()
    assert_one_error(call("eval", "run", "episodes=2"), 2, "env.id=own_env:Point: a configuration names own_env", "trust=true")
    figures = json.loads(call("eval", "run", "episodes=2", "json=true", "trust=true").out)["agents"]["ppo"]
    assert figures["max"] <= 30 and (not how or len(how) == 1 or figures["length_mean"] == 9)


@pytest.mark.parametrize("env", ["own_env:Point", "own_env:short"])
def test_a_resumed_run_equals_the_uninterrupted_one(env, own):
    settings = (f"env={env}", "env.num_envs=3", "schedule.horizon=100")
    train(*settings, "run.dir=whole", "trainer.timesteps=100")
    train(*settings, "run.dir=parts", "trainer.timesteps=45")
    assert json.loads((own / "parts/checkpoints/45/manifest.json").read_text())["exact_resume"] is True
    result = call("train", "resume=parts", "trainer.timesteps=100", "trust=true")
    assert result.status == 0, result.err
    one, other = (summary(own / name)["agents"]["ppo"]["parameters_sha256"] for name in ("whole", "parts"))
    assert one == other


@pytest.mark.slow
@pytest.mark.parametrize("env", ["own_env:Point", "own_env:short"])
def test_workers_train_as_the_sequential_trainer_does(env, own):
    settings = (f"env={env}", "env.num_envs=4", "trainer.timesteps=64", "agents=[a:ppo,b:ppo]", "seed=1")
    for trainer in ("sequential", "parallel"):
        assert call("train", *settings, f"trainer={trainer}", f"run.dir={trainer}").status == 0
    one, other = (summary(own / name)["agents"] for name in ("sequential", "parallel"))
    assert [one[name]["parameters_sha256"] for name in "ab"] == [other[name]["parameters_sha256"] for name in "ab"]


def test_a_function_gets_the_arguments(imported):
    env = GymnasiumEnv({"id": "own_env:short", "num_envs": 2, "kwargs": {"length": 4, "push": 0.0}}, seed=1)
    assert (env.episode_limit, env.get_attr("push")) == (4, [0.0, 0.0])


def test_a_vector_environments_class_is_all_copies():
    env = GymnasiumEnv({"id": "sample_envs:CountingVector", "num_envs": 3, "vectorization": "native"})
    assert env.reset().shape == (3, 3)
    with pytest.raises(ConfigError, match=r"CountingVector: is a vector environment; set env\.vectorization=native, or name"):
        GymnasiumEnv({"id": "sample_envs:CountingVector", "num_envs": 3})


def test_an_id_comes_before_a_class(imported):
    gymnasium.register("Point", "own_env:short", kwargs={"length": 2})
    try:
        assert GymnasiumEnv({"id": "own_env:Point", "num_envs": 1}).episode_limit == 2
    finally:
        del gymnasium.registry["Point"]


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        (
            "own_env:Piont",
            "own_env has no Piont, neither a registered id nor a class or function; did you mean 'Point'? options: ",
        ),
        ("own_env:OwnPol-v0", "did you mean 'OwnPole-v0'? options: OwnPole-v0, CartPoleEnv, OwnPoint-v0, Point"),
        ("own_env:Team", "Team is a class that doesn't derive from gymnasium.Env"),
        ("own_env:number", "number is neither a class nor a function that makes an environment"),
        (
            "team_envs:Relay",
            "Relay is a class that doesn't derive from gymnasium.Env; PettingZoo's are for env=pettingzoo env.id=",
        ),
        (
            "only_here:Point",
            "only_here has no Point, neither a registered id nor a class or function; it registers no id and has no",
        ),
    ],
)
def test_what_a_module_has_not_is_said(env, sentence, own):
    if env.startswith("team_envs"):
        pytest.importorskip("pettingzoo")
    assert_one_error(call("train", f"env={env}"), 2, f"env.id={env}: ", sentence)
