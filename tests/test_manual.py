"""Training without a trainer: the scripts run, and their loop is the sequential trainer's to the bit."""

import ast
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rltrain.agents.base import Agent
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.seeding import EVALUATION_ENVIRONMENTS
from rltrain.trainers import SequentialTrainer

SCRIPTS = Path(__file__).parent.parent / "scripts"
NETWORK = {"policy_sizes": [8], "value_sizes": [8]}
ONE = [("ppo", 8, {"rollout_length": 8, "epochs": 2, "minibatches": 2})]
TWO = [("ppo", 3, {"rollout_length": 8, "epochs": 2, "normalize_observations": True}), ("a2c", 5, {"rollout_length": 5})]


def script(backend: str) -> Any:
    """Return a script as a module."""
    pytest.importorskip(backend)
    path = SCRIPTS / f"manual_{backend}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(backend: str, parts: list, env_id: str) -> tuple[GymnasiumEnv, GymnasiumEnv, dict[Agent, slice]]:
    """Return an environment to train on, one to evaluate on, and the agents with their scopes."""
    copies = sum(size for _, size, _ in parts)
    cfg = {"id": env_id, "num_envs": copies}
    env, test = GymnasiumEnv(cfg, seed=3), GymnasiumEnv(cfg, seed=3, role=EVALUATION_ENVIRONMENTS)
    agents, start = {}, 0
    for index, (name, size, settings) in enumerate(parts):
        module = importlib.import_module(f"rltrain.agents.{name}.{backend}")
        arguments = {"num_envs": size, "cfg": {"network": NETWORK, **settings}, "seed": 3, "index": index}
        algorithm = getattr(module, name.upper())(env.observation_space, env.action_space, **arguments)
        agents[Agent(algorithm, name=f"{name}_{index}")] = slice(start, start + size)
        start += size
    return env, test, agents


@pytest.mark.parametrize("parts", [ONE, TWO], ids=["one", "two"])
@pytest.mark.parametrize(
    ("backend", "env_id"),
    [("torch", "CartPole-v1"), ("torch", "Pendulum-v1"), ("jax", "CartPole-v1"),
     pytest.param("jax", "Pendulum-v1", marks=pytest.mark.slow)],
)  # fmt: skip
def test_the_manual_loop_is_the_sequential_trainer(backend, env_id, parts):
    play = script(backend).play
    env, test, agents = make(backend, parts, env_id)
    play(env, agents, 250, learn=True)
    returns = play(test, agents, 250, learn=False)

    other_env, other_test, others = make(backend, parts, env_id)
    sizes, cfg = [size for _, size, _ in parts], {"timesteps": 250, "disable_progressbar": True}
    trainer = SequentialTrainer(other_env, list(others), sizes, cfg, evaluation_env=other_test)
    trainer.train()
    for agent, other in zip(agents, others, strict=True):
        assert agent.updates >= 25 and agent.statistics.episodes > 0
        assert agent.read_metrics()  # what the trainer has written as its last row
        np.testing.assert_equal(agent.snapshot(), other.snapshot())
    np.testing.assert_equal(env.snapshot(), other_env.snapshot())
    results = trainer.eval()
    for agent, scope in agents.items():
        assert results[agent.name]["returns"] == np.concatenate(returns[scope]).tolist() != []


@pytest.mark.parametrize("backend", [pytest.param("torch", marks=pytest.mark.slow), "jax"])
def test_the_script_trains_and_evaluates(backend, tmp_path):
    pytest.importorskip(backend)
    path = SCRIPTS / f"manual_{backend}.py"
    result = subprocess.run([sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    means = ast.literal_eval(result.stdout.replace("np.float64", ""))
    assert list(means) == ["ppo_0", "ppo_1"] and all(60 < mean <= 500 for mean in means.values()), means  # random: 22
    assert not list(tmp_path.iterdir())
    assert len(path.read_text().splitlines()) < 40 and "rainer" not in path.read_text().partition('"""\n')[2]


def test_the_scripts_are_twins():
    one, other = ((SCRIPTS / f"manual_{backend}.py").read_text() for backend in ("torch", "jax"))
    assert one.replace(".torch", ".jax") == other


def test_an_evaluation_needs_no_preparation_and_changes_nothing():
    env, _, agents = make("torch", ONE, "CartPole-v1")
    ((agent, _),) = agents.items()
    before = agent.snapshot()
    how = {"timestep": 0, "timesteps": 1, "evaluation": True}
    observations = env.reset()
    acted = [agent.act(observations, explore=True, **how).tolist() for _ in range(5)]
    np.testing.assert_equal(agent.snapshot(), before)
    agent.begin_evaluation(8)  # seed 0 is what it had begun with
    assert acted == [agent.act(observations, explore=True, **how).tolist() for _ in range(5)]
