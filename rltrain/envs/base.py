"""The one interface between trainers and simulators: N copies of one environment, stepped together."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from rltrain.structures import Array, Arrays, Step, cut


class EnvWrapper(ABC):
    """N copies of one environment. Host simulators hand out NumPy arrays, device simulators their backend's.

    Observations are an array (N, *O), or a flat dict of such by path where the space is composite (`rltrain.spaces`).

    A wrapper never resets a copy on its own inside `step`: the successors that `step` returns are the true ones, and
    `reset_done` starts the episodes that follow.
    """

    num_envs: int
    num_agents: int = 1  # in one copy
    members: tuple[str, ...] = ()  # their names, where they have names: what belongs to one is then a dict by name
    observation_space: Any  # of one copy
    state_space: Any = None
    action_space: Any  # of one copy
    name: str  # the environment's id, for messages and folders
    seeds: list[int] | None = None  # one per copy: the seeds of the first `reset`
    run_seed: int | None = None  # that these come from, where `rltrain.make_env` was given one; an agent for it takes it too
    is_filmed: bool = False  # pictures are taken of it in evaluations
    draws_from: tuple[str, ...] = ()  # the generators of a whole process that moved while it was stepped, found at snapshots

    @abstractmethod
    def reset(self, seed: Sequence[int] | None = None) -> Arrays:
        """Start an episode in every copy and return the observations (N, *O).

        `seed` holds a 32-bit integer per copy. Without one, the first reset uses `seeds`, later ones go on with the streams.
        """

    @abstractmethod
    def step(self, actions: Array) -> Step:
        """Step all copies with actions (N, *A)."""

    @abstractmethod
    def reset_done(self) -> Arrays:
        """Start the next episode of the copies whose last one just ended; return the observations to act on next (N, *O)."""

    @property
    def episode_limit(self) -> int | None:
        """Return after how many steps every episode is truncated by a time limit, or None where that isn't known."""
        return None

    def end_episodes(self, copies: Array) -> bool:
        """End the episodes of `copies` (N,) bool where they are, so that `reset_done` starts the next ones.

        False: this simulator can't reset single copies, and nothing was done.
        """
        return False

    def state(self) -> Arrays:
        """Return the privileged states (N, *S) that go with the observations to act on next, or None; only a critic sees them."""
        return None

    def action_masks(self) -> Array | None:
        """Return which choices are allowed next, (N, M) bool with M the choices side by side, or None: all are."""
        return None

    def cut(self, value: Any, scope: slice) -> Any:
        """Return the rows of the copies in `scope` of observations, states, masks or a Step: what one of several agents sees."""
        return cut(value, scope, self.num_envs)

    def render(self) -> Any:
        """Draw the copies in the way they were made to be drawn."""
        return None

    def draw(self, copy: int) -> Any:
        """Return a picture of one copy, (H, W, 3) uint8, where the copies were made to be drawn so; else None."""
        return None

    @property
    def render_fps(self) -> Any:
        """Return how many steps make a second of video, as the environment says it, or None."""
        return None

    def close(self) -> None:
        """Free what the simulator holds. Safe to call twice."""
        return None

    def snapshot(self) -> dict[str, Any] | None:
        """Return the exact state of all copies as arrays and plain data, or None where it can't be had."""
        return None

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put all copies back into the state of `snapshot`."""
        raise ValueError(f"{self.name} has no snapshots to restore")

    def policy_states(self, scopes: Sequence[slice]) -> list[dict[str, Any]]:
        """Return what wrappers inside the copies have gathered and acting needs, pooled over the copies of each scope."""
        return [{} for _ in scopes]

    def put_policy_states(self, states: Sequence[dict[str, Any] | None], scopes: Sequence[slice], *, frozen: bool) -> None:
        """Put such states into the copies of each scope: frozen into every one of them, else a share of it into each."""
        return None

    def keep_policy_states(self) -> Any:
        """Return what `put_policy_states` changes, for `give_policy_states_back`, or None if it changes nothing."""
        return None

    def give_policy_states_back(self, kept: Any) -> None:
        """Put back what `keep_policy_states` returned."""
        return None

    def wrapper_marks(self) -> list[dict[str, str]]:
        """Return per copy what tells whether wrappers that don't say what they keep hold the same: a mark by attribute."""
        return []

    def partition(self, sizes: Sequence[int]) -> list[Callable[[], "EnvWrapper"]] | None:
        """Return a picklable factory per slice of the copies, or None if the simulator can't be split."""
        return None

    def cut_snapshot(self, snapshot: dict[str, Any], sizes: Sequence[int]) -> list[dict[str, Any]]:
        """Return a snapshot per slice of the copies, for the slices of `partition`."""
        raise ValueError(f"{self.name} has no snapshots to cut")

    def join_snapshots(self, snapshots: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the snapshot of all copies: the reverse of `cut_snapshot`."""
        raise ValueError(f"{self.name} has no snapshots to join")

    def info(self) -> dict[str, Any]:
        """Say what was chosen where the config left a choice, and which versions are at work; saved with the run."""
        return {}

    def notes(self) -> list[str]:
        """Say in a line each what a reader of returns has to know of the environment: the log of a run begins with it."""
        return []
