"""Small functional environments in JAX with several named members."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

MEMBERS = ("walker_0", "walker_1", "guide")


class Herd:
    """Two walkers on a line, each pushed by its own action, and a guide who pulls both; all are paid for being near the middle.

    A walker that comes to +-1 is out (terminated), the guide and whoever is left stop after `limit` steps (truncated).
    """

    members: ClassVar = MEMBERS
    observation_space = spaces.Dict(
        {
            "walker_0": spaces.Box(-10, 10, (2,), np.float32),
            "walker_1": spaces.Box(-10, 10, (2,), np.float32),
            "guide": spaces.Dict({"at": spaces.Box(-10, 10, (2,), np.float32), "side": spaces.Discrete(2)}),
        }
    )
    action_space = spaces.Dict(
        {"walker_0": spaces.Discrete(2), "walker_1": spaces.Discrete(2), "guide": spaces.Box(-1, 1, (1,), np.float32)}
    )

    def __init__(self, limit: int = 13, breaks_at: int = 10**9) -> None:
        self.limit, self.breaks_at = limit, breaks_at

    def reset(self, key: jax.Array) -> tuple[Any, dict[str, Any]]:
        """Begin near the middle."""
        state = (jax.random.uniform(key, (2,), minval=-0.5, maxval=0.5), jnp.int32(0))
        return state, self.observe(state)

    def step(self, key: jax.Array, state: Any, actions: dict[str, jax.Array]) -> Any:
        """Move both by their actions, the guide's and by chance."""
        push = jnp.stack([2.0 * actions[name] - 1.0 for name in MEMBERS[:2]]) + 0.5 * actions["guide"][0]
        positions = state[0] + 0.2 * push + 0.2 * jax.random.normal(key, (2,))
        state = (positions, state[1] + 1)
        near = jnp.where(state[1] >= self.breaks_at, jnp.nan, 1.0 - jnp.abs(positions))
        rewards = {"walker_0": near[0], "walker_1": near[1], "guide": near.mean()}
        out = jnp.abs(positions) > 1
        terminated = {"walker_0": out[0], "walker_1": out[1], "guide": jnp.bool_(False)}
        return state, self.observe(state), rewards, terminated, dict.fromkeys(MEMBERS, state[1] >= self.limit)

    def observe(self, state: Any) -> dict[str, Any]:
        """Return a walker's own position and the time, and both positions and on which side their middle is."""
        positions, time = state[0], state[1] / self.limit
        return {
            "walker_0": jnp.stack((positions[0], time)),
            "walker_1": jnp.stack((positions[1], time)),
            "guide": {"at": positions, "side": (positions.mean() > 0).astype(jnp.int32)},
        }


class Walkers(Herd):
    """The same without the guide."""

    members: ClassVar = MEMBERS[:2]
    observation_space = spaces.Dict({name: spaces.Box(-10, 10, (2,), np.float32) for name in MEMBERS[:2]})
    action_space = spaces.Dict({name: spaces.Discrete(2) for name in MEMBERS[:2]})

    def step(self, key: jax.Array, state: Any, actions: dict[str, jax.Array]) -> Any:
        """Move both by their actions and by chance."""
        after, observations, *rest = super().step(key, state, {**actions, "guide": jnp.zeros(1)})
        return after, observations, *({name: values[name] for name in self.members} for values in rest)

    def observe(self, state: Any) -> dict[str, Any]:
        """Return a walker's own position and the time."""
        found = super().observe(state)
        return {name: found[name] for name in self.members}


class Pair(Walkers):
    """Walkers who stay to the end: nobody is terminated. The critic reads a state of its own.

    Away from the middle by more than 0.5 a walker may only go back; doing otherwise earns NaN.
    """

    members_leave = False
    state_space = spaces.Box(-10, 10, (3,), np.float32)

    def states(self, state: Any) -> jax.Array:
        """Return both positions and the time."""
        return jnp.append(state[0], state[1] / self.limit)

    def action_masks(self, state: Any) -> dict[str, jax.Array]:
        """Return what is open to each: left, right."""
        return {name: jnp.stack((at > -0.5, at < 0.5)) for name, at in zip(self.members, state[0], strict=True)}

    def step(self, key: jax.Array, state: Any, actions: dict[str, jax.Array]) -> Any:
        """Move both by their actions and by chance."""
        masks = self.action_masks(state)
        after, observations, rewards, terminated, truncated = super().step(key, state, actions)
        rewards = {name: jnp.where(masks[name][actions[name]], rewards[name], jnp.nan) for name in self.members}
        return after, observations, rewards, dict.fromkeys(terminated, jnp.bool_(False)), truncated


class Shift:
    """Three members known by heart: `early` is there in steps 1 and 2, `late` from step 2 on, `steady` all `length` steps.

    Observations hold the number of steps and a number of the episode; everyone is paid the number of the step, `late` ten
    times that.
    """

    members: ClassVar = ("early", "late", "steady")
    observation_space = spaces.Dict({name: spaces.Box(0, 100, (2,), np.float32) for name in members})
    action_space = spaces.Dict({name: spaces.Discrete(2) for name in members})
    length = 4

    def reset(self, key: jax.Array) -> tuple[Any, dict[str, Any]]:
        """Begin; where it begins is drawn."""
        state = (jnp.int32(0), jax.random.uniform(key, minval=1.0, maxval=2.0))
        return state, self.observe(state)

    def step(self, key: jax.Array, state: Any, actions: dict[str, jax.Array]) -> Any:
        """Count."""
        count = state[0] + 1
        state = (count, state[1])
        rewards = {name: count * (10.0 if name == "late" else 1.0) for name in self.members}
        none, over = jnp.bool_(False), count >= self.length
        terminated = {"early": count >= 2, "late": none, "steady": none}
        return state, self.observe(state), rewards, terminated, dict.fromkeys(self.members, over)

    def observe(self, state: Any) -> dict[str, Any]:
        """Return the number of steps and where it began."""
        return {name: jnp.stack((state[0].astype(jnp.float32), state[1])) for name in self.members}

    def present(self, state: Any) -> dict[str, jax.Array]:
        """Return who has come; those that have left are flagged."""
        return {"early": jnp.bool_(True), "late": state[0] >= 1, "steady": jnp.bool_(True)}
