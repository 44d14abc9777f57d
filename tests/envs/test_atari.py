"""`env=atari`: pictures as Gymnasium's own wrappers prepare them, whole games, snapshots to the bit."""

import sys

import numpy as np
import pytest
from command_line import assert_one_error, call, json, merged, rows, train

from rltrain import checkpoints, installing
from rltrain.envs.atari import AtariEnv
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.errors import ConfigError
from rltrain.seeding import EVALUATION_ENVIRONMENTS

ale_py = pytest.importorskip("ale_py")
pytest.importorskip("cv2")

TINY = (
    "env=atari",
    "env.num_envs=1",
    "agents.ppo.rollout_length=16",
    "run.dir=run",
    "env.screen_size=20",
    "env.frame_stack=2",
    "agents.ppo.network.cnn=none",
)


def make(game: str, seed: int = 1, role: int = 0, **settings) -> AtariEnv:
    """One copy of a game: each takes a tenth of a second to load."""
    return AtariEnv({"id": f"ALE/{game}-v5", "num_envs": 1, **settings}, seed=seed, role=role)


def play(env, steps: int, seed: int) -> list:
    """Return everything that the environment answered to random actions."""
    generator, answers = np.random.default_rng(seed), []
    for _ in range(steps):
        step = env.step(generator.integers(0, env.action_space.n, env.num_envs))
        answers += [step.next_observations, step.rewards, step.terminated, step.truncated, step.infos["lives"], env.reset_done()]
    return answers


def test_pictures_are_those_of_gymnasiums_wrappers():
    import gymnasium

    env = make("Breakout")
    first = env.reset()
    assert (first.dtype, first.shape) == (np.uint8, (1, 4, 84, 84))
    other = gymnasium.make("ALE/Breakout-v5", frameskip=1, repeat_action_probability=0.0)  # in colours
    other = gymnasium.wrappers.StickyAction(other, 0.25)
    other = gymnasium.wrappers.FrameStackObservation(gymnasium.wrappers.AtariPreprocessing(other), 4)
    assert np.array_equal(first[0], other.reset(seed=env.seeds[0])[0])
    for action in np.random.default_rng(0).integers(0, 4, 40):
        step = env.step(np.array([action]))
        observation, reward, *_ = other.step(action)
        assert step.next_observations.dtype == np.uint8 and np.array_equal(step.next_observations[0], observation)
        assert step.rewards[0] == reward


@pytest.mark.parametrize(
    ("game", "settings"),
    [
        ("Breakout", {"terminal_on_life_loss": True}),
        ("Pong", {"max_episode_frames": 90}),
        ("MsPacman", {"vectorization": "async", "max_episode_frames": 90}),
    ],
)
def test_games_go_on_exactly(game, settings, tmp_path):
    """Through a checkpoint's file, into copies that have already lived, over ends of episodes, sticky actions among them."""
    env, other = (make(game, seed, screen_size=20, **settings) for seed in (1, 9))
    for one, steps in ((env, 30), (other, 8)):
        one.reset()
        play(one, steps, seed=1)
    checkpoints.write(tmp_path / "1", {"env": env.snapshot()}, {"agents": {}}, {})
    answers = play(env, 80, seed=2)
    other.restore(checkpoints.read_part(tmp_path / "1", "env", checkpoints.verify(tmp_path / "1")))
    np.testing.assert_equal(play(other, 80, seed=2), answers)
    assert sum(flags.sum() for flags in [*answers[2::6], *answers[3::6]]) >= 1
    for one in (env, other):
        one.close()


def test_a_game_without_its_preparation_goes_on_exactly_unless_ale_repeats_actions():
    """Which action it would repeat, ALE doesn't tell."""
    quiet = {"id": "ALE/Pong-v5", "num_envs": 1, "kwargs": {"repeat_action_probability": 0.0, "obs_type": "ram"}}
    env = GymnasiumEnv(quiet, seed=1)
    env.reset()
    play(env, 10, seed=1)
    snapshot = env.snapshot()
    answers = play(env, 20, seed=2)
    env.restore(snapshot)
    np.testing.assert_equal(play(env, 20, seed=2), answers)
    assert GymnasiumEnv({**quiet, "kwargs": {}}).snapshot() is None


def test_actions_are_sticky():
    """A copy that always wants another action gets the one before in a quarter of the frames."""
    env = make("Pong", frame_skip=1, noop_max=0, screen_size=8)
    env.reset()
    seen = []
    emulator = env._venv.envs[0].unwrapped
    emulator.step = lambda action, step=emulator.step: seen.append(int(action)) or step(action)
    for t in range(600):
        env.step(np.array([t % 6]))
    assert 0.20 < np.mean(np.array(seen) != np.arange(600) % 6) < 0.30


def test_training_may_end_with_a_life_and_evaluations_play_whole_games():
    env = make("Breakout", terminal_on_life_loss=True, screen_size=20)
    env.reset()
    lives, returns, games = [5], 0.0, 0
    generator = np.random.default_rng(1)
    while games < 1:
        step = env.step(generator.integers(0, 4, 1))
        returns += step.rewards[0]
        if step.terminated[0]:
            lives.append(int(step.infos["lives"][0]))
            fresh = env.reset_done()
            is_over = lives[-1] == 0
            assert np.array_equal(fresh[0], np.broadcast_to(step.next_observations[0, -1], (4, 20, 20))) != is_over
            if is_over:  # all five lives were one game, whose return is told
                assert step.infos["episode"]["game_return"][0] == returns
                games += 1
        else:
            env.reset_done()
    assert lives == [5, 4, 3, 2, 1, 0]
    whole = make("Breakout", role=EVALUATION_ENVIRONMENTS, terminal_on_life_loss=True, screen_size=20)
    whole.reset()
    answers = play(whole, 180, seed=1)
    ends = list(zip(answers[2::6], answers[4::6], strict=True))
    assert {int(lives[0]) for _, lives in ends} == {0, 1, 2, 3, 4, 5}
    assert all(lives[i] == 0 for flags, lives in ends for i in np.flatnonzero(flags))


def test_the_cap_on_frames_truncates_and_is_the_limit_of_an_evaluation():
    assert make("Pong").episode_limit == 27_000
    env = make("Pong", max_episode_frames=90, noop_max=0)
    env.reset()
    cut = [play(env, 1, seed=1)[3][0] for _ in range(23)]
    assert env.episode_limit == 23 and cut == [False] * 22 + [True]


def test_a_run_says_its_protocol_and_goes_on_to_the_bit(here):
    changes = (
        "env.terminal_on_life_loss=true",
        "evaluation.interval=16",
        "evaluation.episodes=1",
        "evaluation.max_episode_steps=9",
    )
    train(*TINY, *changes, "total_env_steps=32")
    log = (here / "run/train.log").read_text()
    assert "ALE/Pong-v5: sticky actions 0.25, minimal action set (6), 4 frames per action, at most 108,000 frames a game" in log
    assert "episodes are whole games; training's end with a life; returns are not clipped" in log
    assert call("train", "resume=run", "total_env_steps=64").status == 0
    train(*merged(TINY, ("run.dir=whole",)), *changes, "total_env_steps=64")
    assert rows(here / "run")[-1] == rows(here / "whole")[-1]
    assert call("eval", "run", "episodes=1").status == 0


def test_games_are_listed():
    families = {family["name"]: family for family in json.loads(call("list", "envs", "json=true").out)}
    assert {"ALE/Pong-v5", "ALE/SpaceInvaders-v5"} <= set(families["atari"]["ids"]) and "ale-py" not in families


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("env.kwargs.frameskip=2", "env.kwargs.frameskip=2: is set by env.frame_skip; leave it out"),
        ("env.vectorization=native", "env.vectorization=native: pictures are prepared in single copies; use sync or async"),
        ("env.id=CartPole-v1", "env.id=CartPole-v1: is no game of ALE's; rltrain list envs names them, or env=CartPole-v1"),
        ("env.id=ALE/Pog-v5", "env.id=ALE/Pog-v5: no such environment; did you mean 'ALE/Pong-v5'?"),
        (
            "env.wrappers=[GrayscaleObservation]",
            "env.wrappers[0]=GrayscaleObservation: can't be made around observations Box uint8",
        ),
    ],
)
def test_what_is_wrong_is_said_before_training(override, sentence, here):
    assert_one_error(call("train", "env=atari", override), 2, sentence)
    assert not any(here.iterdir())


def test_a_missing_package_is_told_with_the_extra_that_brings_it(monkeypatch):
    command = installing.command_for("atari")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigError, match="env=atari: cv2 missing: ") as raised:
        make("Pong")
    assert command in str(raised.value)
    monkeypatch.setitem(sys.modules, "ale_py", None)
    result = call("train", "env=ALE/Pong-v5", "dry_run=true")
    assert_one_error(result, 2, "env.id=ALE/Pong-v5: its package ale_py is not installed", command)
    families = {family["name"]: family for family in json.loads(call("list", "envs", "json=true").out)}
    assert families["atari"]["install"] == command
