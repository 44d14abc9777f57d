"""Environments that keep state of many kinds; each step's observation and reward depend on it."""

import collections
import dataclasses
import enum
import functools
import random
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import (
    DelayObservation,
    FlattenObservation,
    FrameStackObservation,
    NormalizeObservation,
    NormalizeReward,
    RecordEpisodeStatistics,
    RescaleAction,
    StickyAction,
    TimeAwareObservation,
    TransformObservation,
)  # fmt: skip


class Phase(enum.Enum):
    """Where an episode stands."""

    BEGIN = 0
    LATER = 1


class Point(NamedTuple):
    """A place."""

    x: int
    y: float


@dataclasses.dataclass
class Score:
    """What was earned."""

    total: float = 0.0
    best: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Terms:
    """What doesn't change by itself."""

    scale: float
    name: bytes = b"terms"


class Walk(gymnasium.Env):
    """A random walk in three numbers; ends by chance."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = spaces.Discrete(3)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.position = np.zeros(3)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Begin somewhere."""
        super().reset(seed=seed)
        self.position = self.np_random.normal(size=3)
        return self.position.copy(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Move."""
        self.position = self.position + self.np_random.normal(size=3) * (1 + action)
        return self.position.copy(), float(self.position.sum()), bool(self.np_random.random() < 0.1), False, {}


class Many(Walk):
    """Keeps values of every kind that a snapshot can hold, many in two places, and uses them all."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.metadata = {"render_modes": [], "phase": Phase.BEGIN}
        self.memory = np.zeros((4, 3))
        self.row, self.column = self.memory[1], self.memory[:, 2]  # two views of one array
        self.turned = np.asfortranarray(np.arange(6.0).reshape(2, 3))
        self.names = np.array([b"ab", b"c"], "S2")
        self.words = np.array(["", "new"])
        self.times = np.array([1, 2], "M8[s]")
        self.recent: Any = collections.deque(maxlen=3)
        self.also_recent = self.recent
        self.counts: Any = collections.defaultdict(int)
        self.order = collections.OrderedDict(a=1, b=2)
        self.seen = collections.Counter()
        self.point, self.score, self.terms = Point(0, 0.5), Score(), Terms(2.0)
        self.kind, self.path, self.span = np.dtype("f4"), Path("a/b"), range(3)
        self.label, self.letter = np.str_("x"), np.bytes_(b"y")
        self.other = random.Random(3)
        self.old = np.random.RandomState(4)
        self.new = np.random.default_rng(5)
        self.same_new = self.new
        self.draw = self.new.normal
        self.rule = self.first_rule
        self.part = functools.partial(max, 1)
        self.walls = frozenset({(1, 2), (3, 4)})
        self.ring: list[Any] = []
        self.ring.append(self.ring)

    def first_rule(self, x: float) -> float:
        """Add one."""
        return x + 1

    def second_rule(self, x: float) -> float:
        """Take half."""
        return x / 2

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Use and change all of it."""
        observation, reward, terminated, truncated, infos = super().step(action)
        self.column += observation.sum()
        self.row *= 0.5
        self.turned += 0.1
        self.recent.append(Point(int(action), reward))
        self.counts[int(action)] += 1
        self.order.move_to_end("a" if action else "b")
        self.seen[Phase.LATER] += 1
        self.score.best[str(action)] = self.score.total = self.score.total * 0.9 + reward
        self.terms = Terms(self.terms.scale * 1.01)
        self.names[0] = b"z" if action else b"q"
        self.words[1], self.label = ("old", np.str_("y")) if action else ("new", np.str_("x"))
        self.times += np.timedelta64(1, "s")
        self.rule = self.second_rule if action == 1 else self.first_rule
        self.metadata["phase"] = Phase.LATER
        assert self.ring[0] is self.ring and self.same_new is self.new and (1, 2) in self.walls
        drawn = self.other.gauss(0, 1) + self.old.randn() + self.draw() + self.same_new.random() + self.new.spawn(1)[0].random()
        last = sum(point.y for point in self.also_recent) + self.turned.sum() + self.memory.sum() + self.terms.scale
        last += len(set(self.names.tolist())) + len(str(self.label)) + int(self.times[0].astype(int)) + self.counts[0]
        last += list(self.order).index("a") + self.part(2) + (self.metadata["phase"] is Phase.LATER) + self.seen[Phase.LATER]
        observation[0] += self.rule(drawn + last)
        return observation, reward + drawn, terminated, truncated, infos


class Hides(Walk):
    """Keeps a counter where a snapshot doesn't reach."""

    total = 0

    def __init__(self, where: str, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.where = where
        count = 0

        def counted() -> int:
            nonlocal count
            count += 1
            return count

        held = {"closure": counted, "set": {"a", "b"}, "iterator": iter(range(10**6)), "function": abs, "object": object()}
        self.log: list[int] = []
        held["shared"] = lambda log=self.log: log.append(1)
        held |= {"bound": [0, 1].append, "view": np.frombuffer(bytearray(16), np.int64), "global": np.random.mtrand._rand}
        self.held: Any = held.get(where)
        self.own_space = spaces.Discrete(5)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Count."""
        if self.where == "closure":
            self.held()
        elif self.where == "set":
            self.held.add(str(self.np_random.random()))
        elif self.where == "function":
            self.held = len
        elif self.where == "class":
            type(self).total += 1
        return super().step(action)


def wrapped(kind: str, render_mode: str | None = None) -> gymnasium.Env:
    """Return a walk in wrappers of Gymnasium's that keep state."""
    env: Any = gymnasium.wrappers.TimeLimit(Walk(render_mode), 12)
    if kind == "statistics":
        return NormalizeReward(NormalizeObservation(RecordEpisodeStatistics(env, buffer_length=5)), gamma=0.9)
    if kind == "stack":
        return FlattenObservation(FrameStackObservation(TransformObservation(env, lambda o: o * 2, env.observation_space), 3))
    if kind == "delay":
        return StickyAction(DelayObservation(env, 2), 0.5, (1, 3))
    if kind == "actions":
        return RescaleAction(gymnasium.make("Pendulum-v1", max_episode_steps=12), np.float32(-1), np.float32(1))
    return TimeAwareObservation(env, normalize_time=True, flatten=True)


for name in ("Walk", "Many", "Hides"):
    gymnasium.register(f"State{name}-v0", f"state_envs:{name}")
gymnasium.register("StateWrapped-v0", "state_envs:wrapped")
