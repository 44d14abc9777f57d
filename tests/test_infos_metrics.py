"""tracking.infos: numbers that an environment tells besides rewards, as means in the metrics."""

import os
import signal
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from command_line import assert_one_error, call, rows
from gymnasium import spaces

from rltrain.agents.a2c.torch import A2C
from rltrain.agents.base import Agent
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.runs import Run
from rltrain.tracking import TrackingConfig
from rltrain.trainers import SequentialTrainer
from rltrain.trainers.bookkeeping import select_infos


class Telling(gymnasium.Env):
    """Tells much in `infos`; the seed of the first `reset` is the copy's own number c, t counts its steps from 1."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        self.number = seed or 0
        self.steps = 0
        return np.zeros(1, np.float32), {"height": -999.0}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        c, t = self.number, self.steps
        infos: dict[str, Any] = {
            "height": 100.0 * c + t,
            "upright": c == 2,
            "joints": {"left": float(c), "deep": {"right": 10 * t}},
            "name": "walker",
            "pair": np.array([c, c + 1.0]),
        }
        if t % 2 == 0 and c > 1:
            infos["sometimes"] = 1000.0 * c + t
        return np.zeros(1, np.float32), 0.0, False, False, infos


gymnasium.register("Telling-v0", Telling)


def told(tmp_path: Path, infos: list[str], *, sizes: tuple[int, ...] = (3,), timesteps: int = 4, interval: int = 2) -> list[dict]:
    """Train on copies 1, 2, ... and return each row's timestep, agent and info/ tags."""
    env = GymnasiumEnv({"id": "Telling-v0", "num_envs": sum(sizes)})
    env.seeds = list(range(1, sum(sizes) + 1))
    made = env.observation_space, env.action_space
    agents = [Agent(A2C(*made, num_envs=size, index=i), name="abc"[i]) for i, size in enumerate(sizes)]
    tracking = TrackingConfig(interval=interval, tensorboard=False, infos=infos)
    run = Run(directory=tmp_path, agents=[agent.name for agent in agents], tracking=tracking)
    SequentialTrainer(env, agents, list(sizes), {"timesteps": timesteps, "disable_progressbar": True}, run=run).train()
    tags = ("timestep", "agent")
    return [{tag: value for tag, value in row.items() if tag in tags or tag.startswith("info/")} for row in rows(tmp_path)]


# -- means by hand -----------------------------------------------------------------------------------------------------------


def test_means_over_copies_and_timesteps(tmp_path):
    """Of 101, 102, 201, 202, 301, 302 the mean is 201.5; the two timesteps after them are 2 later."""
    found = told(tmp_path, ["height", "upright"])
    assert found == [
        {"timestep": 2, "agent": "a", "info/height": 201.5, "info/upright": 1 / 3},
        {"timestep": 4, "agent": "a", "info/height": 203.5, "info/upright": 1 / 3},
    ]


def test_a_key_within_a_key(tmp_path):
    """joints.left is the copy's number, (1 + 2 + 3) / 3; joints.deep.right is 10 t: 15, then 35."""
    found = told(tmp_path, ["joints.left", "joints.deep.right"])
    assert [(row["info/joints.left"], row["info/joints.deep.right"]) for row in found] == [(2.0, 15.0), (2.0, 35.0)]


def test_what_only_some_copies_tell_at_some_times(tmp_path):
    """Copies 2 and 3 at even times: (2002 + 3002) / 2, then (2004 + 3004) / 2; rows of odd times have nothing of it."""
    assert [row.get("info/sometimes") for row in told(tmp_path, ["sometimes"], interval=1)] == [None, 2502.0, None, 2504.0]


def test_an_array_counts_each_of_its_numbers(tmp_path):
    """[1, 2], [2, 3], [3, 4]: 15 / 6."""
    assert [row["info/pair"] for row in told(tmp_path, ["pair"])] == [2.5, 2.5]


def test_nothing_is_recorded_unasked(tmp_path):
    assert told(tmp_path, []) == [{"timestep": 2, "agent": "a"}, {"timestep": 4, "agent": "a"}]


def test_scopes_cut_them(tmp_path):
    """Copy 1 is a's: 101, 102; copies 2 and 3 are b's: 201, 202, 301, 302. Of `sometimes` a has nothing at all."""
    found = told(tmp_path, ["height", "joints.left", "sometimes", "upright"], sizes=(1, 2))
    a = {"agent": "a", "info/joints.left": 1.0, "info/upright": 0.0}
    b = {"agent": "b", "info/joints.left": 2.5, "info/upright": 0.5}
    assert found == [
        {"timestep": 2, **a, "info/height": 101.5},
        {"timestep": 2, **b, "info/height": 251.5, "info/sometimes": 2502.0},
        {"timestep": 4, **a, "info/height": 103.5},
        {"timestep": 4, **b, "info/height": 253.5, "info/sometimes": 2504.0},
    ]


# -- which numbers -------------------------------------------------------------------------------------------------------------

TWO = np.array([1.0, 2.0])
BOTH, SECOND = np.array([True, True]), np.array([False, True])


@pytest.mark.parametrize(
    ("infos", "keys", "found"),
    [
        ({"x": TWO}, ["x"], {"x": TWO}),
        ({"x": TWO, "_x": SECOND}, ["x"], {"x": TWO, "_x": SECOND}),
        ({"a": {"x": TWO, "_x": SECOND}, "_a": BOTH}, ["a.x"], {"a.x": TWO, "_a.x": SECOND}),
        ({"x": TWO}, ["y", "x.y", "y.x", "a.b.c"], {}),
        ({"a": {"x": TWO}}, ["a"], {}),
        ({"episode": {"r": TWO}, "x": TWO}, ["x"], {"r": TWO, "x": TWO}),
        ({"episode": {"r": TWO}}, ["episode.r"], {"r": TWO, "episode.r": TWO}),
        ({"episode": TWO}, [], {}),
    ],
)
def test_which_are_selected(infos, keys, found):
    np.testing.assert_equal(select_infos(infos, "episode", keys), found)


# -- on the command line ---------------------------------------------------------------------------------------------------------

SMALL = ("agents=a2c", "seed=1", "env.num_envs=2", "trainer.timesteps=30", "tracking.interval=10", "tracking.tensorboard=false",
         "trainer.disable_progressbar=true", "run.dir=run")  # fmt: skip


def test_half_cheetah(here, monkeypatch):
    """Every row has the means of what the simulator told since the row before."""
    pytest.importorskip("mujoco")
    seen: list[dict[str, np.ndarray]] = []

    def step(self, actions, real=GymnasiumEnv.step):
        answer = real(self, actions)
        seen.append({key: np.array(answer.infos[key]) for key in ("reward_forward", "x_position")})
        return answer

    monkeypatch.setattr(GymnasiumEnv, "step", step)
    assert call("train", *SMALL, "env=HalfCheetah-v5", "tracking.infos=[reward_forward,x_position]").status == 0
    found = rows(here / "run")
    assert [row["timestep"] for row in found] == [10, 20, 30] and len(seen) == 30
    for i, row in enumerate(found):
        for key in ("reward_forward", "x_position"):
            expected = np.mean([infos[key] for infos in seen[10 * i : 10 * i + 10]])
            assert row[f"info/{key}"] == pytest.approx(expected, rel=1e-12)
        assert not [tag for tag in row if tag.startswith("info/") and tag[5:] not in ("reward_forward", "x_position")]


def test_a_resume_goes_on_with_the_sum(here, monkeypatch):
    """Stopped after 13 of 30 timesteps, the row at 20 has the mean of all ten since 10."""
    keys = "tracking.infos=[height,joints.left,sometimes]"
    assert call("train", *SMALL, "env=Telling-v0", keys, "run.dir=whole").status == 0

    def pre_interaction(self, timestep, timesteps):
        if timestep == 12:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Agent, "pre_interaction", pre_interaction)
        assert call("train", *SMALL, "env=Telling-v0", keys).status == 143
    assert call("train", "resume=run").status == 0
    found = rows(here / "run")
    assert found == rows(here / "whole")
    heights = [row["info/height"] for row in found]
    assert heights[1] - heights[0] == heights[2] - heights[1] == 10  # t grows by 10 from row to row


def said(result: Any) -> list[str]:
    return [line for line in result.err.splitlines() if line.startswith("tracking.infos=")]


def test_a_key_that_is_not_there_is_said_once_with_what_is(here):
    missing = "tracking.infos=[height,hight,joints.middle,joints.left]"
    (line,) = said(call("train", *SMALL, "env=Telling-v0", missing))
    assert line.startswith(
        "tracking.infos=hight, joints.middle: no such numbers in `infos` so far; this timestep's have height, joints, name, pair"
    )
    assert (here / "run/train.log").read_text().count("no such numbers in `infos`") == 1
    assert all({"info/height", "info/joints.left"} <= row.keys() for row in rows(here / "run"))


def test_an_environment_that_tells_nothing(here):
    (line,) = said(call("train", *SMALL, "tracking.infos=[height]"))
    assert line == "tracking.infos=height: no such numbers in `infos` so far; this timestep's have nothing"


def test_a_key_that_comes_in_time_is_not_missed(here):
    """`sometimes` comes in the second timestep, the first row of metrics at the tenth."""
    assert said(call("train", *SMALL, "env=Telling-v0", "tracking.infos=[sometimes]")) == []


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("height", "tracking.infos=height: must be a list, each item text, not empty"),
        ("null", "tracking.infos=null: must be a list"),
        ("[3]", "tracking.infos[0]=3: must be text, not empty"),
        ("[height,'']", "tracking.infos[1]=: must be text, not empty"),
        ("[null]", "tracking.infos[0]=null: must be text"),
        ("[[height]]", "tracking.infos[0]=['height']: must be text"),
    ],
)
def test_what_is_no_list_of_keys(value, sentence, here):
    assert_one_error(call("train", f"tracking.infos={value}"), 2, sentence)
    assert not list(here.iterdir())
