"""What every algorithm in JAX offers besides what its PyTorch twin has: see `PureAlgorithm`."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from rltrain.agents.learners.jax import Learner
from rltrain.agents.pure.protocol import LearnerState, Policy
from rltrain.backends.jax import draw, key_of
from rltrain.structures import Array, Progress

Metrics = dict[str, Array]  # each (), by tag
State = Any  # what learning carries: a NamedTuple of `learners`, `observation_moments`, `key` of what learning draws, and others


class Pure(ABC):
    """Functions over a state of learners, and their compiled forms for loops on the host."""

    learners: dict[str, Learner]
    acts_with: ClassVar[str]  # the learner whose parameters acting needs
    num_envs: int
    remembers = False  # whether acting carries what networks remember
    seeds: list[int]  # of parameters, and of what learning draws

    def compile(self) -> None:
        """Make ready for updates from the host; nothing is compiled before the first."""
        self._update_and_check = jax.jit(self._check_after_update, donate_argnums=0)

    def init_learners(self) -> dict[str, LearnerState]:
        """Return what learners start from."""
        key, count = key_of(self.seeds[0]), len(self.learners)
        keys = jax.random.split(key, count) if count > 1 else [key]
        return {name: learner.init(own) for own, (name, learner) in zip(keys, self.learners.items(), strict=True)}

    def shapes(self) -> dict[str, Any]:
        """Return what has the shapes of all parameters, by name."""
        return self.parameters(jax.eval_shape(self.init_learners))

    def parameters(self, learners: dict[str, LearnerState]) -> dict[str, Array]:
        """Return all learners' parameters by name."""
        return {name: array for learner in learners.values() for name, array in learner.parameters.items()}

    @property
    def acts_in_numpy(self) -> bool:
        """Whether networks act on NumPy arrays without a compiled call."""
        return self.learners[self.acts_with].network.acts_in_numpy

    def policy(self, state: State) -> Policy:
        """Return what acting needs."""
        return Policy(state.learners[self.acts_with].parameters, state.observation_moments)

    @abstractmethod
    def acting_noise(self, num_envs: int) -> tuple[str, tuple[int, ...]]:
        """Return kind and shape of the random numbers that one step of acting takes; see `rltrain.backends.jax.draw`."""

    def draw(self, key: Array, timestep: Array) -> Array:
        """Return the random numbers that acting takes in this timestep of training."""
        return draw(key, timestep, *self.acting_noise(self.num_envs))

    @abstractmethod
    def update(self, state: State, memory: Any, progress: Progress) -> tuple[State, Metrics, dict[str, Array]]:
        """Learn from a memory on the device; return the state, metrics, and which of them there are, () bool each."""

    def update_from_host(self, state: State, memory: Any, progress: Progress) -> tuple[State, dict[str, float], bool]:
        """Learn from all that a memory on the host has; return metrics, and whether every parameter is finite."""
        return self.update_compiled(state, memory.read(), progress)

    def update_compiled(self, state: State, memory: Any, progress: Progress) -> tuple[State, dict[str, float], bool]:
        """Return the state after a compiled update, its metrics, and whether every parameter is finite."""
        state, outcome = self._update_and_check(state, memory, progress)
        metrics, present, finite = jax.device_get(outcome)
        return state, {tag: float(value) for tag, value in metrics.items() if present[tag]}, bool(finite)

    def _check_after_update(self, state: State, memory: Any, progress: Progress) -> tuple[State, Any]:
        """Return the state after an update, and what the host sees of it."""
        state, metrics, present = self.update(state, memory, progress)
        return state, (metrics, present, self.is_finite(state))

    def is_finite(self, state: State) -> Array:
        """Tell whether every parameter is finite; a sum is, unless a term isn't."""
        parameters = [learner.parameters for learner in state.learners.values()]
        return jnp.isfinite(sum(parameter.sum() for parameter in jax.tree.leaves(parameters)))

    def operations(self) -> float:
        """Return about how many sums and products learning takes per timestep."""
        return 6.0 * self.count_parameters() * self.rows_learned()

    def count_parameters(self) -> int:
        """Return how many numbers are learned."""
        return sum(int(np.prod(array.shape)) for array in self.shapes().values())

    @abstractmethod
    def rows_learned(self) -> float:
        """Return on how many rows gradient steps learn, per timestep."""
