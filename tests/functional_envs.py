"""Small functional environments in JAX, and trainers on them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from rltrain.agents.base import Agent
from rltrain.envs.jax_functional import FunctionalEnv
from rltrain.trainers import SequentialTrainer, Trainer


class Walk:
    """A random walk on a line that an action pushes; ends at +-2 (terminated) or after `limit` steps (truncated)."""

    observation_space = spaces.Box(-10, 10, (2,), np.float32)

    def __init__(self, continuous: bool = False, limit: int = 20, breaks_at: int = 10**9) -> None:
        self.continuous, self.limit, self.breaks_at = continuous, limit, breaks_at
        self.action_space: Any = spaces.Box(-1, 1, (1,), np.float32) if continuous else spaces.Discrete(2)

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Begin near the middle."""
        state = (jax.random.uniform(key, minval=-0.5, maxval=0.5), jnp.int32(0))
        return state, self._observe(state)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, jax.Array, jax.Array, jax.Array, jax.Array]:
        """Move by the action and by chance; earn 1 near the middle."""
        push = action[0] if self.continuous else 2.0 * action - 1.0
        position = state[0] + 0.2 * push + 0.2 * jax.random.normal(key)
        state = (position, state[1] + 1)
        reward = jnp.where(state[1] >= self.breaks_at, jnp.nan, 1.0 - jnp.abs(position))
        return state, self._observe(state), reward, jnp.abs(position) > 2, state[1] >= self.limit

    def _observe(self, state: Any) -> jax.Array:
        return jnp.stack((state[0], state[1] / self.limit))


class Nested(Walk):
    """The same with a Dict of observations."""

    observation_space = spaces.Dict({"at": spaces.Box(-10, 10, (2,), np.float32), "side": spaces.Discrete(2)})

    def _observe(self, state: Any) -> Any:
        return {"at": super()._observe(state), "side": (state[0] > 0).astype(jnp.int32)}


class Pictured(Walk):
    """The same, seen from above: a bright spot on the line, in bytes (6, 6, 3)."""

    observation_space = spaces.Box(0, 255, (6, 6, 3), np.uint8)

    def _observe(self, state: Any) -> jax.Array:
        column = jnp.clip((state[0] + 3.0).astype(jnp.int32), 0, 5)
        return jnp.full((6, 6, 3), 40, jnp.uint8).at[2:4, column].set(250)


class Leaping(Nested):
    """The same with states; `side` is 3 of 2 where a step leads beyond `far`, and, if it does so in `resets`, at some.

    From step `late` of an episode on a state is below its space, left of the middle.
    """

    state_space = spaces.MultiDiscrete([50, 50])

    def __init__(self, far: float = 9.0, resets: bool = False, late: int = 10**9) -> None:
        super().__init__(limit=3)
        self.far, self.resets, self.late = far, resets, late

    def reset(self, key: jax.Array) -> tuple[Any, Any]:
        """Begin."""
        state, observation = super().reset(key)
        return state, {**observation, "side": jnp.where(self.resets & (state[0] > 0.2), 3, observation["side"])}

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Any:
        """Move."""
        state, observation, *rest = super().step(key, state, action)
        return state, {**observation, "side": jnp.where(state[0] > self.far, 3, observation["side"])}, *rest

    def states(self, state: Any) -> jax.Array:
        """Return the number of steps."""
        return jnp.stack([state[1], jnp.where((state[1] >= self.late) & (state[0] < 0), -1, 0)])


class Fenced(Walk):
    """A walk whose critic sees the position, the policy only its sign and the time, and in which some moves are forbidden.

    Two parts: push left or right, and how hard (3 ways). Beyond +-0.5 only the way back is open, in odd steps only the last
    strength; doing what is forbidden earns NaN. From step `closed_at` on nothing is allowed.
    """

    state_space = spaces.Box(-10, 10, (3,), np.float32)

    def __init__(self, closed_at: int = 10**9, **how: Any) -> None:
        super().__init__(**how)
        self.closed_at = closed_at
        self.action_space = spaces.MultiDiscrete([2, 3])

    def states(self, state: Any) -> jax.Array:
        """Return position, its square and the time."""
        return jnp.stack((state[0], state[0] ** 2, state[1] / self.limit))

    def action_masks(self, state: Any) -> jax.Array:
        """Return what is open: left, right; weak, strong, strongest."""
        position, steps = state
        even = steps % 2 == 0
        return jnp.stack((position > -0.5, position < 0.5, even, even, True)) & (steps < self.closed_at)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, jax.Array, jax.Array, jax.Array, jax.Array]:
        """Move by the action and by chance."""
        masks = self.action_masks(state)
        allowed = masks[action[0]] & masks[2 + action[1]]
        after, observation, reward, terminated, truncated = super().step(key, state, action[0] * (1 + action[1]) / 3)
        return after, observation, jnp.where(allowed, reward, jnp.nan), terminated, truncated

    def _observe(self, state: Any) -> jax.Array:
        return jnp.stack((jnp.sign(state[0]), state[1] / self.limit))


def make_trainer(
    agents: list[tuple[type, int, dict[str, Any]]], env: Walk | None = None, *, timesteps: int, fused: str = "true",
    headless: bool = True, agent_class: type[Agent] = Agent, kind: type[Trainer] = SequentialTrainer, **how: Any,
) -> Any:  # fmt: skip
    """Return a trainer; `agents` are (class, copies, settings)."""
    copies = sum(size for _, size, _ in agents)
    made = env or Walk()
    environment = FunctionalEnv({"id": "walk", "num_envs": copies}, seed=1, make=lambda cfg: made)
    small = {"network": {"policy_sizes": [8], "value_sizes": [8]}, "learning_rate": 1e-2}
    made_agents = []
    for index, (cls, size, cfg) in enumerate(agents):
        arguments = {"state_space": environment.state_space, "num_envs": size, "cfg": {**small, **cfg}, "seed": 1, "index": index}
        made_agents.append(
            agent_class(cls(environment.observation_space, environment.action_space, **arguments), name=f"a{index}")
        )
    sizes = [size for _, size, _ in agents]
    cfg = {"timesteps": timesteps, "fused": fused, "headless": headless, "disable_progressbar": True}
    return kind(env=environment, agents=made_agents, agents_scope=sizes, cfg=cfg, **how)


def numbers(trainer: Any) -> dict[str, Any]:
    """Return everything that a checkpoint holds, but for the clock."""
    parts, exact = trainer.snapshot()
    assert exact
    parts["trainer"].pop("training_seconds")
    return parts
