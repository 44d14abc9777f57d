"""Every environment that Gymnasium registers goes on to the bit in fresh copies, or stands on the list here, with the reason."""

import importlib.util
import json
import warnings

import gymnasium
import numpy as np
import pytest
from command_line import summary, train

from rltrain import checkpoints
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.errors import RltrainError

# What is not exact. "fresh": a resume begins new episodes; "refused": there is no such environment to train.
BOX2D = ("LunarLander", "BipedalWalker", "CarRacing")  # a world of C++ objects, which can't be read
JAX = ("phys2d/", "tabular/")  # answer with JAX arrays: env=functional takes JAX environments, and is exact
MOVED = ("-v2", "-v3")  # MuJoCo's old ones, which Gymnasium doesn't bring any more: making them fails
QUICK = (
    "CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Blackjack-v1", "FrozenLake-v1",
    "CliffWalking-v1", "Taxi-v3", "Taxi-v4", "HalfCheetah-v5", "Humanoid-v5", "LunarLander-v3",
)  # fmt: skip
STEPS = 40


def expected(env_id: str, vectorization: str) -> str:
    """Return "exact", "fresh" or "refused"."""
    if env_id.startswith(BOX2D):
        return "fresh" if importlib.util.find_spec("Box2D") else "refused"
    if env_id.startswith(JAX):
        return "fresh" if importlib.util.find_spec("jax") and vectorization == "native" and "CartPole" in env_id else "refused"
    spec = gymnasium.registry[env_id]
    entry = str(spec.entry_point)
    if callable(spec.entry_point) or "GymV2" in env_id or ("mujoco" in entry and env_id.endswith(MOVED)):
        return "refused"  # which only say where to find the environment
    return "refused" if env_id == "Pusher-v4" else "exact"  # which wants MuJoCo 2


def trial(env_id: str, vectorization: str, num_envs: int, before: int) -> str:
    """Play `before` steps, take a snapshot as a checkpoint keeps it; fresh copies of another seed must go on as these do."""
    kwargs = {} if vectorization == "native" else {"max_episode_steps": 15}
    cfg = {"id": env_id, "num_envs": num_envs, "vectorization": vectorization, "kwargs": kwargs}
    env = other = None
    try:
        env = GymnasiumEnv(cfg, seed=1)
        env.reset()
        play(env, before, seed=1)
        snapshot = env.snapshot()
        if snapshot is None:
            return "fresh"
        arrays: dict[str, np.ndarray] = {}
        text = json.dumps(checkpoints.encode(snapshot, arrays))
        held = {name: array.tobytes() for name, array in arrays.items()}
        answers = play(env, STEPS, seed=2)
        assert held == {name: array.tobytes() for name, array in arrays.items()}  # what was handed out did not change
        other = GymnasiumEnv(cfg, seed=99)
        other.reset()
        play(other, 3, seed=3)
        other.restore(checkpoints.decode(json.loads(text), arrays))
        assert answers == play(other, STEPS, seed=2)
        return "exact"
    except RltrainError:
        return "refused"
    finally:
        for made in filter(None, (env, other)):
            made.close()


def play(env: GymnasiumEnv, steps: int, seed: int) -> list[bytes]:
    """Return all that the environment answered to random actions, to the bit."""
    generator, space, answers = np.random.default_rng(seed), env.action_space, []
    for _ in range(steps):
        if isinstance(space, gymnasium.spaces.Discrete):
            actions = generator.integers(0, space.n, env.num_envs)
        else:
            actions = generator.uniform(space.low, space.high, (env.num_envs, *space.shape)).astype(space.dtype)
        step = env.step(actions)
        arrays = [step.rewards, step.terminated, step.truncated]
        for observations in (step.next_observations, env.reset_done()):
            arrays += list(observations.values()) if isinstance(observations, dict) else [observations]
        answers += [np.asarray(array).tobytes() for array in arrays]
    return answers


def ids() -> list[str]:
    """Return the registered ids; tests of other files may have registered theirs."""
    entries = {i: spec.entry_point for i, spec in gymnasium.registry.items()}
    return [i for i, entry in entries.items() if "gymnasium" in (entry.__module__ if callable(entry) else str(entry))]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("env_id", [i for i in QUICK if i in gymnasium.registry])
def test_goes_on_exactly_or_is_on_the_list(env_id, here):  # MuJoCo writes a log where it stands
    assert trial(env_id, "sync", 2, 22) == expected(env_id, "sync")


@pytest.mark.parametrize(("env_id", "copies"), [
    ("HalfCheetah-v5", 2), ("Taxi", 1), pytest.param("FrozenLake-v1", 3, marks=pytest.mark.slow),
    pytest.param("Blackjack-v1", 4, marks=pytest.mark.slow),
])  # fmt: skip
def test_a_resumed_run_learns_what_the_uninterrupted_one_does(env_id, copies, here):
    """From the command line; the run stands in the middle of episodes and of a rollout when it is stopped."""
    env_id = env_id if "-" in env_id else next(i for i in ("Taxi-v3", "Taxi-v4") if i in gymnasium.registry)
    settings = (f"env={env_id}", f"env.num_envs={copies}", "schedule.horizon=100")
    train(*settings, "run.dir=whole", "trainer.timesteps=100")
    train(*settings, "run.dir=parts", "trainer.timesteps=45")
    assert json.loads((here / "parts/checkpoints/45/manifest.json").read_text())["exact_resume"] is True
    train("resume=parts", "trainer.timesteps=100", "seed=1", f"env.num_envs={copies}")
    one, other = (summary(here / name)["agents"]["ppo"]["parameters_sha256"] for name in ("whole", "parts"))
    assert one == other


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("vectorization", "num_envs", "before"), [
    ("sync", 2, 22), ("sync", 1, 0), ("async", 2, 22), ("native", 3, 22), ("native", 1, 0),
])  # fmt: skip
def test_every_id_goes_on_exactly_or_is_on_the_list(vectorization, num_envs, before, here):
    wrong = {}
    for env_id in ids():
        native = gymnasium.registry[env_id].vector_entry_point is not None
        if not (native if vectorization == "native" else env_id in QUICK or vectorization == "sync"):  # processes take long
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = trial(env_id, vectorization, num_envs, before)
            except AssertionError:
                found = "not as it would have gone on"
        if found != expected(env_id, vectorization):
            wrong[env_id] = found
    assert wrong == {}
