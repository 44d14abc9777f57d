"""Which episodes an evaluation counts, and what is said about them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rltrain.checks import option
from rltrain.seeding import STATISTICS
from rltrain.structures import Step, ended, mean, mean_of_those_who_played, most_exact

MAX_EPISODE_STEPS = 100_000  # where nothing else is known to end an episode
RESAMPLES = 10_000
PICKS_AT_ONCE = 2**20  # 8 MiB: thousands of episodes times thousands of resamples would not fit into memory


@dataclass
class EvaluationConfig:
    """Evaluations during training, on an environment of their own; they choose `best`."""

    interval: int = option(0, "timesteps between evaluations; 0: none", low=0)
    episodes: int = option(10, "episodes of each evaluation", low=1, high=1_000_000)
    video: str = option(
        "false",
        "a video of each agent's first episode of each evaluation, in the run's videos/: true or mp4, or gif, which TensorBoard "
        "shows too",
        choices=["false", "true", "mp4", "gif"],
    )
    max_episode_steps: int | None = option(
        None,
        "steps after which an evaluation cuts an episode, that of `rltrain eval` too; null: the environment's own time "
        f"limit, and where none is known {MAX_EPISODE_STEPS:,}",
        low=1,
        high=2**53,
    )


def episode_quota(episodes: int, copies: int) -> np.ndarray:
    """Return how many episodes of each copy count (N,): floor(episodes / copies), one more of the first ones.

    A copy's first episodes count, so short ones don't crowd out long ones.
    """
    return np.full(copies, episodes // copies) + (np.arange(copies) < episodes % copies)


@dataclass
class EpisodeCounter:
    """Collects the episodes that count, of N copies."""

    quota: np.ndarray  # (N,)
    # those of the episodes that count:
    returns: list[list[float]] = field(init=False)  # per copy, in the order they were played
    lengths: list[list[int]] = field(init=False)
    successes: list[list[float | None]] = field(init=False)
    cut: list[list[bool]] = field(init=False)  # at `evaluation.max_episode_steps`

    def __post_init__(self) -> None:
        copies = len(self.quota)
        self.returns = [[] for _ in range(copies)]
        self.lengths = [[] for _ in range(copies)]
        self.successes = [[] for _ in range(copies)]
        self.cut = [[] for _ in range(copies)]
        self.running_returns, self.running_lengths = np.zeros(copies), np.zeros(copies, np.int64)

    @property
    def full(self) -> np.ndarray:
        """Which copies have played their episodes, (N,) bool."""
        return np.array([len(done) >= quota for done, quota in zip(self.returns, self.quota, strict=True)], bool)

    @property
    def is_full(self) -> bool:
        """Tell whether every copy has played its episodes."""
        return all(len(done) >= quota for done, quota in zip(self.returns, self.quota, strict=True))

    def record(self, step: Step, cut: np.ndarray | None = None) -> np.ndarray:
        """Add one step of all copies, with which episodes were `cut` (N,) bool; return which ended (N,) bool."""
        self.add(most_exact(step.rewards, step.exact_rewards), step.valid)
        done = step.terminated | step.truncated
        self.end(done, step.infos, cut)
        return done

    def add(self, rewards: np.ndarray, valid: np.ndarray | None) -> None:
        """Add one step of all copies to the running episodes."""
        happened = np.ones(len(self.quota), bool) if valid is None else valid
        self.running_returns += np.where(happened, rewards, 0.0)
        self.running_lengths += happened

    def end(self, done: np.ndarray, infos: dict[str, Any], cut: np.ndarray | None = None) -> None:
        """Count the running episodes of the copies `done` (N,) bool, some of them `cut` (N,) bool."""
        success, given = infos.get("is_success"), infos.get("_is_success")
        for i in np.flatnonzero(done):
            if len(self.returns[i]) < self.quota[i]:
                self.returns[i].append(float(self.running_returns[i]))
                self.lengths[i].append(int(self.running_lengths[i]))
                self.cut[i].append(cut is not None and bool(cut[i]))
                self.successes[i].append(float(success[i]) if success is not None and (given is None or given[i]) else None)
        self.running_returns[done], self.running_lengths[done] = 0.0, 0

    def forget_running(self) -> None:
        """Leave out the running episodes."""
        self.running_returns, self.running_lengths = np.zeros(len(self.quota)), np.zeros(len(self.quota), np.int64)

    def results(self) -> dict[str, Any]:
        """Return the counted episodes, copy by copy: {"returns", "lengths", "successes"}, lists; "cut" too, if one was.

        An environment that tells only of its successes failed where it told nothing; one that never tells has none.
        """
        successes = [value for copy in self.successes for value in copy]
        told = any(value is not None for value in successes)
        cut = [value for copy in self.cut for value in copy]
        return {
            "returns": [value for copy in self.returns for value in copy],
            "lengths": [value for copy in self.lengths for value in copy],
            "successes": [value or 0.0 for value in successes] if told else [],
            **({"cut": cut} if any(cut) else {}),
        }


class TeamCounter:
    """The same of a team with named members: an episode's return is the mean over those who took part in it.

    Counts by copies' episodes, which end with the last member's; a member has those of them that it took part in.
    """

    def __init__(self, quota: np.ndarray, members: Sequence[str]) -> None:
        self.team = EpisodeCounter(quota)
        self.members = {name: EpisodeCounter(quota) for name in members}

    @property
    def full(self) -> np.ndarray:
        """Which copies have played their episodes, (N,) bool."""
        return self.team.full

    @property
    def is_full(self) -> bool:
        """Tell whether every copy has played its episodes."""
        return self.team.is_full

    def forget_running(self) -> None:
        """Leave out the running episodes."""
        for counter in (self.team, *self.members.values()):
            counter.forget_running()

    def record(self, step: Step, cut: np.ndarray | None = None) -> np.ndarray:
        """Add one step of all copies, with which episodes were `cut` (N,) bool; return which ended (N,) bool."""
        done = ended(step.terminated, step.truncated)
        rewards = most_exact(step.rewards, step.exact_rewards)
        for name, member in self.members.items():
            member.add(rewards[name], None if step.valid is None else step.valid[name])
        played = [member.running_lengths > 0 for member in self.members.values()]
        returns = [member.running_returns for member in self.members.values()]
        self.team.running_returns = mean_of_those_who_played(returns, played)
        self.team.running_lengths += 1
        counted = done & ~self.team.full
        for member, took_part in zip(self.members.values(), played, strict=True):
            member.end(counted & took_part, {})
            member.running_returns[done], member.running_lengths[done] = 0.0, 0
        self.team.end(done, {}, cut)
        return done

    def results(self) -> dict[str, Any]:
        """Return the counted episodes of the team and of each member: {"returns", "lengths", "successes", "members"}."""
        return {**self.team.results(), "members": {name: member.results() for name, member in self.members.items()}}


def summarize(results: dict[str, Any], *, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Return the figures of one policy's episodes: {"episodes", "mean", "mean_interval", ...}.

    The interval is the 95 % percentile bootstrap over episodes (Efron 1979) with a fixed stream, so the same episodes give the
    same figures. `iqm` is the mean of the middle half; it drops the worst quarter of the episodes, so `mean` comes first.
    Of a team these are figures of the mean over its members; `sum_mean` is that of their sum, `members` holds each one's.
    """
    if "members" in results:
        members = {name: summarize(own, resamples=resamples) for name, own in results["members"].items()}
        total = sum(np.sum(own["returns"]) for own in results["members"].values())
        count = len(results["returns"])
        team = summarize({key: value for key, value in results.items() if key != "members"}, resamples=resamples)
        return {**team, "sum_mean": float(total) / count if count else None, "members": members}
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
        "mean": mean(returns),
        "mean_interval": [float(low), float(high)],
        "std": float(returns.std(ddof=1)) if len(returns) > 1 else 0.0,
        "median": float(np.median(returns)),
        "iqm": interquartile_mean(returns),
        "min": float(returns.min()),
        "max": float(returns.max()),
        "length_mean": float(np.mean(results["lengths"])),
        "success_rate": float(np.mean(results["successes"])) if results["successes"] else None,
        **({"cut_episodes": sum(results["cut"])} if "cut" in results else {}),
    }


def interquartile_mean(values: np.ndarray) -> float:
    """Return the mean of what is left when the lowest and highest quarter (rounded down) are dropped."""
    cut = len(values) // 4
    return float(np.sort(values)[cut : len(values) - cut].mean())
