"""What an algorithm is in JAX: functions without side effects, over a state that is handed in and handed back.

`rltrain.backends.jax.Stateful` owns the state and makes such an algorithm look like any `rltrain.agents.base.Algorithm`, for
loops over environments on the host; `trainers.fused` compiles the very same functions into one program with the environment.

Four kinds of values travel. The *state* is everything that learning changes: parameters, optimisers, statistics, random keys.
The *policy* is the part of it that acting needs. The *memory* holds what was recorded: on the device a tree of arrays, which
`record` hands back with one row more; on the host an object that is written to. An *actor* (`Acting`) holds what acting carries
from timestep to timestep, and the random numbers of one timestep: they are drawn outside, so that acting is a function of its
arguments. All are trees of arrays whose form stays as it is, as `jax.jit` and `lax.scan` want it.
"""

from typing import Any, NamedTuple, Protocol

from rltrain.backends.base import Backend
from rltrain.ops.normalizers import Moments
from rltrain.structures import Acting, Array, Arrays, Progress, UpdateSchedule

State = Any
Memory = Any  # on the device
HostMemory = Any  # one of `rltrain.memories`: `record`, `snapshot`, `restore`, `lend`, `take_back`, `is_empty`


class LearnerState(NamedTuple):
    """What a learner of the built-in algorithms carries, a part of the state."""

    parameters: dict[str, Array]
    optimizer: Any  # optax's
    target: Any  # parameters, or None


class Policy(NamedTuple):
    """What acting of the built-in algorithms needs; another algorithm's may be any tree of arrays."""

    parameters: dict[str, Array]
    observation_moments: Moments


class PureAlgorithm(Protocol):
    """The numbers of one agent; letters as in `rltrain.structures`.

    It also has `cfg`, with `check_copies(num_envs, key)`, and `key`, by which errors name its settings.
    """

    backend: Backend
    schedule: UpdateSchedule
    num_envs: int
    actor_seed: int
    acts_in_numpy: bool  # whether `act` computes with NumPy when it is given NumPy arrays
    remembers: bool  # whether `reset_carry` is told of rows that didn't happen, too
    reads_infos: bool  # of transitions
    reward_function: Any  # of `rltrain.rewards`, or None

    # -- acting --------------------------------------------------------------------------------------------------------

    def policy(self, state: State) -> Any:
        """Return what acting needs."""

    def init_carry(self, num_envs: int) -> Any:
        """Return what the acting of `num_envs` copies carries from timestep to timestep: a tree of arrays (N, ...), or None."""

    def reset_carry(self, carry: Any, done: Array) -> Any:
        """Return it begun anew where an episode ended; `done` is (N,) bool."""

    def acting_noise(self, num_envs: int) -> tuple[str, tuple[int, ...]]:
        """Return kind (exponential, normal, uniform) and shape of the random numbers that one timestep of acting takes."""

    def draw(self, key: Array, timestep: Array) -> Any:
        """Return the random numbers of a timestep of training, those of `acting_noise`."""

    def act(
        self,
        policy: Any,
        actor: Acting,
        observations: Arrays,
        states: Arrays = None,
        action_masks: Arrays = None,
        *,
        explore: bool,
        progress: Progress,
    ) -> tuple[Acting, Arrays, dict[str, Array]]:
        """Return the next actor, actions (N, *A) as the environment takes them, and what is recorded with them.

        Without `explore` there is no noise: the actions that look best, and the `logits` that they were read from. The arguments
        after the policy are those of `Algorithm.act`.
        """

    # -- learning ------------------------------------------------------------------------------------------------------

    def init(self) -> State:
        """Return the state to start from."""

    def init_memory(self, row: Any) -> Memory:
        """Return an empty memory on the device for rows (N, ...) like this one, a `Rollout`."""

    def record(self, memory: Memory, row: Any, timestep: Array) -> Memory:
        """Return the memory with the row of a timestep in its place."""

    def update(self, state: State, memory: Memory, progress: Progress) -> tuple[State, dict[str, Array], dict[str, Array]]:
        """Learn from a memory on the device; return metrics by tag, and which of them there are: () bool each."""

    def is_finite(self, state: State) -> Array:
        """Tell whether every learned number is finite, () bool."""

    def operations(self) -> float:
        """Return about how many sums and products learning takes per timestep: it says how long a program may run at once."""

    # -- learning in a loop on the host --------------------------------------------------------------------------------

    def make_memory(self) -> HostMemory:
        """Return an empty memory on the host; transitions are recorded there."""

    def update_from_host(self, state: State, memory: HostMemory, progress: Progress) -> tuple[State, dict[str, float], bool]:
        """Do as `update` does from a memory on the host; return metrics, and whether every parameter is finite."""

    def interrupt(self, state: State, memory: HostMemory, next_observations: Arrays, next_states: Arrays) -> State:
        """Take the last row recorded of every copy as truncated there, unless its episode ended anyway."""

    def discard(self, state: State, memory: HostMemory) -> State:
        """Drop what can't be learned from once timesteps count from 0 again, such as an unfinished rollout."""

    # -- snapshots -----------------------------------------------------------------------------------------------------

    def snapshot(self, state: State) -> dict[str, Any]:
        """Return {"policy": what acting needs, "training": the rest but for the memory}, as arrays and plain data."""

    def restore(self, state: State, snapshot: dict[str, Any]) -> State:
        """Return the state with everything put back; a snapshot that holds only "policy" restores only that."""

    def describe(self, memory: HostMemory | None = None) -> dict[str, Any]:
        """Return what a dry run shows: parameters, memory in bytes, gradient steps per update; `memory` is one that is shared."""
