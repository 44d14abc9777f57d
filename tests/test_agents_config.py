"""Several agents on the command line and in YAML: their names, order, settings and scopes, and what is refused."""

import json

import pytest
import yaml
from command_line import assert_one_error, call, summary, train

from rltrain import config
from rltrain.agents.a2c.config import A2CConfig
from rltrain.agents.ppo.config import PPOConfig

CHOICES = "a2c, ddpg, ddqn, dqn, ippo, mappo, ppo, sac, td3"


def checked(*overrides: str) -> config.Config:
    return config.check(config.compose(overrides))


# -- names and order -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ([], "ppo"),
        (["agents=a2c"], "a2c"),
        (["agents=[ppo,a2c]"], "ppo a2c"),
        (["agents=[a2c,ppo]"], "a2c ppo"),
        (["agents=[a2c, ppo]"], "a2c ppo"),
        (["agents=[slow:a2c,fast:ppo]"], "slow fast"),
        (["agents=[fast:ppo,slow:a2c]"], "fast slow"),
        (["agents=[ fast : ppo , 'slow:a2c' ]"], "fast slow"),
        (["agents=[fast:ppo,ppo]"], "fast ppo"),
        (["agents=[ppo:a2c,a2c:ppo]"], "ppo a2c"),
        (["agents=only:ppo"], "only"),
        (["agents=[1:ppo,2:ppo,true:ppo,null:a2c]"], "1 2 true null"),
        (["agents.ppo.count=1"], "ppo"),
        (["agents.ppo.count=3"], "ppo_0 ppo_1 ppo_2"),
        (["agents=[a2c,ppo]", "agents.a2c.count=2"], "a2c_0 a2c_1 ppo"),
        (["agents=[fast:ppo,slow:ppo]", "agents.slow.count=2"], "fast slow_0 slow_1"),
        (["agents.fast.count=2", "agents=[fast:ppo,slow:ppo]"], "fast_0 fast_1 slow"),
        (["+agents@agents.fast=a2c"], "ppo fast"),
        (["agents=ppo", "agents=a2c"], "a2c"),
        (["agents=[fast:ppo]", "agents=a2c"], "a2c"),
        (["agents=[fast:ppo]", "agents=[slow:a2c,last:ppo]"], "slow last"),
        (["experiment=ppo_cartpole", "agents.ppo.count=2"], "ppo_0 ppo_1"),
    ],
)
def test_names_stand_in_the_order_they_were_given(overrides, names):
    assert list(checked(*overrides).agents) == names.split()


def test_a_choice_is_what_its_name_says():
    agents = checked("agents=[fast:ppo,ppo:a2c]").agents
    assert [type(agent.cfg) for agent in agents.values()] == [PPOConfig, A2CConfig]
    assert [agent.target for agent in agents.values()] == ["rltrain.agents.ppo.torch.PPO", "rltrain.agents.a2c.torch.A2C"]


def test_count_repeats_settings_not_objects():
    cfgs = [agent.cfg for agent in checked("agents.ppo.count=3", "agents.ppo.epochs=7").agents.values()]
    assert cfgs[0] == cfgs[1] == cfgs[2] and [cfg.epochs for cfg in cfgs] == [7, 7, 7]
    assert cfgs[0] is not cfgs[1] and cfgs[0].network is not cfgs[1].network


def test_an_override_reaches_its_agent_and_no_other():
    own = ("agents.fast.learning_rate=0.01", "agents.fast.network.policy_sizes=[3]", "agents.last.epochs=9")
    agents = checked("agents=[fast:ppo,slow:a2c,last:ppo]", *own).agents
    assert [agent.cfg.learning_rate for agent in agents.values()] == [0.01, 7e-4, 2.5e-4]
    assert [agent.cfg.network.policy_sizes for agent in agents.values()] == [[3], [64, 64], [64, 64]]
    assert [getattr(agent.cfg, "epochs", None) for agent in agents.values()] == [4, None, 9]
    assert [agent.key for agent in agents.values()] == ["agents.fast", "agents.slow", "agents.last"]


@pytest.mark.parametrize(
    ("overrides", "sizes"),
    [
        (["agents=[fast:ppo,slow:a2c]", "agents_scope=[2,6]"], {"fast": 2, "slow": 6}),
        (["agents=[slow:a2c,fast:ppo]", "agents_scope=[2,6]"], {"slow": 2, "fast": 6}),
        (["agents=[slow:a2c,fast:ppo]", "agents_scope.sizes=[2,6]"], {"slow": 2, "fast": 6}),
        (["agents=[slow:a2c,fast:ppo]", "agents.slow.count=2", "agents_scope=[1,2,5]"], {"slow_0": 1, "slow_1": 2, "fast": 5}),
        (["agents.ppo.count=3"], {"ppo_0": 2, "ppo_1": 2, "ppo_2": 4}),
        (["agents.ppo.count=3", "agents_scope=even", "env.num_envs=9"], {"ppo_0": 3, "ppo_1": 3, "ppo_2": 3}),
        (["agents.ppo.count=8"], {f"ppo_{i}": 1 for i in range(8)}),
    ],
)
def test_scopes_follow_the_order_of_agents(overrides, sizes):
    made = checked(*overrides)
    assert dict(zip(made.agents, config.scopes(made), strict=True)) == sizes


def test_an_even_scope_with_a_remainder_is_said_once(here):
    shape = ("agents.ppo.count=3", "trainer.timesteps=40", "tracking.interval=5")
    for overrides, times in [((), 1), (("env.num_envs=6", "agents.ppo.minibatches=2"), 0), (("agents_scope=[1,1,2]",), 0)]:
        run = here / str(overrides)
        train(*shape, *overrides, f"run.dir={run}")
        assert (run / "train.log").read_text().count("agents_scope=even: [1, 1, 2] copies, the remainder to the last") == times


# -- in YAML ---------------------------------------------------------------------------------------------------------------

PACKAGE = "pair_package"
PRESET = """
# @package _global_
defaults:
  - /agents@agents.slow: a2c
  - /agents@agents.fast: ppo
  - /agents@agents.crowd: ppo
  - override /env: gymnasium
  - override /agents: []
total_env_steps: 48
env:
  num_envs: 6
agents_scope:
  sizes: [1, 2, 2, 1]
agents:
  fast: {learning_rate: 1.0e-3, rollout_length: 4, minibatches: 2}
  crowd: {count: 2, rollout_length: 4, minibatches: 1}
"""


def test_a_preset_names_agents(here, zygote):
    """Their order is that of the defaults list, whatever is set further down; the command line has the last word."""
    (here / PACKAGE / "conf/experiment").mkdir(parents=True)
    (here / PACKAGE / "__init__.py").touch()
    (here / PACKAGE / "conf/experiment/pair.yaml").write_text(PRESET)
    preset = (f"plugins=[{PACKAGE}]", "experiment=pair", "seed=1")
    own = ("agents.fast.epochs=2", "agents.slow.learning_rate=0.1")
    saved = yaml.safe_load(zygote.run("train", "--cfg", "resolved", *preset, *own).out)["agents"]
    assert list(saved) == ["slow", "fast", "crowd"]
    assert [saved[name]["learning_rate"] for name in saved] == [0.1, 1e-3, 2.5e-4]
    assert [saved[name]["rollout_length"] for name in saved] == [8, 4, 4]
    assert [saved[name].get("epochs") for name in saved] == [None, 2, 4]
    result = zygote.run("train", *preset, *own, "run.dir=run")
    assert result.status == 0, result.err
    for line in (
        "slow: A2C, copies 0 to 0",
        "fast: PPO, copies 1 to 2",
        "crowd_0: PPO, copies 3 to 4",
        "crowd_1: PPO, copies 5 to 5",
    ):
        assert line in result.text
    told = summary(here / "run")["agents"]
    assert {name: agent["updates"] for name, agent in told.items()} == {"slow": 1, "fast": 2, "crowd_0": 2, "crowd_1": 2}
    wrong = zygote.run("train", *preset, "agents.slow.epochs=2")
    assert_one_error(wrong, 2, "agents.slow.epochs=2: no such key")


# -- what is refused -------------------------------------------------------------------------------------------------------

COUNT = "must be a whole number >= 1 and <= 1024"
PAIR = "agents=[fast:ppo,slow:a2c]"
UNREADABLE = "can't be read; write agents=[name:choice,...], as in agents=[fast:ppo,slow:ppo]"


def refused(*overrides: str) -> str:
    """Return the line of an error that ended a command before anything was made."""
    result = call("train", "trainer.timesteps=10", *overrides)
    assert_one_error(result, 2)
    return result.err.strip()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        *((f"agents.ppo.count={value}", f"agents.ppo.count={value}: {COUNT}") for value in (0, -1, 1.5, "true", "x", 1025)),
        ("agents.ppo.count=null", f"agents.ppo.count=null: {COUNT}"),
        ("agents.ppo.count=[2]", f"agents.ppo.count=[2]: {COUNT}"),
        (f"{PAIR} agents.slow.count=0", f"agents.slow.count=0: {COUNT}"),
        ("agents=[ppo,ppo_1:a2c] agents.ppo.count=2", "agents.ppo.count=2: makes an agent ppo_1, which is there already"),
        ("agents=[ppo_1:a2c,ppo] agents.ppo.count=2", "agents.ppo.count=2: makes an agent ppo_1, which is there already"),
        ("agents.ppo.count=2,3", "agents.ppo.count=2,3: several values are a sweep: add -m, or give one"),
        ("agents.ppo.cuont=2", "agents.ppo.cuont=2: no such key; did you mean 'agents.ppo.count'?"),
        ("+agents.ppo.typo=1", "+agents.ppo.typo=1: no such key;"),
        (f"{PAIR} +agents.slow.typo=1", "+agents.slow.typo=1: no such key;"),
        (f"{PAIR} agents.slow.epochs=2", "agents.slow.epochs=2: no such key; did you mean 'agents.fast.epochs'? agents.slow has"),
        (f"{PAIR} +agents.slow.epochs=2", "agents.slow.epochs=2: no such key; options: discount_factor, "),
        (f"{PAIR} agents.fast.lerning_rate=1", "agents.fast.lerning_rate=1: no such key; did you mean 'agents.fast.learning"),
        (f"{PAIR} agents.ppo.epochs=2", "agents.ppo.epochs=2: no agent of that name is chosen; choose it, as in agents=ppo, "),
        ("agents.ppo.count=2 agents.ppo_1.epochs=2", "agents.ppo_1.epochs=2: no agent of that name is chosen"),
        (f"{PAIR} +agents.last.epochs=2", "agents.last={'epochs': 2}: nothing is chosen under that name; 'last' is set but not"),
        (f"{PAIR} agents.fast.epochs=0", "agents.fast.epochs=0: must be a whole number >= 1"),
        ("agents=[ppo,ppo]",
         "agents=[ppo,ppo]: ppo stands there twice; give each a name, agents=[one:ppo,two:ppo], or agents.ppo.count=2"),
        ("agents=[fast:ppo,fast:a2c]", "agents=[fast:ppo,fast:a2c]: two agents have the same name; give each its own"),
        ("agents=[ppo,ppo:a2c]", "agents=[ppo,ppo:a2c]: two agents have the same name; give each its own"),
        ("agents=[]", f"agents=[]: name at least one agent; options: {CHOICES}"),
        ("agents=", f"agents=: name a choice; options: {CHOICES}"),
        ("agents=null", f"agents=null: name a choice; options: {CHOICES}"),
        ("agents=ppo,a2c", "agents=ppo,a2c: several values are a sweep: add -m, or give one"),
        ("agents=[ppo,acc]", "agents=acc: no such choice; did you mean 'sac'? options: sac, a2c, "),
        ("agents=[fast:ppo,slow:pop]", "agents=pop: no such choice; did you mean 'ppo'? options: ppo, a2c, "),
        ("agents=[fast:zzz]", f"agents=zzz: no such choice; options: {CHOICES}"),
        ("agents=ppo:2", f"agents=2: no such choice; did you mean 'a2c'? options: {CHOICES}"),
        ("agents=[fast:true]", f"agents=true: no such choice; options: {CHOICES}"),
        *((f"agents={value}", f"agents={value}: {UNREADABLE}") for value in (
            "[:ppo]", "[fast:]", "[fast:ppo,,slow:ppo]", "{fast:ppo}", "[[fast:ppo]]", "[a.b:ppo]", "[a/b:ppo]", "[-a:ppo]",
            "[é:ppo]", "[a:b:ppo]", "[1e1:ppo]", "[fast:ppo],[slow:ppo]",
            "fast:ppo,slow:ppo")),
        ("agents=[best:ppo,a2c]", "agents=best: is what a run calls its checkpoints; give the agent another name"),
        ("agents=[best-of:ppo,a2c]", "agents=best-of: is what a run calls its checkpoints"),
        ("agents=[latest:ppo,a2c]", "agents=latest: is what a run calls its checkpoints"),
        ("agents=[checkpoints:ppo,a2c]", "agents=checkpoints: is what a run calls its checkpoints"),
        (f"agents=[{'a' * 65}:ppo]", "an agent's name is letters, digits, - and _, at most 64 of them"),
        ("env.num_envs=2 agents.ppo.count=3", "env.num_envs=2: 3 agents need a copy each; give at least 3"),
        (f"env.num_envs=1 {PAIR}", "env.num_envs=1: 2 agents need a copy each; give at least 2"),
        ("agents.ppo.count=1024", "env.num_envs=8: 1024 agents need a copy each; give at least 1024"),
        ("agents.ppo.count=2 env.num_envs=2 agents.ppo.rollout_length=2",
         "agents.ppo.minibatches=4: more than rollout_length=2 x 1 copies = 2 rows; give at most 2"),
        (f"{PAIR} agents.fast.rollout_length=3 agents_scope=[1,7]",
         "agents.fast.minibatches=4: more than rollout_length=3 x 1 copies = 3 rows; give at most 3"),
    ],
)  # fmt: skip
def test_agents_that_can_not_be(overrides, sentence, here):
    assert sentence in refused(*overrides.split(" "))
    assert not list(here.iterdir())


EACH = "must be a whole number >= 1"


@pytest.mark.parametrize(
    ("sizes", "error"),
    [
        ("[8]", "agents_scope.sizes=[8]: 1 sizes for 3 agents; give 3"),
        ("[2,2,2,2]", "agents_scope.sizes=[2, 2, 2, 2]: 4 sizes for 3 agents; give 3"),
        ("[]", "agents_scope.sizes=[]: 0 sizes for 3 agents; give 3"),
        ("[1,2,4]", "agents_scope.sizes=[1, 2, 4]: add up to 7, but the environment has 8 copies; give sizes that add up to 8"),
        ("[1,2,6]", "agents_scope.sizes=[1, 2, 6]: add up to 9, but the environment has 8 copies; give sizes that add up to 8"),
        ("[0,2,6]", f"agents_scope.sizes[0]=0: {EACH}"),
        ("[2,-2,8]", f"agents_scope.sizes[1]=-2: {EACH}"),
        ("[1,2.0,5]", f"agents_scope.sizes[1]=2.0: {EACH}"),
        ("[1,2,5.5]", f"agents_scope.sizes[2]=5.5: {EACH}"),
        ("[true,2,5]", f"agents_scope.sizes[0]=true: {EACH}"),
        ("['1',2,5]", f"agents_scope.sizes[0]=1: {EACH}"),
        ("[one,2,5]", f"agents_scope.sizes[0]=one: {EACH}"),
        ("[1,null,7]", f"agents_scope.sizes[1]=null: {EACH}"),
        ("[1,[2],5]", f"agents_scope.sizes[1]=[2]: {EACH}"),
        ("[nan,2,5]", f"agents_scope.sizes[0]=nan: {EACH}"),
        ("[1,2,{a:5}]", f"agents_scope.sizes[2]={{'a': 5}}: {EACH}"),
    ],
)
def test_scopes_that_can_not_be(sizes, error, here):
    """Both spellings of the key, the same sentence: key, value, what would be right."""
    for key in ("agents_scope", "agents_scope.sizes") if sizes in ("[8]", "[0,2,6]") else ("agents_scope",):
        assert refused("agents.ppo.count=3", f"{key}={sizes}") == f"error: {error}"
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("agents_scope=1,2,5", "agents_scope=1,2,5: several values are a sweep"),
        ("agents_scope=8", "agents_scope=8: name a choice; options: even"),
        ("agents_scope=uneven", "agents_scope=uneven: no such choice; did you mean 'even'? options: even"),
        ("agents_scope=null", "agents_scope=null: name a choice; options: even"),
        ("agents_scope.sizes=8", f"agents_scope.sizes=8: must be a list, each item {EACH.removeprefix('must be ')} or null"),
        ("agents_scope.sizes=even", "agents_scope.sizes=even: must be a list, each item"),
        ("agents_scope.size=[8]", "agents_scope.size=[8]: no such key; did you mean 'agents_scope.sizes'?"),
        ("+agents_scope.ppo=8", "+agents_scope.ppo=8: no such key;"),
    ],
)
def test_scopes_that_can_not_be_read(override, sentence, here):
    assert sentence in refused("agents.ppo.count=3", override)
    assert not list(here.iterdir())


# -- sweeps ----------------------------------------------------------------------------------------------------------------

TINY = (
    "seed=1", "env.num_envs=4", "trainer.timesteps=16", "tracking.tensorboard=false", "trainer.disable_progressbar=true",
    "hydra.sweep.dir=sweep",
)  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "jobs"),
    [
        (["agents=ppo,a2c"], [["ppo"], ["a2c"]]),
        (["agents.ppo.count=1,2"], [["ppo"], ["ppo_0", "ppo_1"]]),
        pytest.param(["agents.ppo.count=2", "agents_scope=even,[1,3]"], [["ppo_0", "ppo_1"]] * 2, marks=pytest.mark.slow),
        (["agents=[fast:ppo,slow:ppo]", "agents.slow.learning_rate=0.1,0.01", "agents_scope=[1,3]"], [["fast", "slow"]] * 2),
    ],
)
def test_sweeps(overrides, jobs, here, zygote):
    result = zygote.run("train", "-m", *TINY, *overrides)
    assert result.status == 0, result.err
    found = sorted((here / "sweep").glob("*/summary.json"))
    told = [json.loads(path.read_text())["agents"] for path in found]
    assert [list(agents) for agents in told] == jobs
    if "even" in overrides[-1]:
        assert [[agent["env_steps"] for agent in agents.values()] for agents in told] == [[32, 32], [16, 48]]
    elif len(overrides) > 1:
        saved = [yaml.safe_load((path.parent / "config.yaml").read_text())["agents"] for path in found]
        assert [[agents[name]["learning_rate"] for name in agents] for agents in saved] == [[2.5e-4, 0.1], [2.5e-4, 0.01]]
        assert [[agent["env_steps"] for agent in agents.values()] for agents in told] == [[16, 48]] * 2


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["agents=ppo,acc"], "agents=acc: no such choice; did you mean 'sac'?"),
        (["agents.ppo.count=2,0"], "agents.ppo.count=0: must be"),
        (["agents.ppo.count=2,9"], "env.num_envs=8: 9 agents need a copy each"),
        (["agents=fast:ppo,slow:ppo"], f"agents=fast:ppo,slow:ppo: {UNREADABLE}"),
        (["agents=[fast:ppo],[slow:ppo]"], UNREADABLE),
        (["agents=[fast:ppo,slow:ppo]", "agents.ppo.epochs=1,2"], "agents.ppo.epochs=1: no agent of that name is chosen"),
        (["agents=[fast:ppo,slow:ppo]", "agents_scope=[1,7],[1,8]"], "agents_scope.sizes=[1, 8]: add up to 9"),
    ],
)
def test_a_sweep_with_a_job_that_can_not_be_runs_none(overrides, sentence, here):
    result = call("train", "-m", *overrides)
    assert_one_error(result, 2, sentence)
    assert not list(here.iterdir())
