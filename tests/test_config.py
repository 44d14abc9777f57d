"""Every YAML composes, every key is checked; what Hydra would let pass in silence is refused."""

import copy
import dataclasses
import re
import shutil
import types
from typing import Any, Union, get_args, get_origin, get_type_hints

import gymnasium
import numpy as np
import pytest
import yaml
from command_line import SMALL, assert_one_error, call, train
from forgery import edit_config
from gymnasium.spaces import Box, Discrete, Sequence, Text, Tuple
from omegaconf import OmegaConf

from rltrain import assemble, config
from rltrain.commands.plans import finish_plan
from rltrain.config.compose import is_known_key
from rltrain.errors import ConfigError

CONF = config.conf_directory()
OPTIONS = [(path.parent.name, path.stem) for path in sorted(CONF.glob("*/*.yaml"))]


def leaves(cls: type, path: str) -> list[tuple[str, Any, dataclasses.Field]]:
    """Return (key, type, field) of every setting in a dataclass, nested ones too."""
    hints, found = get_type_hints(cls), []
    for field in dataclasses.fields(cls):
        key = f"{path}.{field.name}" if path else field.name
        if dataclasses.is_dataclass(hints[field.name]):
            found += leaves(hints[field.name], key)
        elif key not in ("trainer", "env", "agents"):
            found.append((key, hints[field.name], field))
    return found


def all_leaves() -> list[tuple[str, str, Any, dataclasses.Field]]:
    """Return (group choice, key, type, field) of every setting there is."""
    found = [("", *leaf) for leaf in leaves(config.Config, "")]
    for group in ("trainer", "env", "agents"):
        for name, choice in config.CHOICES[group].items():
            path = f"agents.{name}" if group == "agents" else group
            found += [(f"{group}={name}", *leaf) for leaf in leaves(choice.cfg, path)]
    return found


LEAVES = all_leaves()
KEYS = [leaf[1] for leaf in LEAVES]
SHARED = {re.sub(r"^agents\.\w+", "agents", key): key for key in reversed(KEYS)}  # one agent for each setting
SLOW = pytest.mark.slow
OWN = {id(leaf[3]): leaf[1] for leaf in reversed(LEAVES)}  # the first key of each field: those that others inherit are slow
WALK = [
    leaf if OWN[id(leaf[3])] == leaf[1] and number % 2 == 0 else pytest.param(*leaf, marks=SLOW)
    for number, leaf in enumerate(LEAVES)
]
SECTIONS = ["agents.ppo.network", "run", "tracking", "checkpoints", "evaluation", "schedule"]
NAN, INF = float("nan"), float("inf")


def test_every_setting_of_every_agent_can_be_given_to_a_saved_configuration():
    unknown = [key for key in KEYS if not is_known_key(key)]
    assert unknown == []
    assert not is_known_key("agents.ppo.network.value_size")


def is_optional(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)


def plain_type(hint: Any) -> Any:
    if get_args(hint) in ((int, str), (float, str)):
        return get_args(hint)[0]  # a number or a word: what is wrong for the number is no such word either
    return next(arg for arg in get_args(hint) if arg is not type(None)) if is_optional(hint) else hint


def bad_values(hint: Any, field: dataclasses.Field) -> list[Any]:
    """Return values of wrong types and out of bounds."""
    kind, bounds = plain_type(hint), field.metadata
    if set(get_args(kind)) & {str} and bounds.get("choices"):  # a word or a list
        return [3, 1.5, True, "nonsense", {"a": 1}, [], [[0, 1, 1]], *([] if is_optional(hint) else [None])]
    values: list[Any] = [{"a": 1}] if get_origin(kind) is not dict else [3, "a", [1]]
    values += [] if is_optional(hint) else [None]
    if kind in (int, float):
        step = 1 if kind is int else 1e-6
        outside = [
            bounds[name] + change
            for name, change in (("low", -step), ("high", step), ("above", 0), ("below", 0))
            if bounds.get(name) is not None
        ]
        values += ["x", "1", True, [1], NAN, INF, -INF, *outside, *([1.5] if kind is int else [])]
    elif kind is bool:
        values += ["yes", "true", 0, 1, 1.0, [True]]
    elif kind is str:
        values += ["", 3, 1.5, ["auto"], *(["nonsense"] if bounds.get("choices") else [True])]
    elif get_origin(kind) is list:
        inside = get_args(kind)[0]
        texts = [3, None, True, "", *([{"a": 1}] if inside is not str else [])]  # a word, or a mapping with a name
        item = ["2", 1.5, True, None, NAN, [1], (bounds.get("low") or 0) - 1] if inside is int else texts
        values += ["ab", 3, *([value] for value in item)]
    else:
        assert get_origin(kind) is dict, f"{hint} needs bad values of its own"
    return values


@pytest.fixture(scope="module")
def composed():
    """Return the composed settings of a choice as plain data, composed once."""
    made: dict[str, Any] = {}

    def compose(choice: str) -> dict[str, Any]:
        if choice not in made:
            made[choice] = OmegaConf.to_container(config.compose([choice] if choice else []), resolve=True)
        return copy.deepcopy(made[choice])

    return compose


# -- the files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_every_yaml_composes_checks_and_instantiates(group, name, here):
    for package in ("gymnax", "brax", "jaxmarl", "jax"):
        if package in name:
            pytest.importorskip(package)
    for package in ("ale_py", "cv2") if name == "atari" else ():
        pytest.importorskip(package)
    if "lunarlander" in name:
        pytest.importorskip("Box2D")
    if {name.removesuffix("_spread")} & {"ippo", "mappo", "pettingzoo"}:
        pytest.importorskip("pettingzoo")
    choice = f"{group}={name}"
    fitting = {
        "agents=ddpg": ["env=Pendulum-v1"], "agents=td3": ["env=Pendulum-v1"], "agents=ippo": ["env=pettingzoo"],
        "agents=mappo": ["env=pettingzoo"], "env=pettingzoo": ["agents=ippo"], "env=jaxmarl": ["agents=ippo", "backend=jax"],
    }  # fmt: skip
    plan = finish_plan(config.compose([choice, *fitting.get(choice, [])]))
    trainer = assemble.make_trainer(plan.config)
    trainer.close()
    assert trainer.timesteps * trainer.env.num_envs >= (plan.config.total_env_steps or 1)
    assert config.options(group).count(name) == 1


@pytest.mark.parametrize("name", [name for group, name in OPTIONS if group == "experiment"])
def test_presets_choose_neither_backend_nor_trainer(name):
    preset = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text())
    chosen = {key for entry in preset.get("defaults", []) for key in (entry if isinstance(entry, dict) else {})}
    assert not {"backend", "trainer"} & {key.split("/")[-1] for key in chosen}
    assert not {"backend", "trainer"} & preset.keys()
    assert "total_env_steps" in preset


def test_yaml_files_repeat_no_default():
    """A default stands in one place, the dataclass; the base of a group only names its schema."""
    for group, name in OPTIONS:
        if group != "experiment":
            assert yaml.safe_load((CONF / group / f"{name}.yaml").read_text()).keys() == {"defaults"}


# -- the schema, key by key ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("choice", "key", "hint", "field"), WALK, ids=KEYS)
def test_every_key_refuses_wrong_types_and_values_out_of_bounds(choice, key, hint, field, composed):
    passed, cfg = [], composed(choice)
    *path, last = key.split(".")
    node = cfg
    for name in path:
        node = node[name]
    assert last in node
    for value in bad_values(hint, field):
        node[last] = value
        try:
            config.check(cfg)
            passed.append(value)
        except ConfigError as error:
            assert re.match(rf"{re.escape(key)}(\[\d+\])?$", error.key), f"{key}={value}: {error}"
            shown = value[0] if error.key.endswith("]") else value
            shown = {"None": "null", "True": "true", "False": "false"}.get(str(shown), str(shown))
            assert f"={shown}: " in str(error)
    assert not passed, f"{key} takes {passed}"


@pytest.mark.parametrize(("choice", "key", "hint", "field"), LEAVES, ids=KEYS)
def test_every_key_has_a_sentence_and_every_number_a_bound(choice, key, hint, field):
    assert len(field.metadata["doc"]) >= 5
    kind = plain_type(hint)
    if kind in (int, float) or get_args(kind) == (int,):
        assert field.metadata["low"] is not None or field.metadata["above"] is not None, f"{key} has no lower bound"


@pytest.mark.parametrize(
    "key", [pytest.param(key, marks=SLOW if i % 6 else ()) for i, key in enumerate([*SHARED.values(), *SECTIONS])]
)
@pytest.mark.parametrize("sign", ["", pytest.param("+", marks=SLOW), pytest.param("++", marks=SLOW)])
def test_every_key_misspelt_is_refused(key, sign):
    misspelt = key + "x" if len(key.rpartition(".")[2]) < 4 else key[:-1]
    with pytest.raises(ConfigError, match="no such key") as caught:
        config.compose([f"{sign}{misspelt}=1"])
    assert caught.value.key == sign + misspelt
    assert caught.value.value == "1"
    assert key.rpartition(".")[2] in caught.value.message, f"{caught.value} does not tell of {key}"


@pytest.mark.parametrize(
    "override", ["agents.ppo.epochs=nan", "agents.ppo.learning_rate=0", "env.vectorization=snyc", "seed=1.5"]
)
def test_a_bad_value_on_the_command_line_exits_2_and_creates_nothing(override, here):
    key, _, value = override.partition("=")
    assert_one_error(call("train", override), 2, f"error: {key}={value}: ")
    assert not list(here.iterdir())


# -- groups --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("trainer=seqential", "trainer=seqential: no such choice; did you mean 'sequential'? options: sequential"),
        ("backend=troch", "backend=troch: no such choice; did you mean 'torch'? options: torch"),
        ("env=gymnasum", "env=gymnasum: no such choice; did you mean 'gymnasium'? options: gymnasium"),
        ("agents=pppo", "agents=pppo: no such choice; did you mean 'ppo'? options: ppo"),
        ("agents=[ppo,dqm]", "agents=dqm: no such choice; did you mean 'dqn'? options: dqn, "),
        ("agents_scope=evn", "agents_scope=evn: no such choice; did you mean 'even'? options: even"),
        ("experiment=ppo_cartpol", "experiment=ppo_cartpol: no such choice; did you mean 'ppo_cartpole'? options: ppo_cartpole"),
        ("experiments=ppo_cartpole", "did you mean 'experiment'?"),
        ("env=[gymnasium]", "env=[gymnasium]: name one environment"),
        ("agents=[]", "agents=[]: name at least one agent"),
        ("agents=null", "agents=null: name a choice; options: "),
        ("agents_scope=8", "agents_scope=8: name a choice; options: even"),
        ("trainer=null", "trainer=null: name a choice"),
        ("agents=[ppo,ppo]", "ppo stands there twice; give each a name, agents=[one:ppo,two:ppo], or agents.ppo.count=2"),
        ("~agents.ppo", "~agents.ppo=: delete nothing"),
        ("~env.kwargs", "~env.kwargs=: delete nothing"),
        ("+agents.foo.x=1", "+agents.foo.x=1: no such key"),
        ("agents.ppo=null", "agents.ppo=null: nothing is chosen under that name"),
        ("seed=1,2", "seed=1,2: "),
        ("seed", "seed=: an override is written key=value"),
        ("=3", "=3: "),
        ("@agents=3", "@agents=3: "),
        ("hydra=3", "hydra=3"),
        ("seed=[1", "seed=[1: can't be read; quote"),
        ("agents.ppo.epochs=${nothing}", "agents.ppo.epochs=${nothing}: "),
        ("agents.ppo.epochs=${oc.env:NO_SUCH_THING}", "agents.ppo.epochs=${oc.env:NO_SUCH_THING}: "),
        ("seed=???", "seed=???: "),
        ("env._target_=os.system", "env._target_=os.system: is not a registered class"),
        ("agents.ppo._target_=subprocess.Popen", "agents.ppo._target_=subprocess.Popen: is not a registered class"),
    ],
)
def test_what_hydra_would_let_pass_or_raise(override, sentence, here):
    assert_one_error(call("train", override, "dry_run=true"), 2, sentence)


def test_two_settings_of_one_algorithm_have_two_names(here):
    cfg = config.compose(["+agents@agents.fast=ppo", "agents.fast.learning_rate=0.01", "agents_scope=[2,6]"])
    checked = config.check(cfg)
    assert list(checked.agents) == ["ppo", "fast"]
    assert (checked.agents["ppo"].cfg.learning_rate, checked.agents["fast"].cfg.learning_rate) == (2.5e-4, 0.01)
    assert config.scopes(checked) == [2, 6]


# -- scopes --------------------------------------------------------------------------------------------------------------

TWO = "+agents@agents.fast=ppo"


@pytest.mark.parametrize(
    ("overrides", "sizes"),
    [(["agents_scope=[8]"], [8]), ([TWO, "agents_scope=[2,6]"], [2, 6]), ([TWO], [4, 4]), ([TWO, "env.num_envs=5"], [2, 3]),
     ([TWO, "agents_scope.sizes=null"], [4, 4]), ([TWO, "agents_scope=even"], [4, 4])],
)  # fmt: skip
def test_scopes(overrides, sizes):
    assert config.scopes(config.check(config.compose(overrides))) == sizes


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ("[2]", "agents_scope.sizes=[2]: 1 sizes for 2 agents; give 2"),
        ("[2,3,3]", "agents_scope.sizes=[2, 3, 3]: 3 sizes for 2 agents; give 2"),
        ("[]", "agents_scope.sizes=[]: 0 sizes for 2 agents"),
        ("[2,5]", "agents_scope.sizes=[2, 5]: add up to 7, but the environment has 8 copies; give sizes that add up to 8"),
        ("[0,8]", "agents_scope.sizes[0]=0: must be a whole number >= 1"),
        ("[-2,10]", "agents_scope.sizes[0]=-2: must be"),
        ("[2.0,6]", "agents_scope.sizes[0]=2.0: must be"),
        ("[true,7]", "agents_scope.sizes[0]=true: must be"),
        ("['2',6]", "agents_scope.sizes[0]=2: must be"),
        ("[null,8]", "agents_scope.sizes[0]=null: must be"),
        ("[[2],6]", "agents_scope.sizes[0]=[2]: must be"),
        ("[nan,6]", "agents_scope.sizes[0]=nan: must be"),
    ],
)
def test_bad_scopes_say_what_would_be_right(sizes, sentence, here):
    assert_one_error(call("train", TWO, f"agents_scope={sizes}"), 2, sentence)
    assert not list(here.iterdir())


def test_fewer_copies_than_agents_names_both(here):
    assert_one_error(call("train", TWO, "env.num_envs=1"), 2, "env.num_envs=1: 2 agents need a copy each; give at least 2")


def test_more_minibatches_than_rows_names_both_fields(here):
    result = call("train", "agents.ppo.rollout_length=2", "env.num_envs=3", "agents.ppo.minibatches=7")
    assert_one_error(result, 2, "agents.ppo.minibatches=7: more than rollout_length=2 x 3 copies = 6 rows; give at most 6")


# -- how long ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "timesteps"),
    [
        ([], 12500),
        (["total_env_steps=1000"], 125),
        (["total_env_steps=1001"], 126),
        (["total_env_steps=1"], 1),
        (["total_env_steps=1001", "env.num_envs=1000"], 2),
        (["trainer.timesteps=77"], 77),
        (["experiment=ppo_cartpole", "trainer.timesteps=77"], 77),
        (["trainer.timesteps=77", "experiment=ppo_cartpole"], 77),
        (["experiment=ppo_cartpole", "total_env_steps=80"], 10),
    ],
)
def test_the_key_on_the_command_line_displaces_the_other(overrides, timesteps):
    assert config.timesteps(config.check(config.compose(overrides))) == timesteps


COUNTED = "backend=jax counts up to"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["trainer.timesteps=3000000000"],
            f"trainer.timesteps=3000000000: {COUNTED} 2,147,483,646 timesteps; give fewer, or use",
        ),
        (["trainer.timesteps=2147483647"], f"trainer.timesteps=2147483647: {COUNTED} 2,147,483,646 timesteps"),
        (["total_env_steps=3e10"], f"total_env_steps=30000000000: {COUNTED} 2,147,483,646 timesteps, 17,179,869,168 steps of"),
        (["schedule.horizon=3e9"], f"schedule.horizon=3000000000: {COUNTED} 2,147,483,646 timesteps"),
        (["trainer=parallel", "agents=[ppo,a2c]", "trainer.timesteps=3e9"], f"trainer.timesteps=3000000000: {COUNTED}"),
    ],
)
def test_more_timesteps_than_jax_counts_are_refused(overrides, sentence, here):
    assert_one_error(call("train", "backend=jax", *overrides), 2, sentence)
    assert not list(here.iterdir())


def test_as_many_timesteps_as_can_be_counted_are_taken():
    for overrides in (["backend=jax", "trainer.timesteps=2147483646"], ["backend=jax", "total_env_steps=17179869168"]):
        assert config.timesteps(config.check(config.compose(overrides))) == 2**31 - 2
    assert config.timesteps(config.check(config.compose(["trainer.timesteps=3e9"]))) == 3 * 10**9  # PyTorch's counts in Python


def test_both_on_the_command_line_are_refused(here):
    result = call("train", "total_env_steps=10", "trainer.timesteps=20")
    assert_one_error(result, 2, "trainer.timesteps=20: total_env_steps=10 is given too; give one of them")


def test_neither_is_refused(here):
    assert_one_error(call("train", "total_env_steps=null"), 2, "total_env_steps=null: say how long to train")


def test_rounding_up_is_said_once(here):
    result = train("total_env_steps=10", "run.dir=run")
    assert "3 timesteps x 4 copies = 12 env steps" in result.text
    assert result.text.count("total_env_steps=10 is rounded up to whole timesteps") == 1
    assert "rounded" not in train("total_env_steps=12", "run.dir=other").text


def test_a_dry_run_of_any_length_is_quick(here):
    result = call("train", "total_env_steps=10000000000000000", "dry_run=true")
    assert result.status == 0
    assert "1,250,000,000,000,000 timesteps x 8 copies" in result.out
    assert "9,765,625,000,000 updates of 16 gradient steps" in result.out  # 1.25e15 / 128
    assert not list(here.iterdir())


# -- environments ---------------------------------------------------------------------------------------------------------


def test_env_kwargs_is_the_one_open_mapping():
    checked = config.check(config.compose(["env.kwargs.size=3", "+env.kwargs.deep.er=x"]))
    assert checked.env.cfg.kwargs == {"size": 3, "deep": {"er": "x"}}
    assert config.check(config.compose(["env.kwargs={size:3}"])).env.cfg.kwargs == {"size": 3}


def test_env_kwargs_that_the_environment_does_not_take(here):
    assert_one_error(call("train", "env.kwargs.size=3"), 2, "env.kwargs={'size': 3}: CartPole-v1 does not take them")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("env=CartPol-v1", "env.id=CartPol-v1: no such environment; did you mean 'CartPole-v1'? options: CartPole-v1, "),
        ("env.id=Pendulm-v1", "did you mean 'Pendulum-v1'?"),
        ("env=no_module:Own-v0", "env.id=no_module:Own-v0: module 'no_module' can't be imported"),
        ("env=sample_envs:Countin-v0", "did you mean 'Counting-v0'?"),
        ("backend.device=cuda:99", "backend.device=cuda:99: not found on this machine; found: cpu"),
        ("backend.device=gpu", "backend.device=gpu: not found on this machine; found: cpu"),
    ],
)
def test_ids_and_devices_that_are_not_there(override, sentence, here):
    assert_one_error(call("train", override), 2, sentence)
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("space", "value", "sentence"),
    [
        ("observation_space", Text(5), "env.observation_space=Text(1, 5, charset="),
        ("observation_space", Tuple((Discrete(2), Sequence(Discrete(2)))), "Sequence(Discrete(2), stack=False) can't be read"),
        ("action_space", Box(0, 5, (2,), np.int64), "env.action_space=Box(0, 5, (2,), int64): this agent acts in Discrete, "),
        ("action_space", Tuple((Discrete(2), Discrete(3))), "env.action_space=Tuple(Discrete(2), Discrete(3)): this agent acts"),
    ],
)
def test_spaces_that_the_agent_has_no_use_for(space, value, sentence, here, monkeypatch):
    spaces = {"observation_space": Discrete(2), "action_space": Discrete(2), space: value}
    spec = gymnasium.envs.registration.EnvSpec("Odd-v0", entry_point=lambda **_: type("Odd", (gymnasium.Env,), spaces)())
    monkeypatch.setitem(gymnasium.registry, "Odd-v0", spec)
    assert_one_error(call("train", "env=Odd-v0"), 2, sentence)
    assert not list(here.iterdir())


OWN_ENV = """
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

class Own(CartPoleEnv):
    def __init__(self, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, self.scale * reward, *rest

gymnasium.register("Own-v0", Own)
"""


@pytest.mark.parametrize("how", [
    ("env=own_env:Own-v0",),
    ("plugins=[own_env]", "env=Own-v0", "env.vectorization=async"),
    pytest.param(("env=own_env:Own-v0", "env.vectorization=async"), marks=pytest.mark.slow),
    pytest.param(("plugins=[own_env]", "env=Own-v0", "env.vectorization=async", "trainer=parallel", "agents.ppo.count=2"),
                 marks=pytest.mark.slow),
])  # fmt: skip
def test_an_environment_of_ones_own_in_the_working_directory(how, here, zygote):
    """Its copies' processes know it too, however it came to be known here."""
    (here / "own_env.py").write_text(OWN_ENV)
    result = zygote.run("train", *SMALL, *how, "env.kwargs.scale=-2.0", "trainer.timesteps=40", "run.dir=run")
    assert result.status == 0, result.err
    for figures in yaml.safe_load((here / "run/summary.json").read_text())["agents"].values():
        assert figures["episode_return_mean"] == -2.0 * figures["episode_length_mean"]


# -- plugins -------------------------------------------------------------------------------------------------------------

OWN_PACKAGE = """
from dataclasses import dataclass
from rltrain.agents.ppo.config import PPOConfig
from rltrain.agents.ppo.torch import PPO
from rltrain.checks import option
from rltrain.config import register

@dataclass
class OwnConfig(PPOConfig):
    bonus: float = option(0.5, "added to every reward", low=0, high=1)

class Own(PPO):
    def record(self, transition):
        super().record(transition._replace(rewards=transition.rewards + self.cfg.bonus))

register("agents", "own", "own_package.Own", OwnConfig)
"""
OWN_PRESET = """
# @package _global_
defaults:
  - override /agents: [own]
total_env_steps: 160
agents:
  own:
    bonus: 0.25
    rollout_length: 16
"""
STUB_PRESET = """
# @package _global_
total_env_steps: 160
agents:
  ppo:
    epochs: 2
"""


@pytest.fixture
def own_package(here):
    (here / "own_package/conf/experiment").mkdir(parents=True)
    (here / "own_package/__init__.py").write_text(OWN_PACKAGE)
    (here / "own_package/conf/experiment/own_preset.yaml").write_text(OWN_PRESET)
    (here / "own_package/conf/experiment/stub.yaml").write_text(STUB_PRESET)
    return here


def test_a_package_of_ones_own_brings_an_agent_and_a_preset(own_package, zygote):
    result = zygote.run("train", "plugins=[own_package]", "experiment=own_preset", "seed=1", "run.dir=run")
    assert result.status == 0, result.err
    assert "own: Own, copies 0 to 7" in result.text
    saved = yaml.safe_load((own_package / "run/config.yaml").read_text())
    assert (saved["agents"]["own"]["bonus"], saved["plugins"]) == (0.25, ["own_package"])
    again = zygote.run("train", "resume=run", "total_env_steps=240", "plugins=[own_package]")
    assert again.status == 0, again.err
    evaluation = zygote.run("eval", "run", "episodes=2", "json=true", "trust=true")
    assert evaluation.status == 0, evaluation.err
    assert list(yaml.safe_load(evaluation.out)["agents"]) == ["own"]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["agents=own", "agents.own.bonus=2"], "agents.own.bonus=2: must be a finite number >= 0 and <= 1"),
        (["agents=own", "agents.own.bonsu=1"], "did you mean 'agents.own.bonus'?"),
        (["agents=own", "+agents.own.bonsu=1"], "did you mean 'agents.own.bonus'?"),
        (["experiment=stub", "agents=own"], "agents=ppo: is not chosen, but agents.ppo.epochs are set: choose it"),
    ],
)
def test_its_settings_are_checked_like_any(overrides, sentence, own_package, zygote):
    assert_one_error(zygote.run("train", "plugins=[own_package]", *overrides), 2, sentence)


def test_its_choices_are_listed(own_package, zygote):
    assert {*config.CHOICES["agents"], "own"} <= set(zygote.run("list", "agents", "plugins=[own_package]").out.split())
    assert {"own_preset", "stub", "ppo_cartpole"} <= set(zygote.run("list", "experiments", "plugins=[own_package]").out.split())


@pytest.mark.parametrize("text", ["import nothing_like_it", "1 / 0", "def"])
def test_a_package_that_can_not_be_imported(text, here, zygote):
    (here / "broken_package.py").write_text(text)
    assert_one_error(zygote.run("train", "plugins=[broken_package]"), 2, "plugins=broken_package: can't be imported (")


# -- what is kept --------------------------------------------------------------------------------------------------------


def test_secrets_are_masked_on_the_screen(here):
    secrets = ["env.kwargs.api_key=abc123", "env.kwargs.password=987654", "env.kwargs.deep.token=[abc123]", "env.kwargs.size=3"]
    for what in ("job", "resolved"):
        result = call("train", "--cfg", what, *secrets)
        assert result.status == 0
        assert "abc123" not in result.out
        assert "987654" not in result.out
        hidden = {"api_key": "***", "password": "***", "deep": {"token": "***"}, "size": 3}
        assert yaml.safe_load(result.out)["env"]["kwargs"] == hidden


def test_cfg_resolved_resolves_and_job_does_not(here):
    assert yaml.safe_load(call("train", "--cfg", "job").out)["agents"]["ppo"]["_target_"].count("${backend.name}") == 1
    assert yaml.safe_load(call("train", "--cfg", "resolved").out)["agents"]["ppo"]["_target_"] == "rltrain.agents.ppo.torch.PPO"
    assert not list(here.iterdir())


def test_a_secret_from_the_environment_is_saved_unresolved(here, monkeypatch):
    monkeypatch.setenv("OWN_TOKEN", "reward")
    train("trainer.timesteps=8", "run.dir=run", "trainer.environment_info=${oc.env:OWN_TOKEN}")
    for path in (here / "run/config.yaml", here / "run/checkpoints/8/config.yaml"):
        assert yaml.safe_load(path.read_text())["trainer"]["environment_info"] == "${oc.env:OWN_TOKEN}"
    assert call("train", "resume=run", "trainer.timesteps=16").status == 0  # one's own run may read the environment
    assert_one_error(call("eval", "run"), 3, "calls the resolver 'oc.env'")


REFUSED = [
    "${oc.env:HOME}", "${oc.env:HOME,x}", "${ oc.env : HOME}", "a${oc.select:seed}", "${oc.decode:'1'}",
    "${${run.x}:HOME}", "${oc.${run.x}:HOME}", "${oc.create:{a:'${oc.env:HOME}'}}", "${hydra:runtime.cwd}", "${now:%Y}",
    "${own:}",
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_a_checkpoints_config_calls_no_resolver(text, trained, here):
    shutil.copytree(trained, "run")
    edit_config(here / "run/checkpoints/200", lambda cfg: cfg["env"]["kwargs"].update(x=text))
    assert_one_error(call("eval", "run"), 3, "calls the resolver")


def test_a_reference_to_its_own_keys_is_resolved(trained, here):
    shutil.copytree(trained, "run")
    edit_config(here / "run/checkpoints/200", lambda cfg: cfg["trainer"].update(timesteps="${env.num_envs}"))
    assert call("eval", "run", "episodes=1").status == 0


@pytest.mark.parametrize(
    "edit",
    [
        lambda cfg: cfg["agents"]["ppo"].update(_target_="os.system"),
        lambda cfg: cfg["env"].update(_target_="rltrain.errors.ConfigError"),
        lambda cfg: cfg["trainer"].update(_target_="${env.id}"),
        lambda cfg: cfg["agents"]["ppo"].update(typo=1),
        lambda cfg: cfg["agents"]["ppo"].update(epochs=-1),
        lambda cfg: cfg.pop("env"),
        lambda cfg: cfg.update(backend={"name": "${nothing}"}),
    ],
)
def test_a_checkpoints_config_is_checked_like_any(edit, trained, here):
    shutil.copytree(trained, "run")
    edit_config(here / "run/checkpoints/200", edit)
    assert_one_error(call("eval", "run", "episodes=1"), 3, "checkpoints/200/config.yaml: ")


@pytest.mark.parametrize(("key", "text", "value"), [
    ("seed", "7", 7), ("agents.ppo.learning_rate", "1e-3", 1e-3), ("total_env_steps", "2e3", 2000),
    ("agents.ppo.epochs", "2.5", None),
    ("agents.ppo.normalize_observations", "true", True), ("trainer.headless", "yes", None), ("run.dir", "12", "12"),
])  # fmt: skip
def test_an_environment_variable_is_what_it_spells_for_its_key(key, text, value, monkeypatch):
    """It can't be anything but text; a job of a cluster takes its seed from one."""
    monkeypatch.setenv("GIVEN", text)
    cfg = config.compose([f"{key}=${{oc.env:GIVEN}}"])
    if value is None:
        with pytest.raises(ConfigError, match=rf"{re.escape(key)}={re.escape(text)}: must be"):
            config.check(cfg)
        return
    found = config.check(cfg)
    for name in key.replace("agents.ppo.", "agents.ppo.cfg.").replace("trainer.", "trainer.cfg.").split("."):
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    assert (found, type(found)) == (value, type(value))
