"""The loop: who is called, in what order, with what, on a real environment."""

from typing import Any

import numpy as np
import pytest

from rltrain.agents.base import Agent
from rltrain.agents.ppo.torch import PPO
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.errors import ConfigError
from rltrain.trainers import SequentialTrainer, Trainer, TrainerConfig

SMALL = {"rollout_length": 4, "epochs": 1, "minibatches": 2, "network": {"policy_sizes": [4], "value_sizes": [4]}}
QUIET = {"disable_progressbar": True}


class Recorder:
    """Stands before an object and writes down which methods are called, with what, and what they return."""

    def __init__(self, wrapped: Any, name: str, log: list) -> None:
        self._wrapped, self._name, self._log = wrapped, name, log

    def __getattr__(self, attribute: str) -> Any:
        """Return the wrapped attribute; a method is written down when it is called."""
        value = getattr(self._wrapped, attribute)
        if not callable(value) or attribute in ("algorithm", "read_metrics"):  # rows of metrics are no step of the loop
            return value

        def called(*args: Any, **kwargs: Any) -> Any:
            call = {"who": self._name, "method": attribute, "args": args, "kwargs": kwargs}
            self._log.append(call)
            call["result"] = value(*args, **kwargs)
            return call["result"]

        return called


def make(
    scopes: list[int], *, trainer: type[Trainer] = Trainer, log: list | None = None, evaluation: bool = False, **cfg: Any
) -> Trainer:
    """Return a trainer of one agent per scope on CartPole; calls land in `log`."""
    log = [] if log is None else log
    env_cfg = {"id": "CartPole-v1", "num_envs": sum(scopes)}
    env = GymnasiumEnv(env_cfg, seed=0)
    names = "ABC"[: len(scopes)]
    agents = [
        Agent(PPO(env.observation_space, env.action_space, num_envs=copies, cfg=SMALL, index=i), name=names[i])
        for i, copies in enumerate(scopes)
    ]
    evaluation_env = Recorder(GymnasiumEnv(env_cfg, seed=0, role=1), "evaluation", log) if evaluation else None
    recorded: list[Any] = [Recorder(agent, agent.name, log) for agent in agents]
    return trainer(Recorder(env, "env", log), recorded, scopes, {**QUIET, **cfg}, evaluation_env=evaluation_env)  # type: ignore[arg-type]


LOOK = ("wrapper_marks", "state", "action_masks", "snapshot", "policy_states")


def order(log: list[dict]) -> list[str]:
    """Return the calls as "who.method"; those aside that only look something up."""
    return [f"{call['who']}.{call['method']}" for call in log if call["method"] not in LOOK]


def calls(log: list[dict], who: str, method: str) -> list[dict]:
    return [call for call in log if (call["who"], call["method"]) == (who, method)]


TURN = ["pre_interaction", "act", "step", "render", "record_transition", "post_interaction", "reset_done"]


@pytest.mark.parametrize("scopes", [[8], [3, 5]])
def test_training_takes_the_seven_steps_in_order(scopes):
    log: list[dict] = []
    make(scopes, log=log, timesteps=6, headless=False).train()
    names = "AB"[: len(scopes)]
    turn = [f"{who}.{method}" for method in TURN for who in (["env"] if method in ("step", "render", "reset_done") else names)]
    assert order(log) == ["env.reset", *turn * 6]


@pytest.mark.parametrize("scopes", [[8], [3, 5]])
def test_evaluation_acts_steps_renders_and_resets(scopes):
    log: list[dict] = []
    trainer = make(scopes, log=log, timesteps=3, headless=False, evaluation=True)
    trainer.eval()
    names = "AB"[: len(scopes)]
    turn = [
        *(f"{who}.act" for who in names), "evaluation.step", "evaluation.render",
        *(f"{who}.end_evaluation_episodes" for who in names), "evaluation.reset_done",
    ]  # fmt: skip
    assert order(log) == [*(f"{who}.begin_evaluation" for who in names), "evaluation.reset", *turn * 3]
    for call in calls(log, "A", "act"):
        assert call["kwargs"] | {"timestep": 0} == {"timestep": 0, "timesteps": 3, "explore": False, "evaluation": True}


@pytest.mark.parametrize("learn", [True, False])
def test_states_and_masks_are_those_of_the_observations_acted_on(learn):
    """Looked up between the last reset and the step; each agent gets its copies' rows, and the states again at `record`."""
    log: list[dict] = []
    trainer = make([3, 5], log=log, timesteps=4, evaluation=True)
    env = trainer.env if learn else trainer.evaluation_env
    steps = lambda: sum(call["method"] == "step" for call in log)  # noqa: E731
    env._wrapped.state = lambda: 100.0 * steps() + np.arange(8.0)[:, None]
    env._wrapped.action_masks = lambda: (np.arange(8)[:, None] + steps() + np.arange(2)) % 3 > 0
    trainer.train() if learn else trainer.eval()
    for name, scope in (("A", slice(0, 3)), ("B", slice(3, 8))):
        acts, records = calls(log, name, "act"), calls(log, name, "record_transition")
        assert len(acts) == 4 and len(records) == (4 if learn else 0)
        for t, act in enumerate(acts):
            _, states, masks = act["args"]
            assert states[:, 0].tolist() == [100.0 * t + i for i in range(8)[scope]]
            assert masks.tolist() == [[(i + t) % 3 > 0, (i + t + 1) % 3 > 0] for i in range(8)[scope]]
            assert masks[np.arange(len(masks)), act["result"]].all()  # and the agent keeps to them
        for t, record in enumerate(records):
            assert record["kwargs"]["states"][:, 0].tolist() == [100.0 * t + i for i in range(8)[scope]]


def test_stochastic_evaluation_explores():
    log: list[dict] = []
    make([2], log=log, timesteps=2, stochastic_evaluation=True, evaluation=True).eval()
    assert [call["kwargs"]["explore"] for call in calls(log, "A", "act")] == [True, True]


def test_evaluation_without_an_environment_of_its_own_says_so_and_resets_the_training_one():
    log: list[dict] = []
    trainer = make([2], log=log, timesteps=6)
    said = []
    trainer.run.say = said.append  # type: ignore[method-assign]
    trainer.train()
    log.clear()
    trainer.eval(episodes=1)
    assert said == ["evaluation resets the training environment: no evaluation_env was given"]
    assert order(log)[:3] == ["A.interrupt", "A.begin_evaluation", "env.reset"]
    assert trainer.observations is None  # training would begin new episodes


def test_each_agent_sees_its_own_copies_only():
    log: list[dict] = []
    make([3, 5], log=log, timesteps=30).train()
    steps, resets = calls(log, "env", "step"), [calls(log, "env", "reset")[0], *calls(log, "env", "reset_done")]
    for name, scope in (("A", slice(0, 3)), ("B", slice(3, 8))):
        acts, records = calls(log, name, "act"), calls(log, name, "record_transition")
        assert len(acts) == len(records) == len(steps) == 30
        for act, record, step, seen in zip(acts, records, steps, resets, strict=False):
            given, answer = record["kwargs"], step["result"]
            assert np.array_equal(act["args"][0], seen["result"][scope])
            assert np.array_equal(given["observations"], seen["result"][scope])
            assert np.array_equal(step["args"][0][scope], act["result"])
            assert np.array_equal(given["actions"], act["result"])
            for field in ("rewards", "next_observations", "terminated", "truncated"):
                assert np.array_equal(given[field], getattr(answer, field)[scope]), field
            assert given["states"] is given["next_states"] is given["valid"] is None
    assert any(call["result"].terminated.any() for call in steps)


@pytest.mark.parametrize("scopes", [[4], [1, 3]])
def test_methods_are_told_the_timestep_and_the_horizon(scopes):
    log: list[dict] = []
    trainer = make(scopes, log=log, timesteps=5)
    trainer.horizon = 50  # what schedules run over may reach beyond this run's stop
    trainer.train()
    for who in "AB"[: len(scopes)]:
        for method in ("pre_interaction", "act", "record_transition", "post_interaction"):
            told = [(call["kwargs"]["timestep"], call["kwargs"]["timesteps"]) for call in calls(log, who, method)]
            assert told == [(t, 50) for t in range(5)], method


@pytest.mark.parametrize(("interval", "drawn"), [(1, [0, 1, 2, 3, 4, 5, 6]), (3, [0, 3, 6])])
def test_render_interval(interval, drawn):
    log: list[dict] = []
    make([2], log=log, timesteps=7, headless=False, render_interval=interval).train()
    rendered, turn = [], 0
    for call in log:
        turn += call["method"] == "step"
        rendered += [turn - 1] if call["method"] == "render" else []
    assert rendered == drawn


def test_headless_draws_nothing():
    log: list[dict] = []
    make([2], log=log, timesteps=3).train()
    assert not calls(log, "env", "render")


def test_updates_fall_due_with_the_rollout():
    trainer = make([2, 2], timesteps=11)
    trainer.train()
    assert [agent.updates for agent in trainer.agents] == [2, 2]  # after timesteps 3 and 7
    assert [agent.statistics.env_steps for agent in trainer.agents] == [22, 22]


def test_train_goes_on_where_it_stood():
    log: list[dict] = []
    trainer = make([2], log=log, timesteps=3)
    trainer.train()
    trainer.timesteps = 5
    trainer.train()
    assert [call["kwargs"]["timestep"] for call in calls(log, "A", "act")] == [0, 1, 2, 3, 4]
    assert len(calls(log, "env", "reset")) == 1


# -- a trainer of one's own --------------------------------------------------------------------------------------------------

MY_DEFAULTS = {"timesteps": 4, "headless": True, "my_factor": 3, "my_table": {"a": [1]}, "disable_progressbar": True}


class MyTrainer(Trainer):
    """A user's trainer: a dict of its own defaults, and agents called in another order."""

    def __init__(self, env: Any, agents: Any, agents_scope: Any = None, cfg: Any = None) -> None:
        super().__init__(env, agents, agents_scope, {**MY_DEFAULTS, **(cfg or {})})

    def _for_each_agent(self, method: str, *args: Any, **kwargs: Any) -> list[Any]:
        self.seen = [*getattr(self, "seen", []), method]
        return super()._for_each_agent(method, *args, **kwargs)


def my_trainer(cfg: dict | None = None) -> MyTrainer:
    env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 2}, seed=0)
    return MyTrainer(env, Agent(PPO(env.observation_space, env.action_space, num_envs=2, cfg=SMALL)), cfg=cfg)


def test_a_subclass_brings_a_dict_with_keys_of_its_own():
    trainer = my_trainer({"my_factor": 5})
    assert trainer.cfg["my_factor"] == trainer.cfg.my_factor == 5 and trainer.cfg.my_table == {"a": [1]}
    assert trainer.cfg.timesteps == trainer.timesteps == 4 and trainer.cfg["render_interval"] == 1
    assert dict(trainer.cfg)["headless"] is True and "nothing" not in trainer.cfg
    with pytest.raises(AttributeError):
        _ = trainer.cfg.nothing
    trainer.cfg.my_table["a"].append(2)
    assert MY_DEFAULTS["my_table"] == {"a": [1]}  # the defaults are not shared
    trainer.train()
    assert trainer.seen == ["pre_interaction", "act", "record_transition", "post_interaction"] * 4


def test_a_subclass_still_has_the_known_keys_checked():
    with pytest.raises(ConfigError, match=r"trainer.timesteps=-5: must be a whole number >= 1 or null"):
        my_trainer({"timesteps": -5})


@pytest.mark.parametrize("cfg", [{"timestep": 5}, {"my_factor": 3}])
def test_built_in_trainers_refuse_unknown_keys(cfg):
    with pytest.raises(ConfigError, match=rf"trainer\.{next(iter(cfg))}=\d: no such key; .*timesteps"):
        make([2], trainer=SequentialTrainer, **cfg)


def test_settings_come_as_a_dataclass_too():
    env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 1})
    agent = Agent(PPO(env.observation_space, env.action_space, num_envs=1, cfg=SMALL))
    assert SequentialTrainer(env, agent, cfg=TrainerConfig(timesteps=7)).timesteps == 7


def test_training_needs_a_number_of_timesteps():
    with pytest.raises(ConfigError, match=r"trainer.timesteps=null: say how long to train"):
        make([2]).train()
    with pytest.raises(ConfigError, match=r"episodes=null: say how long to evaluate"):
        make([2], evaluation=True).eval()


def test_a_trainer_introduces_itself():
    lines = str(make([3, 5], trainer=SequentialTrainer, timesteps=1000)).splitlines()
    assert lines == ["SequentialTrainer: 8 x CartPole-v1, 1,000 timesteps", "  A: PPO, copies 0 to 2", "  B: PPO, copies 3 to 7"]


# -- scopes ------------------------------------------------------------------------------------------------------------------


def agents(*sizes: int) -> list[Agent]:
    env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 1})
    spaces = env.observation_space, env.action_space
    return [Agent(PPO(*spaces, num_envs=size, cfg=SMALL), name=f"a{size}_{i}") for i, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("scopes", "says"),
    [
        ([2, 3], r"agents_scope.sizes=\[2, 3\]: add up to 5, but the environment has 6 copies; give sizes that add up to 6"),
        ([6], "1 sizes for 2 agents; give 2"),
        ([2, 2, 2], "3 sizes for 2 agents; give 2"),
        ([0, 6], "each size is a whole number >= 1"),
        ([-2, 8], "each size is a whole number >= 1"),
        ([2.0, 4.0], "each size is a whole number >= 1"),
        ([True, 5], "each size is a whole number >= 1"),
        (["2", "4"], "each size is a whole number >= 1"),
        ([None, 6], "each size is a whole number >= 1"),
        ([[2], [4]], "each size is a whole number >= 1"),
        ([4, 2], r"a2_. was made for 2 copies; its scope has 4"),
    ],
)
def test_wrong_scopes(scopes, says):
    env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 6})
    with pytest.raises(ConfigError, match=says):
        Trainer(env, agents(2, 4), scopes, QUIET)


def test_no_agent_and_too_many():
    env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 1})
    with pytest.raises(ConfigError, match="name at least one agent"):
        Trainer(env, [], None, QUIET)
    with pytest.raises(ConfigError, match=r"env.num_envs=1: 2 agents need a copy each; give at least 2"):
        Trainer(env, agents(1, 1), None, QUIET)


def test_scopes_are_even_unless_given():
    env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 8})
    assert Trainer(env, agents(2, 2, 4), None, QUIET).agents_scope == [2, 2, 4]  # the remainder in the last
    assert Trainer(env, agents(8), None, QUIET).agents_scope == [8]


def test_a_second_training_says_that_all_is_made_and_goes_on_with_more():
    trainer = make([2], timesteps=8)
    trainer.train()
    with pytest.raises(ConfigError, match=r"trainer.timesteps=8: .* at timestep 8; set trainer.timesteps to more"):
        trainer.train()
    trainer.timesteps = 12
    trainer.train()
    assert (trainer.timestep, trainer.agents[0].updates) == (12, 3)
