"""Teams in PyTorch: groups of members as rows of one algorithm, sharing or not, and where IPPO and MAPPO differ."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete

pytest.importorskip("pettingzoo")

from team_envs import Corners, Neighbours, Relay

from rltrain.agents.base import Agent
from rltrain.agents.ippo.torch import IPPO
from rltrain.agents.mappo.torch import MAPPO
from rltrain.agents.multi_agent.base import STRIDE, Group
from rltrain.agents.ppo.torch import PPO
from rltrain.checkpoints import tree_sha256
from rltrain.envs.pettingzoo import PettingZooEnv
from rltrain.errors import ConfigError
from rltrain.structures import Progress, Transition
from rltrain.trainers import SequentialTrainer

SMALL = {
    "rollout_length": 8, "epochs": 2, "minibatches": 2, "learning_rate": 0.01,
    "network": {"policy_sizes": [8], "value_sizes": [8]},
}  # fmt: skip
BOX, DISCRETE = Box(0, 1, (2,), np.float32), Discrete(3)


def team(kind=IPPO, env=Corners, copies=2, **cfg):
    env = PettingZooEnv({"id": "own", "num_envs": copies}, seed=3, make=env)
    spaces = env.observation_space, env.action_space
    return env, kind(*spaces, state_space=env.state_space, num_envs=copies, cfg={**SMALL, **cfg}, seed=1)


def trained(env, algorithm, timesteps):
    agent = Agent(algorithm, name="team")
    SequentialTrainer(env, [agent], cfg={"timesteps": timesteps, "disable_progressbar": True}).train()
    return agent


def test_members_become_rows_and_come_back():
    group = Group(("a", "b"), [""])
    rows = group.observations({"a": np.array([[1.0], [2]]), "b": np.array([[3.0], [4]]), "c": np.array([[9.0], [9]])})
    assert rows["own"].tolist() == [[1], [2], [3], [4]] and rows["member"].tolist() == [0, 0, 1, 1]
    assert group.split(np.arange(4))["b"].tolist() == [2, 3]
    assert group.states(np.array([[5.0], [6]]))["own"].tolist() == [[5], [6], [5], [6]]
    composite = Group(("a",), ["x", "y/z"]).observations({"a/x": np.ones((2, 1)), "a/y/z": np.zeros((2, 1)), "b/x": np.ones(2)})
    assert {path: array.tolist() for path, array in composite.items()} == {"x": [[1], [1]], "y/z": [[0], [0]]}


def test_sharing_adds_a_one_hot_and_acts_in_one_pass(monkeypatch):
    env, ippo = team()
    assert list(ippo.groups) == ["a"] and ippo.parts["a"].inputs.size == 3 + 3
    calls = []
    act = PPO.act
    monkeypatch.setattr(
        PPO, "act", lambda self, actor, rows, *more, **how: calls.append(1) or act(self, actor, rows, *more, **how)
    )
    _, actions, _ = ippo.act(ippo.init_actor(2, 0), env.reset(), explore=True, progress=Progress(0, 1))
    assert len(calls) == 1 and list(actions) == ["a_0", "a_1", "a_2"] and actions["a_2"].shape == (2,)


def test_without_sharing_every_member_is_a_ppo_of_its_own():
    """Three PPOs, told the same rows, end in the same parameters to the bit."""
    env, ippo = team(parameter_sharing="none")
    alone = {
        name: PPO(env.observation_space[name], env.action_space[name], num_envs=2, cfg=SMALL, seed=1, index=i * STRIDE)
        for i, name in enumerate(env.members)
    }
    actors, actor = {name: ppo.init_actor(2, ppo.actor_seed) for name, ppo in alone.items()}, ippo.init_actor(2, ippo.actor_seed)
    actors = {name: ippo.parts[name].restore_actor(ippo.parts[name].actor_snapshot(actor[name])) for name in actors}
    observations = env.reset()
    for t in range(16):
        progress = Progress(t, 16)
        actor, actions, outputs = ippo.act(actor, observations, explore=True, progress=progress)
        own = {
            name: ppo.act(actors[name], torch.from_numpy(observations[name]), explore=True, progress=progress)
            for name, ppo in alone.items()
        }
        actions = {name: rows.numpy() for name, rows in actions.items()}
        assert all(np.array_equal(actions[name], own[name][1].numpy()) for name in alone)
        step = env.step(actions)
        ippo.record(Transition(observations, None, actions, *step[:7], {key: value.numpy() for key, value in outputs.items()}))
        for name, ppo in alone.items():
            rows = [value[name] for value in (observations, actions, step.next_observations, step.rewards)]
            ends = step.terminated[name], step.truncated[name]
            outs = {key: value.numpy() for key, value in own[name][2].items()}
            ppo.record(Transition(rows[0], None, rows[1], rows[2], None, rows[3], *ends, None, {}, outs))
        if ippo.schedule.is_due(t):
            metrics = ippo.update(progress)
            each = {name: ppo.update(progress) for name, ppo in alone.items()}
        observations = env.reset_done()
    assert metrics["loss/value"] == pytest.approx(np.mean([one["loss/value"] for one in each.values()]))
    assert metrics["groups/a_1/loss/value"] == each["a_1"]["loss/value"]
    for name, ppo in alone.items():
        assert tree_sha256(ippo.snapshot()["policy"]["groups"][name]) == tree_sha256(ppo.snapshot()["policy"])


@pytest.mark.parametrize("sharing", ["all", pytest.param("none", marks=pytest.mark.slow)])
def test_members_learn_their_own(sharing):
    """Each is paid for naming the corner that it sees: 5 in 5 steps, 5 / 3 at random."""
    env, ippo = team(copies=8, parameter_sharing=sharing, rollout_length=20, epochs=5)
    agent = trained(env, ippo, 600)
    assert agent.statistics.summary()["episode_return_mean"] > 4.5


def test_a_centralised_critic_sees_what_its_own_member_does_not():
    """The reward is the neighbour's bit: the state explains all of it, one's own observation nothing."""
    explained = {}
    for kind in (IPPO, MAPPO):
        env, algorithm = team(kind, Neighbours, copies=16, rollout_length=16, epochs=10)
        agent = trained(env, algorithm, 240)
        explained[kind] = agent.metrics["value/explained_variance"]
        part = algorithm.parts["a"]
        assert (part.critic_inputs is None) == (kind is IPPO)
    assert explained[MAPPO] > 0.95 and explained[IPPO] < 0.1
    assert part.critic_inputs.size == 2 + 2 and part.inputs.size == 1 + 2  # both bits, one's own; and whose row it is


def test_what_did_not_happen_does_not_count():
    """Members that are absent leave no trace, whatever stands in their rows."""
    found = []
    for garbage in (0.0, 50.0):
        env, mappo = team(MAPPO, Relay, parameter_sharing="none", use_states=True, normalize_values=True)
        actor, observations = mappo.init_actor(2, 0), env.reset()
        for t in range(8):
            actor, actions, outputs = mappo.act(actor, observations, explore=True, progress=Progress(t, 8))
            actions = {name: rows.numpy() for name, rows in actions.items()}
            states = env.state()
            step = env.step(actions)
            if step.valid is not None:
                rewards = {name: np.where(step.valid[name], rows, np.float32(garbage)) for name, rows in step.rewards.items()}
                step = step._replace(rewards=rewards)
            outputs = {key: value.numpy() for key, value in outputs.items()}
            mappo.record(Transition(observations, states, actions, *step[:7], outputs))
            observations = env.reset_done()
        mappo.update(Progress(7, 8))
        found.append(tree_sha256(mappo.snapshot()["policy"]))
    assert found[0] == found[1]


def test_a_loop_of_ones_own_comes_to_the_same():
    env, ippo = team()
    by_trainer = trained(env, ippo, 20)
    env, ippo = team()
    agent, observations = Agent(ippo, name="team"), env.reset()
    for t in range(20):
        when = {"timestep": t, "timesteps": 20}
        actions = agent.act(observations, env.state(), **when)
        step = env.step(actions)
        agent.record_transition(observations=observations, actions=actions, **step._asdict(), **when)
        agent.post_interaction(**when)
        observations = env.reset_done()
    one, other = agent.snapshot(), by_trainer.snapshot()
    for key in ("sums", "counts"):  # a row of metrics empties them
        one["training"].pop(key), other["training"].pop(key)
    np.testing.assert_equal(one, other)


def test_groups_of_members_alike():
    spaces = Dict({"adversary_0": BOX, "adversary_1": BOX, "agent_0": BOX, "agent_1": Box(0, 1, (3,), np.float32)})
    actions = Dict(dict.fromkeys(spaces.spaces, DISCRETE))
    ippo = IPPO(spaces, actions, num_envs=1, cfg=SMALL)
    assert {name: group.members for name, group in ippo.groups.items()} == {
        "adversary": ("adversary_0", "adversary_1"), "agent": ("agent_0",), "agent_1": ("agent_1",)
    }  # fmt: skip
    given = {"one": ["agent_0"], "two": ["adversary_1", "adversary_0"], "three": ["agent_1"]}
    ippo = IPPO(spaces, actions, num_envs=1, cfg={**SMALL, "groups": given})
    assert ippo.groups["two"].members == ("adversary_1", "adversary_0")


def test_overrides_by_group():
    _, ippo = team(parameter_sharing="none", overrides={"a_1": {"learning_rate": 0.5, "network": {"policy_sizes": [4]}}})
    assert [part.cfg.learning_rate for part in ippo.parts.values()] == [0.01, 0.5, 0.01]
    assert ippo.parts["a_1"].cfg.network.policy_sizes == [4] and ippo.parts["a_1"].cfg.network.value_sizes == [8]


@pytest.mark.parametrize(
    ("cfg", "sentence"),
    [
        ({"parameter_sharing": "all"}, "agents.ippo.parameter_sharing=all: early and late differ in their spaces"),
        ({"groups": {"x": ["early"]}}, r"agents.ippo.groups=\['x'\]: late, steady stands in none"),
        ({"groups": {"x": ["erly"]}}, "agents.ippo.groups=erly: is no member; did you mean 'early'"),
        ({"groups": {"x": ["early", "early"]}}, "agents.ippo.groups=early: stands in more than one place"),
        ({"groups": {"x": "early"}}, "agents.ippo.groups.x=early: must be a list"),
        ({"groups": {"x": ["early"]}, "parameter_sharing": "none"}, "has no effect with agents.ippo.parameter_sharing=none"),
        ({"overrides": {"lte": {}}}, "agents.ippo.overrides=lte: is neither a group nor a member.*did you mean 'late'"),
        ({"overrides": {"late": {"learning_rte": 1}}}, "agents.ippo.overrides.late.learning_rte=1: no such key"),
        ({"overrides": {"late": {"rollout_length": 4}}}, "agents.ippo.overrides.late.rollout_length=4: is the same for a whole"),
        ({"use_states": True}, "agents.ippo.use_states=true: .* use agents=mappo"),
    ],
)
def test_bad_settings(cfg, sentence):
    with pytest.raises(ConfigError, match=sentence):
        team(env=Relay, **cfg)


def test_a_team_needs_members_and_members_a_team():
    with pytest.raises(ConfigError, match=r"agents.ippo=IPPO: plays environments with named agents"):
        IPPO(BOX, DISCRETE, num_envs=2)
    with pytest.raises(ConfigError, match=r"env.action_space"):
        env = PettingZooEnv({"id": "own", "num_envs": 2}, make=Corners)
        PPO(env.observation_space, env.action_space, num_envs=2)
