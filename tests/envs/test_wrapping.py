"""`env.wrappers`: what goes around each copy, kept by snapshots to the bit, used again by resume and evaluation."""

import copy
import pickle

import numpy as np
import pytest
import yaml
from command_line import assert_one_error, call, merged, rows, train
from gymnasium.spaces import Box

import rltrain
from rltrain import modules
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.envs.pettingzoo import PettingZooEnv
from rltrain.errors import ConfigError, EnvironmentFailure

pytest.importorskip("cv2")
pytest.importorskip("pettingzoo")

STACKED = [
    "GrayscaleObservation",
    {"name": "ResizeObservation", "shape": [12, 10]},
    {"name": "FrameStackObservation", "stack_size": 4},
]
TYPED = (
    "env.wrappers=[GrayscaleObservation,{name: ResizeObservation, shape: [12,10]},{name: FrameStackObservation, stack_size: 4}]"
)
IMAGES = (
    "env=image_envs:Pictures",
    "env.num_envs=2",
    "agents.ppo.rollout_length=16",
    "total_env_steps=80",
    "run.dir=run",
    "agents.ppo.network.cnn=none",
)


def make(wrappers, seed=1, **more) -> GymnasiumEnv:
    """Two copies of small pictures within `wrappers`."""
    return GymnasiumEnv({"id": "image_envs:Pictures", "num_envs": 2, "wrappers": wrappers, **more}, seed=seed)


def play(env, steps, seed) -> list:
    """Return everything that the environment answered to random actions."""
    generator, answers = np.random.default_rng(seed), [env.reset_done()]
    for _ in range(steps):
        step = env.step(generator.integers(0, env.action_space.n, 2))
        answers += [step.next_observations, step.rewards, step.terminated, step.truncated, env.reset_done()]
    return answers


# -- what goes around a copy ---------------------------------------------------------------------------------------------------


def by_hand(seed: int):
    """Return one copy as Gymnasium's own calls make it."""
    from gymnasium import wrappers
    from image_envs import Pictures

    env = wrappers.ResizeObservation(wrappers.GrayscaleObservation(Pictures()), (12, 10))
    env = wrappers.FrameStackObservation(env, 4)
    return env, env.reset(seed=seed)[0]


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_wrappers_go_around_each_copy_in_order_and_pictures_stay_uint8(vectorization):
    env = make(STACKED, vectorization=vectorization)
    assert env.observation_space == Box(0, 255, (4, 12, 10), np.uint8)
    first = env.reset()
    other, expected = by_hand(env.seeds[0])
    assert first.dtype == np.uint8 and np.array_equal(first[0], expected)
    for action in (0, 2, 2, 1, 0, 1):
        step = env.step(np.array([action, 1]))
        observation, reward, *_ = other.step(action)
        assert step.next_observations.dtype == np.uint8 and np.array_equal(step.next_observations[0], observation)
        assert step.rewards[0] == reward
    env.close()


def test_frames_that_are_stacked_when_they_are_read_become_arrays():
    env = make([{"name": "image_envs:Lazy", "frames": 3}])
    env.reset()
    step = env.step(np.array([1, 1]))
    assert step.next_observations.dtype == np.uint8 and step.next_observations.shape == (2, 3, 24, 24, 3)
    assert not np.array_equal(step.next_observations[0, 0], step.next_observations[0, 2])


def test_a_function_may_wrap_and_lists_become_what_a_wrapper_takes():
    plain, env = make([]), make(["image_envs:halved", {"name": "ReshapeObservation", "shape": [24 * 24, 3]}])
    before, now = (one.reset() for one in (plain, env))
    assert np.array_equal(now.reshape(before.shape), before)
    one, two = (each.step(np.array([2, 0])) for each in (plain, env))
    assert np.array_equal(two.rewards, one.rewards / 2)


def test_the_shortest_time_limit_counts():
    limits = [{"name": "TimeLimit", "max_episode_steps": steps} for steps in (7, 30)]
    assert make(limits).episode_limit == 7


def test_a_script_names_wrappers_too():
    env = rltrain.make_env("image_envs:Pictures", 2, seed=1, wrappers=STACKED)
    assert env.observation_space.shape == (4, 12, 10)
    slices = [pickle.loads(pickle.dumps(part))() for part in env.partition([1, 1])]
    assert [part.observation_space.shape for part in slices] == [(4, 12, 10)] * 2
    with pytest.raises(ConfigError, match=r"env\.wrappers\[0\]=Frames: no such wrapper; options: Add"):
        rltrain.make_env("CartPole-v1", wrappers=["Frames"])


# -- exact resume ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrappers",
    [
        STACKED,
        [{"name": "TimeLimit", "max_episode_steps": 7}, {"name": "TimeAwareObservation", "flatten": False}],
        ["NormalizeObservation", "NormalizeReward"],
        ["RecordEpisodeStatistics", {"name": "DelayObservation", "delay": 2}],
        [{"name": "StickyAction", "repeat_action_probability": 0.5}, {"name": "MaxAndSkipObservation", "skip": 3}],
        [{"name": "image_envs:Lazy", "frames": 3}],
    ],
    ids=lambda wrappers: str(wrappers[0]),
)
def test_wrappers_go_on_exactly(wrappers):
    env, other = make(wrappers), make(wrappers, seed=9)
    for one, steps in ((env, 30), (other, 8)):
        one.reset()
        play(one, steps, seed=1)
    kept = copy.deepcopy(env.snapshot())
    answers = play(env, 60, seed=2)
    other.restore(kept)
    np.testing.assert_equal(play(other, 60, seed=2), answers)
    assert sum(flags.any() for flags in [*answers[3::5], *answers[4::5]]) >= 2  # episodes ended meanwhile


def test_async_copies_go_on_exactly():
    env, other = (make(STACKED, seed=seed, vectorization="async") for seed in (1, 9))
    env.reset()
    play(env, 10, seed=1)
    kept = env.snapshot()
    answers = play(env, 20, seed=2)
    other.restore(kept)
    np.testing.assert_equal(play(other, 20, seed=2), answers)
    for one in (env, other):
        one.close()


def test_a_wrapper_that_is_no_data_has_no_snapshot():
    env = make(["image_envs:Opaque"])
    env.reset()
    assert env.snapshot() is None


@pytest.mark.parametrize("wrapper", ["Louder", "Counts"])
def test_a_wrapped_team_is_played_again_unless_something_lasts_over_episodes(wrapper):
    cfg = {"id": "team_envs:Relay", "num_envs": 2, "wrappers": [f"team_envs:{wrapper}"], "state": "joined"}
    env = PettingZooEnv(cfg, seed=1)
    env.reset()
    actions = {name: np.zeros((2, *(space.shape or ())), space.dtype) for name, space in env.action_space.items()}
    step = env.step(actions)
    assert step.rewards["steady"].tolist() == ([2.0, 2.0] if wrapper == "Louder" else [1.0, 1.0])
    first = env.snapshot()
    for _ in range(6):
        env.reset_done()
        env.step(actions)
    assert first is not None and (env.snapshot() is None) == (wrapper == "Counts")


# -- the command line ------------------------------------------------------------------------------------------------------------


def test_a_run_uses_its_wrappers_again(here):
    result = train(*IMAGES, TYPED, "evaluation.interval=20", "evaluation.episodes=2")
    said = "env.wrappers: GrayscaleObservation, ResizeObservation(shape=[12, 10]), FrameStackObservation(stack_size=4)"
    assert said in result.text and said in (here / "run/train.log").read_text()
    evaluated = call("eval", "run", "episodes=2")
    assert evaluated.status == 0, evaluated.err
    refused = call("train", "resume=run", "total_env_steps=160", "env.wrappers=[]")
    assert_one_error(refused, 2, "env.wrappers=[]: the run was started with", "which a resume can't change")
    short = TYPED.replace("[GrayscaleObservation", "[{name: GrayscaleObservation}")
    assert call("train", "resume=run", "total_env_steps=160", short).status == 0
    train(*merged(IMAGES, ("total_env_steps=160", "run.dir=whole")), TYPED, "evaluation.interval=20", "evaluation.episodes=2")
    assert rows(here / "run")[-1] == rows(here / "whole")[-1]


def test_a_saved_wrapper_is_not_looked_for_in_the_current_directory(here):
    (here / "own_wraps.py").write_text("def same(env):\n    return env\n")
    try:
        tiny = ("env.num_envs=2", "agents.ppo.rollout_length=8", "total_env_steps=32", "run.dir=run")
        train("env=CartPole-v1", "env.wrappers=[own_wraps:same]", *tiny)
        refused = call("eval", "run", "episodes=1")
        assert_one_error(
            refused, 2, "env.wrappers[0]=own_wraps:same: a configuration names own_wraps", "rltrain eval run", "trust=true"
        )
        assert call("eval", "run", "episodes=1", "trust=true").status == 0
    finally:
        modules.begin([], program=False)


def test_minigrid_by_its_own_wrappers(here):
    pytest.importorskip("minigrid")
    image = "env.wrappers=[minigrid.wrappers:ImgObsWrapper]"
    sizes = ("env.num_envs=2", "agents.ppo.rollout_length=8", "run.dir=run")
    result = train("env=minigrid:MiniGrid-Empty-5x5-v0", image, *sizes, "total_env_steps=32")
    assert "an image (7, 7, 3)" in result.text
    resumed = call("train", "resume=run", "total_env_steps=64")
    assert resumed.status == 0 and "new episodes start here (exact_resume is false)" in resumed.text
    assert call("eval", "run", "episodes=1").status == 0


@pytest.mark.parametrize(
    ("wrappers", "sentence"),
    [
        ("[GrayscaleObservatio]", "env.wrappers[0]=GrayscaleObservatio: no such wrapper; did you mean 'GrayscaleObservation'?"),
        (
            "[ClipReward,{name: ResizeObservation, shap: [4,4]}]",
            "env.wrappers[1].shap=[4, 4]: ResizeObservation has no such argument",
        ),
        ("[ResizeObservation]", "env.wrappers[0]=ResizeObservation: needs shape; write {name: ResizeObservation, shape: ...}"),
        ("[GrayscaleObservation]", "env.wrappers[0]=GrayscaleObservation: can't be made around observations Box float32 (4,)"),
        ("[{name: image_envs:Raises, where: make}]", "env.wrappers[0]=image_envs:Raises(where=make): can't be made"),
        ("[{stack_size: 4}]", "env.wrappers[0]={'stack_size': 4}: names no wrapper; write {name: ResizeObservation"),
        ("[5]", "env.wrappers[0]=5: must be text, not empty or a mapping"),
        ("ClipReward", "env.wrappers=ClipReward: must be a list"),
        ("[nowhere:Wrap]", "env.wrappers[0]=nowhere:Wrap: nowhere can't be imported"),
        ("[image_envs:Lazi]", "env.wrappers[0]=image_envs:Lazi: image_envs has no Lazi; did you mean 'Lazy'?"),
        (
            "[image_envs:nothing]",
            "env.wrappers[0]=image_envs:nothing: made nothing (None), which is no environment of Gymnasium's",
        ),
        ("[image_envs:LazyFrames]", "env.wrappers[0]=image_envs:LazyFrames: made a LazyFrames, which is no environment"),
        ("[image_envs:Spaceless]", "env.wrappers[0]=image_envs:Spaceless: left observation_space=None, which is no space"),
        ("[Autoreset]", "env.wrappers[0]=Autoreset: resets a copy inside step, which hides true successors"),
        ("[BaseParallelWrapper]", "env.wrappers[0]=BaseParallelWrapper: is a wrapper of PettingZoo's, for env=pettingzoo"),
        ("[team_envs:Louder]", "env.wrappers[0]=team_envs:Louder: is a wrapper of PettingZoo's, for env=pettingzoo"),
    ],
)
def test_what_is_wrong_with_a_wrapper_is_said_when_it_is_made(wrappers, sentence):
    assert_said("CartPole-v1", "gymnasium", wrappers, sentence)


def assert_said(env, kind, wrappers, sentence):
    with pytest.raises(ConfigError) as raised:
        rltrain.make_env(env, 1, kind=kind, wrappers=yaml.safe_load(wrappers))
    assert str(raised.value).startswith(sentence)


@pytest.mark.parametrize(
    ("wrappers", "sentence"),
    [
        ("[GrayscaleObservation]", "env.wrappers[0]=GrayscaleObservation: is a wrapper of Gymnasium's, for env=gymnasium"),
        ("[image_envs:Lazy]", "env.wrappers[0]=image_envs:Lazy: is a wrapper of Gymnasium's, for env=gymnasium"),
        ("[OrderEnforcingWrapper]", "env.wrappers[0]=OrderEnforcingWrapper: is for environments whose agents take turns"),
        ("[BaseParallelWrapp]", "env.wrappers[0]=BaseParallelWrapp: no such wrapper; did you mean 'BaseParallelWrapper'?"),
        (
            "[image_envs:nothing]",
            "env.wrappers[0]=image_envs:nothing: made nothing (None), which is no environment of PettingZoo's",
        ),
    ],
)
def test_what_is_wrong_with_a_teams_wrapper_is_said_when_it_is_made(wrappers, sentence):
    assert_said("team_envs:Relay", "pettingzoo", wrappers, sentence)


def test_a_wrong_wrapper_ends_a_command_before_anything_is_created(here):
    typed = "env.wrappers=[RecordEpisodeStatistics,{name: ReshapeObservation, shape: [2,3]}]"
    result = call("train", "env=CartPole-v1", typed)
    assert_one_error(
        result, 2, "env.wrappers[1]=ReshapeObservation(shape=[2, 3]): can't be made around observations Box float32 (4,)"
    )
    team = call("train", "env=pettingzoo", "env.id=team_envs:Relay", "agents=ippo", "env.wrappers=[image_envs:nothing]")
    assert_one_error(team, 2, "env.wrappers[0]=image_envs:nothing: made nothing")
    assert not any(here.iterdir())


def test_vector_environments_take_no_wrappers(here):
    command = ("train", "env=CartPole-v1", "env.wrappers=[ClipReward]", "env.vectorization=native")
    assert_one_error(call(*command), 2, "env.vectorization=native: has no single copies for env.wrappers to go around; use sync")
    assert_one_error(
        call("train", "env=gymnax", "env.wrappers=[ClipReward]"),
        2,
        "is a setting of env=atari and env=gymnasium and env=pettingzoo",
    )


@pytest.mark.parametrize("phase", ["reset", "step"])
def test_an_error_names_the_wrapper_that_raised_it(phase):
    env = make(
        ["RecordEpisodeStatistics", {"name": "image_envs:Raises", "where": phase}, {"name": "TimeLimit", "max_episode_steps": 9}]
    )
    with pytest.raises(
        EnvironmentFailure, match=rf"copy 0: {phase} at step 0: env.wrappers\[1\]=image_envs:Raises: RuntimeError"
    ):
        env.reset()
        env.step(np.array([1, 1]))
    team = PettingZooEnv(
        {"id": "team_envs:Relay", "wrappers": [{"name": "team_envs:Louder", "fails": True}], "state": "joined"}, seed=1
    )
    with pytest.raises(EnvironmentFailure, match=r"reset at step 0: env.wrappers\[0\]=team_envs:Louder: RuntimeError: no voice"):
        team.reset()
