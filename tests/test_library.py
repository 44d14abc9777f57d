"""`import rltrain`: what a script makes equals what the command line makes, and what is wrong is said in a sentence."""

import ast
import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import sample_envs
import yaml
from command_line import call, train
from forgery import put_file
from gymnasium.envs.classic_control import CartPoleEnv

import rltrain
from rltrain import checkpoints, library, modules
from rltrain.agents.ppo.torch import PPO
from rltrain.config.schema import plugin_packages
from rltrain.envs.gymnasium import GymnasiumEnv

SMALL = {"rollout_length": 32, "epochs": 2, "minibatches": 2, "network": {"policy_sizes": [8], "value_sizes": [8]}}


def weights(agent):
    """Return what an agent acts by as plain data."""
    arrays: dict[str, np.ndarray] = {}
    tree = checkpoints.encode(agent.snapshot()["policy"], arrays)
    return tree, {name: array.tobytes() for name, array in arrays.items()}


def small(env, algorithm="ppo", **settings):
    return rltrain.make_agent(algorithm, env, **{**SMALL, **settings})


def test_importing_imports_nothing_else():
    code = "import rltrain, sys; print({'numpy', 'torch', 'jax', 'hydra', 'gymnasium', 'rich'} & set(sys.modules), dir(rltrain))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith("set() ") and all(f"'{name}'" in out for name in rltrain.__all__)


def test_all_says_what_is_there():
    """The same names at run time, for `import *`, and for editors and type checkers."""
    source = ast.parse(Path(rltrain.__file__).read_text())
    block = next(node for node in source.body if isinstance(node, ast.If))
    for_editors = [alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(rltrain.__all__) == sorted([*library.__all__, "__version__"]) == sorted([*for_editors, "__version__"])
    assert all(getattr(rltrain, name) is not None for name in rltrain.__all__)
    assert all(getattr(rltrain, name).__doc__ for name in rltrain.__all__)
    with pytest.raises(AttributeError, match="module 'rltrain' has no attribute 'make_environment'"):
        rltrain.make_environment  # noqa: B018


def test_four_lines_equal_the_command_line(here):
    train("trainer.timesteps=100", "run.dir=run", "agents.ppo.learning_rate=1e-3")
    env = rltrain.make_env("CartPole-v1", num_envs=4, seed=1)
    agent = small(env, learning_rate=1e-3)
    rltrain.SequentialTrainer(env, agent, total_env_steps=397).train()  # rounded up to whole timesteps
    assert agent.updates == 3
    with rltrain.load("run") as run:
        assert weights(run.agents["ppo"]) == weights(agent)
        assert run.trainer.timestep == 100


def test_several_agents_get_streams_and_copies_of_their_own(here):
    two = ("agents=[a:ppo,b:ppo]", "agents_scope=[1,3]", *of("a"), *of("b"))
    assert call("train", "seed=1", "env.num_envs=4", "trainer.timesteps=64", "run.dir=run", *two).status == 0
    env = rltrain.make_env("CartPole-v1", num_envs=4, seed=1)
    agents = [small(env, name="a", num_envs=1), small(env, name="b", num_envs=3, index=1)]
    rltrain.SequentialTrainer(env, agents, [1, 3], timesteps=64).train()
    with rltrain.load("run") as run:
        assert [weights(run.agents[agent.name]) for agent in agents] == list(map(weights, agents))


def of(name):
    """Return SMALL for an agent on the command line."""
    return [f"agents.{name}.{key}={value}" for key, value in SMALL.items() if key != "network"] + [
        f"agents.{name}.network.policy_sizes=[8]", f"agents.{name}.network.value_sizes=[8]",
    ]  # fmt: skip


def test_a_loaded_run_goes_on_as_if_it_had_never_stopped(here):
    train("trainer.timesteps=100", "run.dir=whole")
    train("trainer.timesteps=45", "run.dir=parts", "schedule.horizon=100")
    files = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    with rltrain.load("parts", overrides=["trainer.timesteps=100"]) as run, rltrain.load("whole") as whole:
        run.trainer.eval(episodes=4)  # on copies of its own
        run.trainer.train()
        assert weights(run.agents["ppo"]) == weights(whole.agents["ppo"])
        assert (run.config.seed, run.env.num_envs, run.checkpoint.name) == (1, 4, "45")
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == files  # nothing was written


def test_the_best_policy(trained, here):
    best = int((trained / "checkpoints/best").read_text())
    with rltrain.load(trained, "best") as run, rltrain.load(trained / f"checkpoints/{best}") as there:
        assert (run.checkpoint.name, run.trainer.timestep, there.trainer.timestep) == (str(best), 0, best)
        assert weights(run.agents["ppo"]) == weights(there.agents["ppo"])


def test_evaluate_gives_the_figures_of_the_command(trained, here):
    figures = rltrain.evaluate(trained, episodes=6, checkpoint="best", random=True, overrides=["env.num_envs=3"])
    assert list(here.iterdir()) == []
    shown = call("eval", f"{trained}/best", "episodes=6", "env.num_envs=3", "random=true", "json=true")
    assert figures == json.loads(shown.out) and figures["agents"]["ppo"]["episodes"] == 6
    rltrain.evaluate(trained, episodes=2, directory="kept")
    assert len(json.loads((here / "kept/eval.json").read_text())["episodes"]["ppo"]["returns"]) == 2


def test_a_class_or_a_function_makes_copies():
    env = rltrain.make_env(sample_envs.Counting, num_envs=2, seed=1, kwargs={"end": "truncated"})
    assert (env.name, env.num_envs, env.reset().shape) == ("Counting", 2, (2, 3))
    function = rltrain.make_env(lambda: sample_envs.Counting(length=5), num_envs=1)
    function.reset(seed=[0])
    assert [bool(function.step(np.zeros(1, int)).terminated[0]) for _ in range(5)] == [False] * 4 + [True]


def test_evaluations_have_streams_of_their_own():
    env, other = (rltrain.make_env("CartPole-v1", num_envs=2, seed=1, evaluation=evaluation) for evaluation in (False, True))
    assert env.seeds != other.seeds
    agent = small(env)
    trainer = rltrain.SequentialTrainer(env, agent, evaluation_env=other, total_env_steps=2e2)
    assert (trainer.timesteps, trainer.cfg.timesteps, len(trainer.eval(episodes=3)["ppo"]["returns"])) == (100, 100, 3)


def test_a_team():
    pytest.importorskip("mpe2")
    env = rltrain.make_env("mpe/simple_spread_v3", num_envs=2, kind="pettingzoo", seed=1)
    agent = small(env, "mappo")
    assert agent.members == env.members == ("agent_0", "agent_1", "agent_2")
    rltrain.SequentialTrainer(env, agent, timesteps=32).train()
    assert agent.updates == 1
    from team_envs import Relay

    assert rltrain.make_env(Relay, num_envs=2, kind="pettingzoo").members
    with pytest.raises(rltrain.ConfigError, match='env=Relay: is an environment of PettingZoo; add kind="pettingzoo"'):
        rltrain.make_env(Relay)


def raw(kind="env"):
    return gymnasium.make("CartPole-v1") if kind == "env" else gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="sync")


def bare():
    env = GymnasiumEnv("CartPole-v1")
    return PPO(env.observation_space, env.action_space, num_envs=8)


def made(**settings):
    return rltrain.make_env("CartPole-v1", **settings)


WRONG = [
    (lambda: rltrain.make_env("CartPol-v1"), "env.id=CartPol-v1: no such environment; did you mean 'CartPole-v1'?"),
    (lambda: made(kind="gymnasum"), "kind=gymnasum: no such choice; did you mean 'gymnasium'?"),
    (lambda: made(num_envs=0), "env.num_envs=0: must be a whole number >= 1"),
    (lambda: made(kwarg={}), "env.kwarg={}: no such key; did you mean 'kwargs'?"),
    (lambda: rltrain.make_env(raw()), 'its class or a function that makes one: rltrain.make_env("CartPole-v1", num_envs=8)'),
    (lambda: rltrain.make_env(made()), "env=GymnasiumEnv: is an environment of rltrain already; hand it to the trainer"),
    (lambda: rltrain.make_env(CartPoleEnv, kind="brax"), "env=CartPoleEnv: environments of kind=brax are made by id"),
    (lambda: rltrain.make_agent("pppo", made()), "algorithm=pppo: no such choice; did you mean 'ppo'?"),
    (lambda: small(made(), gamma=0.9), "agents.ppo.gamma=0.9: no such key; "),
    (lambda: small(made(), name="a", network={"policy_sizes": [0]}), "agents.a.network.policy_sizes[0]=0: must be a"),
    (lambda: small(made(), minibatches=1000), "agents.ppo.minibatches=1000: more than rollout_length=32 x 8 copies"),
    (lambda: small(made(), backend="tensorflow"), "backend.name=tensorflow: unknown; "),
    (lambda: small(made(), backend={"threads": 0}), "backend.threads=0: must be a whole number >= 1"),
    (lambda: rltrain.make_agent("ppo", raw()), "env=TimeLimit: is no environment of rltrain; wrap it: rltrain.make_env("),
    (lambda: small(made(), "ippo"), "agents.ippo=IPPO: plays environments with named agents"),
    (lambda: trainer(raw()), 'env=TimeLimit: is no environment of rltrain; wrap it: rltrain.make_env("CartPole-v1", num_envs=8)'),
    (lambda: trainer(raw("vec")), 'env=Sync.*: .*; wrap it: rltrain.make_env("CartPole-v1", num_envs=3)'),
    (lambda: trainer(CartPoleEnv()), "env=CartPoleEnv: is no .*; wrap it: rltrain.make_env(CartPoleEnv, num_envs=8)"),
    (lambda: trainer(made(), evaluation_env=raw()), "evaluation_env=TimeLimit: is no environment of rltrain; wrap it"),
    (lambda: trainer(made(), bare()), "agents=PPO: is a bare algorithm; wrap it: Agent(algorithm)"),
    (lambda: trainer(made(), [PPO]), "agents=PPO: is a bare algorithm; wrap it: Agent(algorithm)"),
    (lambda: trainer(made(), "ppo"), 'agents=.*: is no agent; rltrain.make_agent("ppo", env) makes one'),
    (lambda: trainer(made(), timestep=8), "trainer.timestep=8: no such setting; did you mean 'timesteps'?"),
    (lambda: trainer(made(), total_env_steps=0), "total_env_steps=0: must be a whole number >= 1"),
    (lambda: trainer(made(), total_env_steps=8, timesteps=1), "trainer.timesteps=1: total_env_steps=8 is given too; give one"),
    (lambda: trainer(made(), total_env_steps=8, cfg={"timesteps": 1}), "trainer.timesteps=1: total_env_steps=8 is given too"),
    (lambda: rltrain.load("nowhere"), "run=nowhere: no such run or checkpoint"),
    (lambda: rltrain.load("nowhere", "newest"), "checkpoint=newest: latest or best"),
    (lambda: rltrain.evaluate("nowhere"), "run=nowhere: no such run or checkpoint"),
    (lambda: rltrain.evaluate("nowhere", episodes=0), "episodes=0: must be a whole number >= 1"),
]  # fmt: skip


def trainer(env, agents=None, **how):
    agents = agents or small(made())
    return rltrain.SequentialTrainer(env, agents, **how)


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_what_is_wrong_is_said(number, here):
    call, sentence = WRONG[number]
    pattern = ".*".join(map(re.escape, sentence.split(".*")))
    with pytest.raises(rltrain.ConfigError, match=pattern) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1


def test_settings_by_keyword_add_to_those_of_a_dict():
    env = made()
    both = rltrain.StepTrainer(env, small(env), cfg={"timesteps": 5, "headless": True}, render_interval=3)
    assert (both.timesteps, both.cfg.render_interval) == (5, 3)
    assert rltrain.ParallelTrainer(env, small(env), total_env_steps=17, max_drift=9).timesteps == 3


def test_a_run_that_names_a_module_here_is_trusted_or_not(trained, here, monkeypatch):
    shutil.copytree(trained, here / "run")
    (here / "lurking.py").write_text("open('mark', 'w')")
    latest = here / "run/checkpoints" / (here / "run/checkpoints/latest").read_text().strip()
    text = yaml.safe_dump({**yaml.safe_load((latest / "config.yaml").read_text()), "plugins": ["lurking"]})
    put_file(latest, "config.yaml", text.encode())
    path = [str(here), *sys.path]  # as Python has it in a terminal
    monkeypatch.setattr(sys, "path", list(path))
    monkeypatch.setattr(modules, "_gate", None)
    for function in (rltrain.load, functools.partial(rltrain.evaluate, episodes=1)):
        with pytest.raises(rltrain.ConfigError, match=r"plugins=lurking: a configuration names lurking(.|\n)*trust=True"):
            function("run")
    assert sys.path == path and not (here / "mark").exists()
    for allowing in ({"trust": True}, {"overrides": ["plugins=[lurking]"]}):
        rltrain.load("run", **allowing).close()
        assert sys.path == path and (here / "mark").exists()
        (here / "mark").unlink()
        sys.modules.pop("lurking")
    modules._opened.clear()
    plugin_packages.discard("lurking")
