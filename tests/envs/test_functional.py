"""Functional environments stepped from the host: privileged states and action masks, and what is wrong with an environment."""

import copy
import functools
import re
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

pytest.importorskip("jax")

from functional_envs import Fenced, Leaping, Nested, Walk, make_trainer

from rltrain.agents.a2c.jax import A2C
from rltrain.agents.ppo.jax import PPO
from rltrain.envs.jax_functional import FunctionalEnv
from rltrain.errors import ConfigError, EnvironmentFailure, NonFiniteError
from rltrain.signals import interrupts_told_apart

TWO = [(PPO, 3, {"rollout_length": 16, "epochs": 2, "minibatches": 3, "normalize_observations": True}), (A2C, 2, {})]


def make(env: Walk, copies: int = 5) -> FunctionalEnv:
    return FunctionalEnv({"id": "walk", "num_envs": copies}, seed=1, make=lambda cfg: env)


def numbers(trainer):
    parts = trainer.snapshot()[0]
    parts["trainer"].pop("training_seconds")
    return parts


def test_states_are_the_true_successors_until_a_reset():
    env = make(Fenced(limit=4))
    env.reset()
    for _ in range(12):
        before = np.array(env.state())
        step = env.step(np.stack([before[:, 0] < 0.5, np.full(5, 2)], axis=1).astype(int))
        done = step.terminated | step.truncated
        times, positions = np.array(step.next_states)[:, 2] * 4, np.array(step.next_states)[:, 0]
        np.testing.assert_allclose(times, before[:, 2] * 4 + 1)
        np.testing.assert_array_equal(np.sign(positions), np.array(step.next_observations)[:, 0])
        np.testing.assert_array_equal(env.state(), step.next_states)
        observations = env.reset_done()
        after = np.array(env.state())
        np.testing.assert_array_equal(after[~done], np.array(step.next_states)[~done])
        np.testing.assert_array_equal(after[:, 2], np.where(done, 0, times / 4))
        np.testing.assert_array_equal(np.sign(after[:, 0]), np.array(observations)[:, 0])
    assert done.all()  # 12 is a multiple of the limit


def test_masks_are_those_of_the_observations_to_act_on_next():
    env = make(Fenced(limit=4))
    env.reset()
    for t in range(1, 9):
        position = np.array(env.state())[:, 0]
        even = np.full(5, t % 2 == 1)  # an episode of 4 steps begins at every fourth
        expected = np.stack([position > -0.5, position < 0.5, even, even, np.full(5, True)], axis=1)
        np.testing.assert_array_equal(env.action_masks(), expected)
        env.step(np.stack([expected[:, 1], np.full(5, 2)], axis=1).astype(int))
        env.reset_done()


def test_an_environment_without_them_has_none():
    env = make(Walk())
    env.reset()
    step = env.step(np.zeros(5, int))
    assert env.state_space is None and env.state() is None and env.action_masks() is None and step.next_states is None


STEPPED_AND_FUSED = [pytest.param("false", marks=pytest.mark.slow), "true"]


@pytest.mark.parametrize("fused", STEPPED_AND_FUSED)
def test_agents_draw_what_is_allowed_and_their_critics_read_states(fused):
    """A forbidden action earns NaN, which ends a run: at random, one in three steps would be one."""
    trainer = make_trainer(TWO, Fenced(), timesteps=105, fused=fused)
    trainer.train()
    assert trainer.timestep == 105
    for agent in trainer.agents:
        policy = agent.algorithm.snapshot()["policy"]["parameters"]
        assert policy["policy.weights.0"].shape == (8, 2) and policy["value.weights.0"].shape == (8, 3)
    stepped = make_trainer(TWO, Fenced(), timesteps=105, fused="false")
    stepped.train()
    np.testing.assert_equal(numbers(trainer), numbers(stepped))
    moments = trainer.agents[0].algorithm.snapshot()["policy"]["state_moments"]
    assert moments["count"] == 3 * 96 and (moments["mean"][2] > 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("fused", ["false", "true"])
def test_resumed_in_mid_rollout_equals_uninterrupted(fused):
    whole = make_trainer(TWO, Fenced(), timesteps=104, fused=fused)
    whole.train()
    first = make_trainer(TWO, Fenced(), timesteps=42, horizon=104, fused=fused)
    first.train()
    rest = make_trainer(TWO, Fenced(), timesteps=104, fused=fused)
    rest.restore(copy.deepcopy(first.snapshot()[0]))
    rest.train()
    np.testing.assert_equal(numbers(rest), numbers(whole))


@pytest.mark.parametrize("fused", ["false", "true"])
def test_a_first_observation_that_is_not_finite_names_its_copy(fused):
    class Begins(Walk):
        def reset(self, key):
            state, observation = super().reset(key)
            return state, observation.at[0].divide(jnp.where(state[0] < 0, 0.0, 1.0))

    with pytest.raises(NonFiniteError, match=r"^env.id=walk: copy \d: .*observations=\[ *-inf"):
        make_trainer(TWO, Begins(), timesteps=8, fused=fused).train()


def test_without_masks_the_forbidden_is_drawn():
    class Open(Fenced):
        def step(self, key, state, action):
            return super().step(key, state, action)

    env = make(Open())
    env.pure.choices = None
    env.reset()
    with pytest.raises(NonFiniteError, match="rewards=nan"):
        for _ in range(3):
            env.step(np.zeros((5, 2), int))


@pytest.mark.parametrize(
    ("fused", "where"), [pytest.param("false", "copy 0", marks=pytest.mark.slow), ("true", "timestep 7: copy 0")]
)
def test_nothing_left_to_do_is_an_error(fused, where):
    with pytest.raises(EnvironmentFailure, match=rf"^env.id=walk: {where}: action_masks allows no action"):
        make_trainer(TWO, Fenced(closed_at=7), timesteps=32, fused=fused).train()


class Named(Walk):
    state_space = spaces.Dict({"a": spaces.Discrete(2)})

    def states(self, state):
        return {"a": state[1]}


class Stateless(Walk):
    state_space = spaces.Box(-1, 1, (3,), np.float32)


class Pushed(Walk):
    def action_masks(self, state):
        return jnp.ones(2, bool)


@pytest.mark.parametrize(
    ("env", "error", "message"),
    [
        (Named, ConfigError, r"env.state_space=.*states must be one array, not a Dict or Tuple"),
        (Stateless, ConfigError, r"env.state_space=.*no states\(state\)"),
        (lambda: Pushed(continuous=True), ConfigError, r"env.action_space=.*only Discrete and MultiDiscrete actions can be"),
    ],
)
def test_what_does_not_fit_is_said(env, error, message):
    with pytest.raises(error, match=message):
        make(env()).reset()


@pytest.mark.parametrize("fused", ["true", "false"])
@pytest.mark.parametrize(("method", "error"), [("reset", SystemExit), ("step", KeyboardInterrupt)])
def test_an_environment_that_quits_while_it_is_traced(method, error, fused):
    """By sys.exit() or the like: an error of the environment as any other."""

    class Quits(Walk):
        pass

    def leave(*_):
        raise error

    setattr(Quits, method, leave)
    quits = pytest.raises(EnvironmentFailure, match=f"env.id=walk: {method}: {error.__name__}")
    with interrupts_told_apart(), quits:
        make_trainer([(A2C, 2, {})], Quits(), timesteps=20, fused=fused)


def raising(*arguments):
    raise ValueError("boom")


def a_walk(base=Walk, step=None, **methods):
    """Return a walk with other methods; `step` changes what a step gives: state, observation, reward, terminated, truncated."""
    if step is not None:
        methods["step"] = lambda self, key, state, action: step(*base.step(self, key, state, action))
    return type("Faulty", (base,), methods)()


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"reset": raising}, "reset: ValueError: boom"),
        ({"step": lambda *parts: raising()}, "step: ValueError: boom"),
        ({"base": Fenced, "action_masks": raising}, "action_masks: ValueError: boom"),
        ({"step": lambda s, o, r, *flags: (s, o, 1 if r > 0 else 0, *flags)}, "step: TracerBool.*no Python if, .* use jnp.where"),
        ({"step": lambda s, o, r, *flags: (s, o, np.sin(r), *flags)}, "step: TracerArrayConversionError: .* use jnp.where"),
        ({"step": lambda *parts: parts[:4]}, "step: expected 5 values .state, observation, reward, .*, got 4 values in a tuple"),
        ({"reset": lambda self, key: jnp.zeros(2)}, "reset: expected 2 values .state, observation.*, got float32 .2,"),
        ({"_observe": lambda self, s: s[0][None]}, "reset: expected observation of shape .2,., a number, got float32 .1,"),
        ({"_observe": lambda self, s: [s[0], s[0]]}, "reset: expected observation of .*, got 2 values in a list"),
        ({"step": lambda s, o, *more: (s, o[None], *more)}, "step: expected observation of .*, got float32 .1, 2"),
        ({"base": Nested, "_observe": lambda self, s: {"at": s[0]}}, "reset: expected an observation of Dict.* without 'side'"),
        (
            {"base": Nested, "_observe": lambda self, s: {"at": jnp.zeros(2), "side": s[0]}},
            "reset: expected observation/side of .* whole number, got float32",
        ),
        ({"step": lambda s, o, r, *flags: (s, o, r[None], *flags)}, "step: expected reward of .*, a number, got float32 .1,"),
        ({"step": lambda s, o, r, *flags: (s, o, None, *flags)}, "step: expected reward of .*, a number, got nothing"),
        ({"step": lambda s, o, r, t, u: (s, o, r, t * 0.5, u)}, "step: expected terminated of .*, a bool, got float32"),
        ({"step": lambda s, o, r, t, u: (s, o, r, t, u[None])}, "step: expected truncated of .*, a bool, got bool .1,"),
        ({"step": lambda s, *more: ([*s], *more)}, "step: expected a state of the structure that it was given, .*, got "),
        ({"step": lambda s, *more: ((s[0], s[1] * 1.0), *more)}, "step: expected state.1. .*, int32 .*, got float32"),
        ({"base": Fenced, "states": lambda self, s: jnp.zeros(4)}, "states: expected a state of shape .3,.*, got float32 .4,"),
        ({"base": Fenced, "action_masks": lambda self, s: s[1] < np.arange(4)}, "action_masks: expected a mask .*got bool .4,"),
    ],
)  # fmt: skip
def test_a_fault_is_told_before_anything_is_computed(env, message):
    with pytest.raises(EnvironmentFailure, match=rf"^env.id=.*: {message}") as caught:
        make(a_walk(**env))
    assert len(str(caught.value).splitlines()) == 1
    if caught.value.__cause__ is not None:  # what the environment raised, without JAX's frames
        frames = traceback.extract_tb(caught.value.__cause__.__traceback__)
        assert {frame.filename for frame in frames} == {__file__}


def test_what_can_be_read_is_no_fault():
    plain = a_walk(step=lambda s, o, r, t, u: (s, o.astype(jnp.int32), 1, False, u.astype(jnp.int32)))
    env = make(plain)
    env.reset()
    step = env.step(np.zeros(5, int))
    assert step.rewards.dtype == np.float32 and step.truncated.dtype == bool and step.next_observations.dtype == np.float32


def test_values_outside_their_space():
    """Found alike by what a fused loop makes part of its program; on request nothing is looked at."""
    env, other = (
        FunctionalEnv({"id": "walk", "on_invalid": obey, "num_envs": 1}, seed=4, make=lambda cfg: Leaping(0.8, True, 3))
        for obey in ("error", "ignore")
    )
    find = jax.jit(env.find_outside)
    env.reset(), other.reset()
    said = []
    for timestep in range(60):
        other.step(np.ones(1, int))
        after = other.copies
        other.reset_done()
        found, told = jax.device_get(find(after, None, other.copies)), []
        for call in (functools.partial(env.step, np.ones(1, int)), env.reset_done):
            try:
                call()
            except EnvironmentFailure as error:
                told.append(str(error))
        env._timestep = timestep + 1  # a step that raises doesn't count
        assert bool(found.leaf.any()) == bool(told)
        if told:
            with pytest.raises(EnvironmentFailure) as refused:
                env.refuse_outside(found, timestep)
            assert str(refused.value).replace("timestep", "step") == told[0]
            said.append(told[0])
    side, state = r"observations/side=3 is outside Discrete\(2\)", r"states\[1\]=-1 is outside MultiDiscrete\(\[50 50\]\)"
    for when, what in ((r"step (1|4|7|10|13|16|19|22)", side), (r"step ([369]|12|15|18)", side), (r"step (2|5|8|11)", state)):
        assert any(re.fullmatch(rf"env.id=walk: copy 0: {when}: {what}, 0 to .*env.on_invalid=ignore", text) for text in said), (
            said
        )
    assert other.find_outside(after, None, other.copies) is None
