"""Looks for NaN and infinity in what an environment gives; a sum of squares tells if there is any, at a fraction of the cost."""

import math

import numpy as np

from rltrain.errors import EnvironmentFailure, NonFiniteError
from rltrain.spaces import choose_rows, map_arrays, named
from rltrain.structures import Arrays, Step

LARGEST = float(np.finfo(np.float32).max)


def narrow(exact: Arrays) -> tuple[Arrays, bool]:
    """Return rewards, float64, as float32, and whether all are finite and within it; rarely, not told so though they are."""
    if isinstance(exact, dict):
        rows = {name: narrow(own) for name, own in exact.items()}
        return {name: own for name, (own, _) in rows.items()}, all(fit for _, fit in rows.values())
    if np.vdot(exact, exact) <= LARGEST**2:
        return exact.astype(np.float32), True
    with np.errstate(over="ignore"):  # it is told in words
        return exact.astype(np.float32), False


def is_finite(arrays: Arrays) -> bool:
    """Tell whether no number is NaN or infinite; rarely, numbers so large that their squares overflow are taken for such.

    A product of vectors is quicker than a sum and warns of nothing.
    """
    if not isinstance(arrays, dict):
        return arrays.dtype.kind != "f" or math.isfinite(np.vdot(arrays, arrays))
    return all(is_finite(array) for array in arrays.values())


def bad_rows(arrays: Arrays, rows: int) -> np.ndarray:
    """Return which rows (N,) hold NaN or infinity."""
    bad = np.zeros(rows, bool)
    for array in arrays.values() if isinstance(arrays, dict) else (arrays,):
        if array.dtype.kind == "f":
            bad |= ~np.isfinite(array).reshape(rows, -1).all(axis=1)
    return bad


def first_bad(arrays: Arrays, name: str) -> tuple[str, int, np.ndarray] | None:
    """Return (full name, row, that row's values) of the first NaN or infinity, or None."""
    for key, array in named(arrays, name).items():
        bad = bad_rows(array, len(array))
        if bad.any():
            row = int(np.argmax(bad))
            return key, row, array[row]
    return None


class FiniteWatch:
    """Does what `env.on_nonfinite` says: `error`, `reset` or `ignore`; `where` names the environment in messages."""

    def __init__(self, where: str, first_copy: int, obey: str, remedy: str = "reset") -> None:
        self.where, self.first_copy, self.obey, self.remedy = where, first_copy, obey, remedy

    def check_reset(self, observations: Arrays, states: Arrays, timestep: int) -> None:
        """Raise NonFiniteError if what a reset gave isn't finite; `reset` is no remedy there."""
        if self.obey != "ignore":
            self._raise({"observations": observations, "states": states}, timestep)

    def guard(self, step: Step, observations: Arrays, states: Arrays, timestep: int, *, rewards_fit: bool | None = None) -> Step:
        """Return the step to go on with; `observations` (N, *O) and `states` (N, *S) or None are those that were acted on.

        `rewards_fit` is what `narrow` told, None: look here. `reset` truncates a bad copy's episode with reward 0 and repeats
        what was acted on. Raises NonFiniteError, and EnvironmentFailure for a finite reward that float32 can't hold.
        """
        fit = is_finite(step.rewards) if rewards_fit is None else rewards_fit
        if not fit and self.obey != "reset":
            self._check_range(step, timestep)
        finite = fit and is_finite(step.next_observations) and (states is None or is_finite(step.next_states))
        if finite or self.obey == "ignore":
            return step
        copies = len(next(iter(named(step.rewards, "").values())))
        bad = bad_rows(step.rewards, copies) | bad_rows(step.next_observations, copies)
        if states is not None:
            bad |= bad_rows(step.next_states, copies)
        if not bad.any():  # only a square overflowed
            return step
        if self.obey == "error":
            looked_at = {"rewards": step.rewards, "observations": step.next_observations, "states": step.next_states}
            self._raise(looked_at, timestep)
        return step._replace(
            next_observations=choose_rows(bad, observations, step.next_observations),
            next_states=None if states is None else choose_rows(bad, states, step.next_states),
            rewards=map_arrays(lambda rows: np.where(bad, np.float32(0), rows), step.rewards),
            exact_rewards=None
            if step.exact_rewards is None
            else map_arrays(lambda rows: np.where(bad, 0.0, rows), step.exact_rewards),
            terminated=map_arrays(lambda rows: rows & ~bad, step.terminated),
            truncated=map_arrays(lambda rows: rows | bad, step.truncated),
        )

    def _check_range(self, step: Step, timestep: int) -> None:
        rewards = {} if step.exact_rewards is None else named(step.exact_rewards, "rewards")
        for key, exact in rewards.items():
            beyond = np.isfinite(exact) & np.isinf(named(step.rewards, "rewards")[key])
            if beyond.any():
                row = int(np.argmax(beyond))
                raise EnvironmentFailure(
                    f"{self.where}: copy {self.first_copy + row}: step {timestep}: {key}={exact[row]:g} is beyond float32, in "
                    f"which agents learn (up to {LARGEST:.2g}); let the environment scale its rewards"
                )

    def _raise(self, named_arrays: dict[str, Arrays], timestep: int) -> None:
        for name, arrays in named_arrays.items():
            found = None if arrays is None else first_bad(arrays, name)
            if found is not None:
                key, row, values = found
                where = f"{self.where}: copy {self.first_copy + row}: step {timestep}"
                raise NonFiniteError(
                    f"{where}: {key}={values} is not finite; mend the environment, or set env.on_nonfinite={self.remedy}"
                )
