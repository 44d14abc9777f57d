"""Every kind of observation with every kind of action: acted inside the space, stored as it was, resumed to the bit."""

import functools
import itertools
import json

import numpy as np
import pytest
import torch
from command_line import call, rows, summary, train
from resumed import resumed
from space_envs import ACTIONS, OBSERVATIONS, Stamped, stamp

from rltrain import spaces
from rltrain.agents.a2c.torch import A2C
from rltrain.agents.base import Agent
from rltrain.agents.ppo.torch import PPO
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.memories.rollout.torch import Rollout
from rltrain.trainers import SequentialTrainer

NETWORK = {"policy_sizes": [8], "value_sizes": [6]}
SHAPES = [(5, 13, 4), (4, 11, 3), (3, 13, 3), (6, 14, 5)]  # rollout, timesteps, minibatches: none divides
BOUNDED = ["box", "box of different bounds", "double", "half precision"]
HEADS = [*((name, False) for name in ACTIONS), *((name, True) for name in BOUNDED)]
BOTH = ("box", "dict", "nested")  # with one copy and with three; the others with one or the other, in turn
CASES = [
    pytest.param(*case, SHAPES[i % len(SHAPES)], i % 3 == 0, id=f"{case[0]}-{case[1][0]}{'-squashed' * case[1][1]}-{case[2]}")
    for i, case in enumerate(itertools.product(OBSERVATIONS, HEADS, (1, 3)))
    if case[0] in BOTH or i % 4 in (0, 3)
]
A2C_CASES = [pytest.param(o, a, id=f"{o}-{a}") for i, (o, a) in enumerate(itertools.product(OBSERVATIONS, ACTIONS)) if i % 4 == 0]


class Case:
    """A run on `Stamped` that keeps its rollouts."""

    def __init__(self, kind, observations: str, actions: str, num_envs: int, cfg: dict, timesteps: int) -> None:
        make = functools.partial(Stamped, observations, actions)
        self.env = GymnasiumEnv({"id": f"{observations}, {actions}", "num_envs": num_envs}, seed=3, make=make)
        self.algorithm = kind(self.env.observation_space, self.env.action_space, num_envs=num_envs, cfg=cfg, seed=3)
        settings = {"timesteps": timesteps, "disable_progressbar": True, "close_environment_at_exit": False}
        self.trainer = SequentialTrainer(self.env, Agent(self.algorithm), cfg=settings)
        self.rollouts: list[Rollout] = []
        self._read, self.algorithm.memory.read = self.algorithm.memory.read, self.read

    def read(self) -> Rollout:
        """Read the rollout, keep a copy."""
        rollout = self._read()
        self.rollouts.append(
            rollout._replace(
                observations=spaces.map_arrays(torch.clone, rollout.observations),
                outputs={key: array.clone() for key, array in rollout.outputs.items()},
            )
        )
        return rollout

    def copies(self) -> list[Stamped]:
        return [copy.unwrapped for copy in self.env._venv.envs]

    def parameters(self) -> np.ndarray:
        return self.algorithm.learners["actor_critic"].parameters.values.numpy().copy()


def play(kind, observations: str, actions: str, num_envs: int, shape: tuple, cfg: dict) -> Case:
    """Train at once and with a stop in the middle of the second rollout; return the former."""
    length, timesteps, _ = shape
    cases = []

    def start(timesteps: int) -> SequentialTrainer:
        cases.append(Case(kind, observations, actions, num_envs, cfg, timesteps))
        return cases[-1].trainer

    before = Case(kind, observations, actions, num_envs, cfg, timesteps).parameters()
    resumed(start, timesteps, length + 1)
    whole = cases[0]
    assert np.isfinite(whole.parameters()).all() and not np.array_equal(whole.parameters(), before)
    assert len(whole.rollouts) == timesteps // length
    return whole


def check_rollouts(case: Case, num_envs: int, length: int) -> None:
    """Compare what was stored with what each copy says it gave and got."""
    copies, space = case.copies(), case.env.observation_space
    for i, rollout in enumerate(case.rollouts):
        for t, n in itertools.product(range(length), range(num_envs)):
            expected = spaces.flatten(space, stamp(space, copies[n].acted_at[i * length + t]))
            assert_same(spaces.map_arrays(lambda array, at=(t, n): array[at], rollout.observations), expected)
            action = case.algorithm.distribution.to_environment(rollout.outputs["actions"][t, n : n + 1])[0]
            assert np.array_equal(action.numpy().astype(case.env.action_space.dtype), copies[n].actions[i * length + t])
        for k, row in enumerate(rollout.last_rows.tolist()):  # one more than what was acted on; a reset would make it two
            expected = spaces.flatten(space, stamp(space, copies[row % num_envs].acted_at[i * length + row // num_envs] + 1))
            assert_same(spaces.map_arrays(lambda array, at=k: array[at], rollout.last_observations), expected)
        last = [row for row in rollout.last_rows.tolist() if row >= (length - 1) * num_envs]
        assert sorted(last) == [(length - 1) * num_envs + n for n in range(num_envs)]


def assert_same(stored, expected) -> None:
    """Compare values and dtypes leaf by leaf."""
    stored, expected = (spaces.named(arrays, "observations") for arrays in (stored, expected))
    assert list(stored) == list(expected)
    for path, array in stored.items():
        assert np.array_equal(array.numpy(), expected[path]) and array.numpy().dtype == np.asarray(expected[path]).dtype, path


@pytest.mark.parametrize(("observations", "head", "num_envs", "shape", "normalize"), CASES)
def test_ppo(observations, head, num_envs, shape, normalize):
    actions, squashed = head
    length, _, minibatches = shape
    cfg = {
        "rollout_length": length, "minibatches": minibatches, "epochs": 2, "normalize_observations": normalize,
        "network": {**NETWORK, "squashed": squashed},
    }  # fmt: skip
    case = play(PPO, observations, actions, num_envs, shape, cfg)
    check_rollouts(case, num_envs, length)
    # ---- evaluation
    parameters = case.parameters()
    results = case.trainer.eval(episodes=4)["agent"]
    assert len(results["returns"]) == 4 and np.isfinite(results["returns"]).all()
    assert set(results["lengths"]) <= {3, 4, 5}
    assert np.array_equal(case.parameters(), parameters)


@pytest.mark.parametrize(("observations", "actions"), A2C_CASES)
def test_a2c(observations, actions):
    case = play(A2C, observations, actions, 3, (5, 13, 1), {"rollout_length": 5, "network": NETWORK})
    check_rollouts(case, 3, 5)
    assert len(case.trainer.eval(episodes=4)["agent"]["returns"]) == 4


@pytest.mark.parametrize("name", ["unbounded", "half bounded"])
def test_squashed_needs_bounds(name):
    with pytest.raises(ValueError, match=r"agents.ppo.network.squashed=true: the actions Box.* are not bounded on all sides"):
        PPO(OBSERVATIONS["box"], ACTIONS[name], num_envs=1, cfg={"network": {"squashed": True}})


def test_composite_spaces_by_the_command_line(here):
    """Trained, stopped half way, resumed to the same parameters and rows, evaluated."""
    run = ("env=space_envs:Stamped-v0", "env.kwargs={observations: nested, actions: multi discrete}", "schedule.horizon=100",
           "agents.ppo.normalize_observations=true")  # fmt: skip
    train(*run, "run.dir=whole", "trainer.timesteps=100")
    train(*run, "run.dir=run", "trainer.timesteps=50")
    assert call("train", "resume=run", "trainer.timesteps=100").status == 0
    hashes = [summary(here / name)["agents"]["ppo"]["parameters_sha256"] for name in ("whole", "run")]
    assert hashes[0] == hashes[1]
    last = [rows(here / name)[-1] for name in ("whole", "run")]
    assert last[0] == last[1] and last[0]["timestep"] == 100
    result = call("eval", "checkpoint=run", "episodes=6", "json=true")
    assert result.status == 0, result.err
    figures = json.loads(result.out)["agents"]["ppo"]
    assert figures["episodes"] == 6 and 3 <= figures["length_mean"] <= 5
