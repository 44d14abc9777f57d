"""Environments in every kind of space, with masks, states and faults; made by id, `space_envs:Name-v0`, or directly."""

import functools
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from sample_envs import CountingVector

FAR = 1e6
OBSERVATIONS: dict[str, Any] = {
    "box": Box(-FAR, FAR, (3,), np.float32),
    "image": Box(0, 255, (4, 3), np.uint8),
    "double": Box(-FAR, FAR, (2,), np.float64),
    "discrete": Discrete(7, start=-2),
    "multi discrete": MultiDiscrete([3, 4], start=[1, -1]),
    "multi binary": MultiBinary(5),
    "dict": Dict({"goal": Box(-FAR, FAR, (2,), np.float32), "count": Discrete(5, start=1)}),
    "tuple": Tuple((Box(-FAR, FAR, (1,), np.float32), MultiBinary([2, 2]))),
    "nested": Tuple(
        (Dict({"image": Box(0, 255, (2, 2), np.uint8), "goal": Dict({"x": Box(-FAR, FAR, (), np.float64)})}), Discrete(3))
    ),
}  # fmt: skip
ACTIONS: dict[str, Any] = {
    "box": Box(-2, 1, (2,), np.float32),
    "unbounded": Box(-np.inf, np.inf, (2,), np.float32),
    "box of different bounds": Box(np.array([-1, 0.1, 5], np.float32), np.array([1, 10.3, 5.5], np.float32)),
    "half bounded": Box(np.array([0, -np.inf], np.float32), np.array([np.inf, 1], np.float32)),
    "double": Box(-0.1, 0.3, (2, 2), np.float64),
    "half precision": Box(-0.1, 0.3, (2,), np.float16),
    "discrete": Discrete(4, start=3),
    "multi discrete": MultiDiscrete([2, 3, 4], start=[0, -1, 2]),
    "multi discrete 2-d": MultiDiscrete([[2, 3], [4, 1]]),
    "multi discrete int32": MultiDiscrete([2, 3], dtype=np.int32),
    "multi binary": MultiBinary([2, 2]),
}


def stamp(space: Any, k: int) -> Any:
    """Return the member of `space` that stands for the number k in every leaf."""
    if isinstance(space, Dict):
        return {key: stamp(part, k) for key, part in space.spaces.items()}
    if isinstance(space, Tuple):
        return tuple(stamp(part, k) for part in space.spaces)
    if isinstance(space, Discrete):
        return np.int64(space.start + k % space.n)
    if isinstance(space, MultiDiscrete):
        return space.start + k % space.nvec
    if isinstance(space, MultiBinary):
        return ((k >> np.arange(np.prod(space.shape))) & 1).reshape(space.shape).astype(np.int8)
    return np.full(space.shape, k % 256 if space.dtype == np.uint8 else k, space.dtype)


class Stamped(gymnasium.Env):
    """Counts all it does, resets too, from 37 x (seed mod 100) on, and stamps the number on every leaf of its observation.

    Keeps what it was acted on at and with. Episodes last 3 to 5 steps and end by termination and truncation in turn.
    """

    def __init__(self, observations: str = "dict", actions: str = "box", render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space, self.action_space = OBSERVATIONS[observations], ACTIONS[actions]
        self.number = self.steps = self.episodes = self.length = 0
        self.acted_at: list[int] = []
        self.actions: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        """Begin an episode."""
        super().reset(seed=seed)
        self.number = self.number + 1 if seed is None else 37 * (seed % 100)
        self.steps, self.episodes = 0, self.episodes + 1
        self.length = int(self.np_random.integers(3, 6))
        return stamp(self.observation_space, self.number), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        """Count one step; raise if the action isn't a member of the action space to the last bit."""
        assert np.asarray(action).dtype == self.action_space.dtype, f"{np.asarray(action).dtype}"
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.acted_at.append(self.number)
        self.actions.append(np.array(action))
        self.steps, self.number = self.steps + 1, self.number + 1
        over, even = self.steps >= self.length, self.episodes % 2 == 0
        reward = float(np.tanh(np.mean(action))) + self.steps
        return stamp(self.observation_space, self.number), reward, over and even, over and not even, {}


CARDS = 12
GAMES: dict[str, Any] = {
    "discrete": Discrete(5, start=2),
    "multi discrete": MultiDiscrete([3, 4]),
    "multi discrete 2-d": MultiDiscrete([[2, 3], [4, 2]], start=[[0, -1], [1, 0]]),
}


def counts(space: Any) -> list[int]:
    """Return how many choices each part of an action has."""
    return [int(space.n)] if isinstance(space, Discrete) else [int(n) for n in space.nvec.flat]


@functools.cache
def allowed(game: str) -> np.ndarray:
    """Return which choices each card allows (CARDS, M): of the first one in each part, of the last all, of others by chance."""
    parts = counts(GAMES[game])
    generator = np.random.default_rng(5)
    table = generator.random((CARDS, sum(parts))) < 0.4
    for first, n in zip(np.cumsum([0, *parts[:-1]]), parts, strict=True):
        kept = generator.integers(0, n, CARDS)
        table[0, first : first + n] = False
        table[np.arange(CARDS), first + kept] = True
    table[-1] = True
    return table


class Game(gymnasium.Env):
    """Draws a card at each step, which says by `allowed` what may be done; anything else raises.

    Observation: card, number of the step, of the episode; as a Dict if `composite`. Reward: the share of parts in which the
    last choice allowed was taken. Ends by chance, and then allows nothing at all; is cut off after 6 steps.
    `masks`: "given"; "seldom" only where something is forbidden, but at the first reset; "late" not at resets; "rest" nothing
    left in the last part in the copy seeded `victim`; "short" one choice less; "list" as a list. `states`: "given" (card,
    steps, episodes); "absent"; "late" not at resets after the first; "short"; "integers" at resets.
    """

    def __init__(
        self, game: str = "discrete", composite: bool = False, masks: str = "given", states: str = "none",
        victim: int = -1, render_mode: str | None = None,
    ) -> None:  # fmt: skip
        self.render_mode, self.game, self.masks, self.states, self.victim = render_mode, game, masks, states, victim
        self.composite = composite
        card, clock = Discrete(CARDS, start=1), Box(0, FAR, (2,), np.float32)
        self.observation_space = (
            Dict({"cards": Dict({"top": card}), "clock": clock}) if composite else Box(0, FAR, (3,), np.float32)
        )
        self.action_space = GAMES[game]
        if states != "none":
            self.state_space = Box(0, FAR, (3,), np.float32)
        self.card = self.steps = self.episodes = self.seed = 0
        self.over = False

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        """Begin an episode."""
        super().reset(seed=seed)
        self.seed = self.seed if seed is None else seed
        self.steps, self.episodes, self.over = 0, self.episodes + 1, False
        self.card = int(self.np_random.integers(CARDS))
        return self._observe(), self._infos(first=self.episodes == 1, reset=True)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        """Play; raise if the card does not allow it."""
        chosen = np.ravel(action - self.action_space.start)
        mask, reward, first = allowed(self.game)[self.card], 0.0, 0
        for choice, n in zip(chosen, counts(self.action_space), strict=True):
            part = mask[first : first + n]
            if not part[choice]:
                raise ValueError(f"card {self.card + 1} forbids {action}")
            reward += (choice == np.flatnonzero(part)[-1]) / len(chosen)
            first += n
        self.steps += 1
        self.card = int(self.np_random.integers(CARDS))
        self.over = bool(self.np_random.random() < 0.1)
        return self._observe(), reward, self.over, self.steps == 6, self._infos(first=False, reset=False)

    def _observe(self) -> Any:
        card, clock = self.card + 1, [self.steps, self.episodes]
        if not self.composite:
            return np.array([card, *clock], np.float32)
        return {"cards": {"top": np.int64(card)}, "clock": np.array(clock, np.float32)}

    def _infos(self, *, first: bool, reset: bool) -> dict[str, Any]:
        infos: dict[str, Any] = {"action_mask": self._mask(first, reset), "state": self._state(first, reset)}
        return {key: value for key, value in infos.items() if value is not None}

    def _mask(self, first: bool, reset: bool) -> Any:
        mask = allowed(self.game)[self.card] & (not self.over)
        if self.masks == "none" or (self.masks == "seldom" and mask.all() and not first) or (self.masks == "late" and reset):
            return None
        if self.masks == "rest" and self.seed == self.victim and not reset:
            mask = mask.copy()
            mask[-counts(self.action_space)[-1] :] = False
        if self.masks == "list":
            return mask.tolist()
        return (mask[:-1] if self.masks == "short" else mask).astype(np.int8)  # as Gymnasium's own `sample(mask)` wants it

    def _state(self, first: bool, reset: bool) -> Any:
        if self.states in ("none", "absent") or (self.states == "late" and reset and not first):
            return None
        state = np.array([self.card + 1, self.steps, self.episodes], np.float32)
        if self.states == "integers":
            return state.astype(np.int64) if reset else state + np.float32(0.5)
        return state[:-1] if self.states == "short" else state


def game_vector(num_envs: int = 1, **kwargs: Any) -> SyncVectorEnv:
    """Return `Game` as a native vector environment that resets its copies in the step after the last."""
    games = SyncVectorEnv([functools.partial(Game, **kwargs)] * num_envs, autoreset_mode=AutoresetMode.NEXT_STEP)
    games.single_state_space = getattr(games.envs[0], "state_space", None)
    return games


class Context(gymnasium.Env):
    """Observation -1 or 1, which action matches it earns 1; and 5 more or less by a coin that only the state shows.

    Episodes last one step, so the value is what the policy earns + 5 x coin: without the state at best a guess.
    """

    observation_space = Box(-1, 1, (1,), np.float32)
    state_space = Box(-1, 1, (2,), np.float32)
    action_space = Discrete(2)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.shown = self.hidden = 1.0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Toss both coins."""
        super().reset(seed=seed)
        self.shown, self.hidden = (float(coin) for coin in self.np_random.choice([-1.0, 1.0], 2))
        return self._observe()

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Earn 1 by the action that matches what is shown, and 5 by what is hidden."""
        reward = float((action == 1) == (self.shown > 0)) + 5 * self.hidden
        observation, infos = self._observe()
        return observation, reward, True, False, infos

    def _observe(self) -> tuple[np.ndarray, dict]:
        return np.array([self.shown], np.float32), {"state": np.array([self.shown, self.hidden], np.float32)}


class Levels(gymnasium.Env):
    """Reward 1 at every step, cut off after `length` steps; the observation is 0, the state is 100 x episode + steps."""

    observation_space = Box(-1, 1, (1,), np.float32)
    state_space = Box(0, FAR, (1,), np.float32)
    action_space = Discrete(2)

    def __init__(self, length: int = 3, render_mode: str | None = None) -> None:
        self.render_mode, self.length = render_mode, length
        self.steps = self.episodes = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Begin the next episode."""
        self.steps, self.episodes = 0, self.episodes + 1
        return np.zeros(1, np.float32), self._infos()

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Earn 1."""
        self.steps += 1
        return np.zeros(1, np.float32), 1.0, False, self.steps == self.length, self._infos()

    def _infos(self) -> dict[str, Any]:
        return {"state": np.array([100 * self.episodes + self.steps], np.float32)}


class Leaves(gymnasium.Env):
    """A Dict with a leaf in a Dict, and a state; every number is that of the step, from 0, x 10 in the state.

    Does `what` in `phase`, in step number `when` of its life, in the copy seeded `victim`, or in all of them without one: puts
    `value` into the leaf "goal/x" or the "state", or spoils the leaf: "dtype", "shape", "missing", "extra", "kind".
    """

    observation_space = Dict({"goal": Dict({"x": Box(-FAR, FAR, (2,), np.float32)}), "image": Box(0, 255, (2, 2), np.uint8),
                              "level": Discrete(100)})  # fmt: skip
    action_space = Discrete(2)

    def __init__(
        self, what: str = "nothing", value: float = np.nan, phase: str = "step", when: int = 2, victim: int | None = None,
        states: bool = True, length: int = 50, render_mode: str | None = None,
    ) -> None:  # fmt: skip
        self.render_mode, self.what, self.value, self.phase, self.when = render_mode, what, value, phase, when
        self.victim, self.length = victim, length
        if states:
            self.state_space = Box(-FAR, FAR, (2,), np.float32)
        self.life = self.steps = 0
        self.seed: int | None = None

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Begin an episode."""
        self.seed = self.seed if seed is None else seed
        self.steps = 0
        return self._observe("reset")

    def step(self, action: int) -> tuple[dict, float, bool, bool, dict]:
        """Count one step."""
        self.life, self.steps = self.life + 1, self.steps + 1
        observation, infos = self._observe("step")
        return observation, float(self.steps), False, self.steps >= self.length, infos

    def _observe(self, phase: str) -> tuple[dict, dict]:
        x, state = np.full(2, self.steps, np.float32), np.full(2, 10 * self.steps, np.float32)
        observation: dict[str, Any] = {
            "goal": {"x": x}, "image": np.full((2, 2), self.steps, np.uint8), "level": np.int64(self.steps)
        }  # fmt: skip
        if phase == self.phase and (phase == "reset" or self.life == self.when) and self.victim in (None, self.seed):
            self._spoil(observation, x, state)
        return observation, {"state": state} if hasattr(self, "state_space") else {}

    def _spoil(self, observation: dict[str, Any], x: np.ndarray, state: np.ndarray) -> None:
        if self.what in ("goal/x", "state"):
            (x if self.what == "goal/x" else state)[1] = self.value
        elif self.what == "missing":
            del observation["goal"]["x"]
        elif self.what == "extra":
            observation["more"] = x
        elif self.what != "nothing":
            goal = {"dtype": {"x": x.astype(np.float64)}, "shape": {"x": x[:1]}, "kind": x}[self.what]
            observation["goal"] = goal


class CountingLeaves(CountingVector):
    """`CountingVector` with its numbers in two leaves, both views of the one buffer that it reuses."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        number = Box(-1, FAR, (1,), np.float32)
        self.single_observation_space = Dict({"steps": number, "rest": Tuple((number, number))})
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, self.num_envs)

    def _observe(self) -> Any:
        steps, episodes, lengths = np.split(super()._observe(), 3, axis=1)
        return {"steps": steps, "rest": (episodes, lengths)}


for _name in ("Stamped", "Context", "Levels", "Leaves"):
    gymnasium.register(f"{_name}-v0", f"space_envs:{_name}")
gymnasium.register("Game-v0", "space_envs:Game", vector_entry_point="space_envs:game_vector")
gymnasium.register("CountingLeaves-v0", vector_entry_point="space_envs:CountingLeaves")
