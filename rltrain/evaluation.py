"""Which episodes an evaluation counts, and what is said about them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rltrain.checks import option
from rltrain.seeding import STATISTICS
from rltrain.structures import Step

RESAMPLES = 10_000
PICKS_AT_ONCE = 2**20  # 8 MiB: thousands of episodes times thousands of resamples would not fit into memory


@dataclass
class EvaluationConfig:
    """Evaluations during training, on an environment of their own; they choose `best`."""

    interval: int = option(0, "timesteps between evaluations; 0: none", low=0)
    episodes: int = option(10, "episodes of each evaluation", low=1, high=1_000_000)


def episode_quota(episodes: int, copies: int) -> np.ndarray:
    """Return how many episodes of each copy count (N,): floor(episodes / copies), one more of the first ones.

    A copy's first episodes count, so short ones don't crowd out long ones.
    """
    return np.full(copies, episodes // copies) + (np.arange(copies) < episodes % copies)


@dataclass
class EpisodeCounter:
    """Collects the episodes that count, of N copies."""

    quota: np.ndarray  # (N,)
    returns: list[list[float]] = field(init=False)  # per copy, in the order they were played
    lengths: list[list[int]] = field(init=False)
    successes: list[list[float | None]] = field(init=False)

    def __post_init__(self) -> None:
        copies = len(self.quota)
        self.returns = [[] for _ in range(copies)]
        self.lengths = [[] for _ in range(copies)]
        self.successes = [[] for _ in range(copies)]
        self._return, self._length = np.zeros(copies), np.zeros(copies, np.int64)

    @property
    def is_full(self) -> bool:
        """Tell whether every copy has played its episodes."""
        return all(len(done) >= quota for done, quota in zip(self.returns, self.quota, strict=True))

    def record(self, step: Step) -> np.ndarray:
        """Add one step of all copies; return which episodes ended (N,) bool."""
        happened = np.ones(len(self.quota), bool) if step.valid is None else step.valid
        self._return += np.where(happened, step.rewards, 0.0)
        self._length += happened
        done = step.terminated | step.truncated
        success, given = step.infos.get("is_success"), step.infos.get("_is_success")
        for i in np.flatnonzero(done):
            if len(self.returns[i]) < self.quota[i]:
                self.returns[i].append(float(self._return[i]))
                self.lengths[i].append(int(self._length[i]))
                self.successes[i].append(float(success[i]) if success is not None and (given is None or given[i]) else None)
        self._return[done], self._length[done] = 0.0, 0
        return done

    def results(self) -> dict[str, Any]:
        """Return the counted episodes, copy by copy: {"returns", "lengths", "successes"}, lists.

        An environment that tells only of its successes failed where it told nothing; one that never tells has none.
        """
        successes = [value for copy in self.successes for value in copy]
        told = any(value is not None for value in successes)
        return {
            "returns": [value for copy in self.returns for value in copy],
            "lengths": [value for copy in self.lengths for value in copy],
            "successes": [value or 0.0 for value in successes] if told else [],
        }


def summarize(results: dict[str, Any], *, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Return the figures of one policy's episodes: {"episodes", "mean", "mean_interval", ...}.

    The interval is the 95 % percentile bootstrap over episodes (Efron 1979) with a fixed stream, so the same episodes give the
    same figures. `iqm` is the mean of the middle half; it drops the worst quarter of the episodes, so `mean` comes first.
    """
    returns = np.asarray(results["returns"], np.float64)
    if not len(returns):
        none = dict.fromkeys(("mean", "mean_interval", "std", "median", "iqm", "min", "max", "length_mean", "success_rate"))
        return {"episodes": 0, **none}
    generator = np.random.default_rng(np.random.SeedSequence([0, STATISTICS]))
    rows = max(1, PICKS_AT_ONCE // len(returns))
    means = [
        returns[generator.integers(0, len(returns), (min(rows, resamples - done), len(returns)))].mean(axis=1)
        for done in range(0, resamples, rows)
    ]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return {
        "episodes": len(returns),
        "mean": float(returns.mean()),
        "mean_interval": [float(low), float(high)],
        "std": float(returns.std(ddof=1)) if len(returns) > 1 else 0.0,
        "median": float(np.median(returns)),
        "iqm": interquartile_mean(returns),
        "min": float(returns.min()),
        "max": float(returns.max()),
        "length_mean": float(np.mean(results["lengths"])),
        "success_rate": float(np.mean(results["successes"])) if results["successes"] else None,
    }


def interquartile_mean(values: np.ndarray) -> float:
    """Return the mean of what is left when the lowest and highest quarter (rounded down) are dropped."""
    cut = len(values) // 4
    return float(np.sort(values)[cut : len(values) - cut].mean())
