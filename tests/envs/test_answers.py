"""One rule for what an environment may answer, at reset and in any step; for anything else one sentence names copy and phase."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.errors import EnvironmentFailure

FITS = np.zeros(2, np.float32)
OUTCOME = (1.0, False, False, {})
OBSERVATIONS: list[tuple[Any, str]] = [
    (FITS.astype(np.float64), r"expected observations float32 \(2,\), got float64 \(2,\)"),
    (FITS.astype(np.int32), r"expected observations float32 \(2,\), got int32 \(2,\)"),
    (FITS[:1], r"expected observations float32 \(2,\), got float32 \(1,\)"),
    ([0.0, 0.0], r"expected observations float32 \(2,\), got list"),
    (0, r"expected observations float32 \(2,\), got int"),
    (None, r"expected observations float32 \(2,\), got None"),
    ({"x": FITS}, r"expected observations float32 \(2,\), got dict"),
]
ANSWERS: list[tuple[Any, str]] = [
    ((FITS, *OUTCOME[:3]), r"expected \(observation, reward, terminated, truncated, infos\), got 4 items"),
    (None, r"expected \(observation, reward, terminated, truncated, infos\), got None"),
    ((FITS, np.array([0.7]), False, False, {}), r"expected the reward as one number, got float64 \(1,\)"),
    ((FITS, None, False, False, {}), "expected the reward as one number, got None"),
    ((FITS, "nan", False, False, {}), "expected the reward as one number, got 'nan'"),
    ((FITS, 1j, False, False, {}), "expected the reward as one number, got complex"),
    ((FITS, 10**400, False, False, {}), "expected the reward as one number, got 1000"),
    ((FITS, 1.0, None, False, {}), "expected terminated as true or false, got None"),
    ((FITS, 1.0, False, np.array([True]), {}), r"expected truncated as true or false, got bool \(1,\)"),
    ((FITS, 1.0, 0, False, {}), "expected terminated as true or false, got 0"),
    ((FITS, 1.0, False, False, None), "expected infos in a dict, got None"),
    ((FITS, 1.0, False, False, {"is_success": None}), r"expected infos\['is_success'\] as true or false, got None"),
    ((FITS, 1.0, False, False, {"is_success": "yes"}), r"expected infos\['is_success'\] as true or false, got 'yes'"),
    (
        (FITS, 1.0, False, False, {"is_success": np.ones(2)}),
        r"expected infos\['is_success'\] as true or false, got float64 \(2,\)",
    ),
]


class Answers(gymnasium.Env):
    """Answers to the third step, or to the second reset, with what it was given; only where its seed is 12."""

    observation_space: Any = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, to_reset: Any = (FITS, {}), to_step: Any = (FITS, *OUTCOME)) -> None:
        self.to_reset, self.to_step = to_reset, to_step
        self.resets = self.steps = self.number = 0

    def reset(self, *, seed=None, options=None):
        self.number, self.resets = self.number if seed is None else seed, self.resets + 1
        return self.to_reset if self.resets == 2 and self.number == 12 else (self.observation(), {})

    def step(self, action):
        self.steps += 1
        return self.to_step if self.steps == 3 and self.number == 12 else (self.observation(), *OUTCOME)

    def observation(self):
        return FITS.copy()


class Parts(Answers):
    observation_space = spaces.Dict({"x": spaces.Box(-1, 1, (2,), np.float32), "n": spaces.Discrete(3)})

    def observation(self):
        return {"x": FITS.copy(), "n": 1}


def play(made: Answers, vectorization: str = "sync") -> None:
    """Step thrice, then reset."""
    env = GymnasiumEnv({"id": "answers", "num_envs": 2, "vectorization": vectorization}, make=lambda: made)
    if vectorization == "sync":
        other = type(made)()
        env._venv.envs[0].env = other  # a copy of its own
    try:
        env.reset(seed=[11, 12])
        for _ in range(3):
            env.step(np.zeros(2, np.int64))
            env.reset_done()
        env.reset()
    finally:
        env.close()


def refuses(made: Answers, phase: str, sentence: str, vectorization: str = "sync") -> None:
    step = 2 if phase == "step" else 0
    with pytest.raises(EnvironmentFailure, match=rf"^env.id=answers: copy 1: {phase} at step {step}: {sentence}"):
        play(made, vectorization)


@pytest.mark.parametrize(("answer", "sentence"), OBSERVATIONS)
def test_observations_at_reset_and_in_a_step(answer, sentence):
    refuses(Answers(to_reset=(answer, {})), "reset", sentence)
    refuses(Answers(to_step=(answer, *OUTCOME)), "step", sentence)


@pytest.mark.parametrize(("answer", "sentence"), ANSWERS)
def test_what_a_step_answers(answer, sentence):
    refuses(Answers(to_step=answer), "step", sentence)


@pytest.mark.parametrize(("answer", "sentence"), [
    (FITS, r"expected \(observation, infos\), got float32 \(2,\)"),
    ((FITS,), r"expected \(observation, infos\), got 1 items"),
    ((FITS, None), "expected infos in a dict, got None"),
])  # fmt: skip
def test_what_a_reset_answers(answer, sentence):
    refuses(Answers(to_reset=answer), "reset", sentence)


@pytest.mark.parametrize(("part", "sentence"), [
    ({"x": FITS}, r"expected observations in a dict with \['n', 'x'\], got one with \['x'\]"),
    ({"x": FITS, "n": 1.5}, r"expected observations 'n' in Discrete\(3\), got 1.5"),
    ({"x": FITS[:1], "n": 1}, r"expected observations 'x' float32 \(2,\), got float32 \(1,\)"),
])  # fmt: skip
def test_parts_of_an_observation_in_a_step(part, sentence):
    refuses(Parts(to_step=(part, *OUTCOME)), "step", sentence)


def test_an_async_copy_is_held_to_the_same():
    refuses(Answers(to_step=(FITS, None, False, False, {})), "step", "expected the reward as one number, got None", "async")


def test_what_fits_is_taken():
    """NumPy's scalars, an array without dimensions, an array of a subclass."""
    for answer in ((FITS.view(np.recarray), np.float16(1), np.bool_(False), False, {"is_success": np.float32(1)}),
                   (FITS, np.array(0.7), np.array(False), False, {"is_success": 1}), (FITS, 2, True, False, {})):  # fmt: skip
        play(Answers(to_step=answer))


@pytest.mark.parametrize(("change", "sentence"), [
    ({0: {}}, ""),
    ({0: {"one": np.zeros(2), "two": FITS}}, r"one: expected observations float32 \(2,\), got float64 \(2,\)"),
    ({0: None}, r"expected \(observations, rewards, .*\), dicts by agent, got \(None, dict"),
    ({0: {"three": FITS}}, "observations of 'three', whom possible_agents does not name"),
    ({1: {"one": None}}, "one: expected the reward as one number, got None"),
    ({2: {"two": 1}}, "two: expected terminated as true or false, got 1"),
    ({4: None}, "expected .* got .*None"),
])  # fmt: skip
def test_a_team_s_answers(change, sentence):
    quitting = pytest.importorskip("quitting")
    from rltrain.envs.pettingzoo import PettingZooEnv

    class Team(quitting.QuitsTeam):
        def step(self, actions):
            answer = list(super().step(actions))
            for part, value in change.items():
                answer[part] = value
            return tuple(answer)

    env = PettingZooEnv({"id": "team", "num_envs": 1, "state": "none"}, make=Team)
    env.reset([1])
    actions = {name: np.zeros(1, np.int64) for name in env.members}
    if not sentence:
        env.step(actions)
        return
    with pytest.raises(EnvironmentFailure, match=rf"^env.id=team: copy 0: step at step 0: {sentence}"):
        env.step(actions)
