"""Environments that show a part of what there is to see, for agents that remember."""

from typing import Any


def some_numbers(env: Any, indices: list[int]) -> Any:
    """Return an environment that shows some of the numbers of an observation.

    `indices=[0, 2]` of CartPole's are place and angle, without velocities; `[0, 1]` of Pendulum's the angle alone.
    """
    import gymnasium

    class SomeNumbers(gymnasium.ObservationWrapper):
        """Shows the numbers of these indices."""

        def __init__(self) -> None:
            super().__init__(env)
            space: Any = env.observation_space
            self.observation_space = gymnasium.spaces.Box(space.low[indices], space.high[indices], dtype=space.dtype)

        def observation(self, observation: Any) -> Any:
            """Return the numbers."""
            return observation[indices]

    return SomeNumbers()
