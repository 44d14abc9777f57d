"""Action masks and states that come in `infos`: those of the observation acted on, whatever was reset, and what is refused."""

import itertools
import json
import multiprocessing

import numpy as np
import pytest
from command_line import call, summary, train
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from resumed import resumed
from space_envs import GAMES, Game, allowed, counts

from rltrain.agents.a2c.torch import A2C
from rltrain.agents.base import Agent
from rltrain.agents.ppo.torch import PPO
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.envs.gymnasium_infos import Infos
from rltrain.errors import ConfigError, EnvironmentFailure
from rltrain.seeding import EVALUATION_ENVIRONMENTS
from rltrain.trainers import SequentialTrainer

NETWORK = {"policy_sizes": [16], "value_sizes": [16]}
CFGS = {
    PPO: {"rollout_length": 16, "epochs": 2, "minibatches": 3, "learning_rate": 5e-3, "network": NETWORK},
    A2C: {"rollout_length": 8, "learning_rate": 5e-3, "network": NETWORK},
}
SILENT = {"disable_progressbar": True, "close_environment_at_exit": False}
WHERE = "env.id=space_envs:Game-v0: "


@pytest.fixture
def make():
    """Make `Game`s that are closed when the test ends."""
    made = []

    def make(num_envs=3, vectorization="sync", *, seed=5, role=0, first_copy=0, **kwargs):
        cfg = {"id": "space_envs:Game-v0", "num_envs": num_envs, "vectorization": vectorization, "kwargs": kwargs, "timeout": 60}
        made.append(GymnasiumEnv(cfg, seed=seed, role=role, first_copy=first_copy))
        return made[-1]

    yield make
    for env in made:
        env.close()


def cards(observations) -> np.ndarray:
    """Return the card (N,), from 0, of observations, composite or not."""
    shown = observations["cards/top"] if isinstance(observations, dict) else observations[:, 0]
    return np.asarray(shown).astype(int) - 1


def choose(masks: np.ndarray, game: str, generator: np.random.Generator) -> np.ndarray:
    """Return actions (N, *A) drawn from what is allowed."""
    space, actions = GAMES[game], []
    for mask in masks:
        first, action = 0, []
        for n in counts(space):
            action.append(generator.choice(np.flatnonzero(mask[first : first + n])))
            first += n
        actions.append(np.reshape(action, space.shape) + space.start)
    return np.array(actions)


# -- what belongs to the observations to act on next ----------------------------------------------------------------------


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("masks", ["given", "seldom"])
@pytest.mark.parametrize("game", ["discrete", "multi discrete 2-d"])
def test_masks_and_states_are_those_of_the_observations(make, game, masks, vectorization):
    env, generator = make(3, vectorization, game=game, masks=masks, states="given"), np.random.default_rng(0)
    observations, partial, without = env.reset(), 0, 0
    for t in range(150):
        if t == 70:
            observations = env.reset()  # all of them, in the middle of their episodes
        found = env.action_masks()
        assert found.dtype == bool and np.array_equal(found, allowed(game)[cards(observations)])
        assert np.array_equal(env.state(), observations)
        kept, without = found.copy(), without + found.all(axis=1).sum()
        step = env.step(choose(found, game, generator))
        assert np.array_equal(found, kept)  # what was handed out stays as it was
        assert np.array_equal(step.next_states, step.next_observations)  # the true ones, before any reset
        before, states = env._infos.masks, env.state()
        done = step.terminated | step.truncated
        observations = env.reset_done()
        if done.any() and not done.all():
            partial += 1
            assert np.array_equal(env.action_masks()[~done], before[~done])
            assert np.array_equal(env.state()[~done], states[~done])
            assert not np.array_equal(env.state()[done], states[done])
        assert np.array_equal(step.next_states, states)
    assert partial > 20 and without > 10


def test_native_needs_no_choice_in_the_row_that_only_resets(make):
    """An episode that ended allows nothing; the next row is a dummy, whatever is chosen there."""
    env, generator = make(3, "native", game="multi discrete", states="given"), np.random.default_rng(0)
    observations, over, dummies = env.reset(), np.zeros(3, bool), 0
    for _ in range(100):
        found = env.action_masks()
        assert np.array_equal(found, allowed("multi discrete")[cards(observations)] | over[:, None])
        assert np.array_equal(env.state(), observations)
        step = env.step(choose(found, "multi discrete", generator))
        dummies += 0 if step.valid is None else (~step.valid).sum()
        over = step.terminated | step.truncated
        observations = env.reset_done()
    assert dummies > 30


def test_states_are_of_the_dtype_that_their_space_says(make):
    """Whole numbers at resets don't make whole numbers of what follows."""
    env = make(2, states="integers")
    env.reset()
    assert env.state().dtype == np.float32
    step = env.step(choose(env.action_masks(), "discrete", np.random.default_rng(0)))
    assert step.next_states[:, 1].tolist() == [1.5, 1.5]


# -- training -------------------------------------------------------------------------------------------------------------


def watch(algorithm, game: str) -> list[np.ndarray]:
    """Check at each act that the masks are those of the observations; return what was allowed, act by act."""
    seen, act = [], algorithm.act

    def watched(actor, observations, states, masks, **how):
        seen.append(masks.numpy().copy())
        expected = allowed(game)[cards({k: v.numpy() for k, v in observations.items()})]
        assert (masks.numpy() == expected)[~masks.numpy().all(axis=1)].all()  # dummy rows have all choices
        return act(actor, observations, states, masks, **how)

    algorithm.act = watched
    return seen


RUNS = [
    (PPO, "discrete", 1, "sync"),
    (A2C, "multi discrete", 3, "sync"),
    *(
        pytest.param(algorithm, game, n, "sync", marks=pytest.mark.slow)
        for algorithm, game, n in itertools.product((PPO, A2C), ("discrete", "multi discrete"), (1, 3))
        if (algorithm, game, n) not in ((PPO, "discrete", 1), (A2C, "multi discrete", 3))
    ),
    (PPO, "multi discrete 2-d", 3, "sync"),
    (PPO, "discrete", 3, "async"),
    (A2C, "multi discrete", 3, "async"),
    (PPO, "multi discrete", 3, "native"),
]


@pytest.mark.parametrize(("kind", "game", "num_envs", "vectorization"), RUNS)
def test_nothing_forbidden_is_ever_done(make, kind, game, num_envs, vectorization):
    """`Game` raises at once; 2,000 env steps of training, then evaluation, exploring and not."""
    kwargs = {"game": game, "composite": True}
    env = make(num_envs, vectorization, **kwargs)
    evaluation_env = make(num_envs, role=EVALUATION_ENVIRONMENTS, **kwargs)
    algorithm = kind(env.observation_space, env.action_space, num_envs=num_envs, cfg=CFGS[kind], seed=1)
    seen, flags, record = watch(algorithm, game), [], algorithm.record
    algorithm.record = lambda row: (flags.append((row.terminated.any(), row.truncated.any())), record(row))
    agent = Agent(algorithm)
    trainer = SequentialTrainer(env, agent, cfg={"timesteps": 2000 // num_envs, **SILENT}, evaluation_env=evaluation_env)
    trainer.train()
    assert np.any(flags, axis=0).tolist() == [True, True] and agent.statistics.episodes > 300
    assert algorithm.is_finite()
    for trainer.stochastic_evaluation in (False, True):
        assert len(trainer.eval(episodes=20)["agent"]["returns"]) == 20
    numbers = {int(number) for masks in seen for number in masks.sum(axis=1)}
    assert min(numbers) == len(counts(GAMES[game])) and max(numbers) == sum(counts(GAMES[game]))  # one in each part, and all


@pytest.mark.parametrize("game", ["discrete", "multi discrete"])
def test_it_is_learned_under_the_mask(make, game):
    """The last choice allowed earns 1; at random it is taken as often as its part has few others."""
    env = make(8, game=game, composite=True)
    agent = Agent(PPO(env.observation_space, env.action_space, num_envs=8, cfg=CFGS[PPO], seed=1))
    trainer = SequentialTrainer(env, agent, cfg={"timesteps": 16 * 40, **SILENT})
    results = []
    for explore in (True, False):
        trainer.stochastic_evaluation = explore
        found = trainer.eval(episodes=200)["agent"]
        results.append(sum(found["returns"]) / sum(found["lengths"]))
        if explore:
            trainer.train()
    assert results[0] < 0.75 and results[1] > 0.9


def test_the_first_gradient_step_sees_the_policy_that_acted(make):
    """Without the masks the ratios would not be 1, nor the approximate KL 0."""
    env = make(3, game="multi discrete", composite=True)
    cfg = {**CFGS[PPO], "epochs": 1, "minibatches": 1}
    agent = Agent(PPO(env.observation_space, env.action_space, num_envs=3, cfg=cfg, seed=1))
    SequentialTrainer(env, agent, cfg={"timesteps": 16 * 20, **SILENT}).train()
    assert agent.updates == 20
    assert agent.metrics["policy/approx_kl"] == 0.0 and agent.metrics["policy/clip_fraction"] == 0.0


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("kind", [PPO, A2C])
def test_resumed_equals_uninterrupted(make, kind, vectorization):
    def start(timesteps):
        env = make(3, vectorization, game="multi discrete", composite=True, masks="seldom", states="given")
        agent = Agent(
            kind(
                env.observation_space, env.action_space, state_space=env.state_space, num_envs=3, seed=2,
                cfg={**CFGS[kind], "normalize_observations": True},
            )
        )  # fmt: skip
        return SequentialTrainer(env, agent, cfg={"timesteps": timesteps, **SILENT})

    for stop in (37, 48) if vectorization == "sync" else (37,):
        resumed(start, 90, stop)


# -- what is refused ------------------------------------------------------------------------------------------------------


def play(env: GymnasiumEnv, game: str = "discrete", steps: int = 30) -> None:
    """Step by what is allowed, resetting what ended."""
    generator = np.random.default_rng(0)
    env.reset()
    for _ in range(steps):
        env.step(choose(env.action_masks(), game, generator))
        env.reset_done()


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"masks": "late"}, r"infos has action_mask after a step but not after reset; give it there too"),
        ({"masks": "short"}, r"infos\['action_mask'\]: expected bool \(5,\) of each copy, got int8 \(4,\)"),
        ({"masks": "list"}, r"infos\['action_mask'\]: expected bool \(5,\) of each copy, got no NumPy array"),
        (
            {"states": "absent"},
            r"infos\['state'\] is missing from 2 of 2 copies; an environment with a state_space gives it at each",
        ),
        ({"states": "short"}, r"infos\['state'\]: expected float32 \(3,\) of each copy, got float32 \(2,\)"),
    ],
)
def test_what_infos_bring_in_another_form_is_refused(make, kwargs, says, vectorization):
    env = make(2, vectorization, **kwargs)
    with pytest.raises(EnvironmentFailure, match=f"^{WHERE}{says}"):
        if kwargs == {"masks": "late"}:
            env.reset()
            assert env.action_masks() is None
            env.step(choose(allowed("discrete")[cards(env._observations)], "discrete", np.random.default_rng(0)))
        else:
            play(env)


def test_a_reset_of_some_copies_must_bring_their_states(make):
    """Those of the episode that ended would be taken for the new one's."""
    with pytest.raises(EnvironmentFailure, match=r"infos\['state'\] is missing from [12] of [12] copies"):
        play(make(2, states="late"))


@pytest.mark.parametrize(
    ("game", "says"),
    [("discrete", "copy 4: action_mask allows no action$"),
     ("multi discrete", "copy 4: action_mask allows no action in dimension 1$")],
)  # fmt: skip
def test_a_copy_without_a_choice_is_named_by_its_global_number(make, game, says):
    victim = make(5).seeds[4]
    part = make(5, game=game, masks="rest", victim=victim).partition([2, 3])[1]()
    agent = Agent(PPO(part.observation_space, part.action_space, num_envs=3, cfg=CFGS[PPO]))
    with pytest.raises(EnvironmentFailure, match=f"^{WHERE}{says}"):
        SequentialTrainer(part, agent, cfg={"timesteps": 5, **SILENT}).train()


@pytest.mark.parametrize("space", [Dict({"x": Box(0, 1, (1,))}), 16])
def test_a_state_space_that_is_not_one_array_is_refused(space):
    def make():
        env = Game()
        env.state_space = space
        return env

    with pytest.raises(ConfigError, match=r"^env.state_space=.*: states must be one array: a Box or another space with a shape"):
        GymnasiumEnv({"num_envs": 2}, make=make)


class OddStates(Game):
    """Its states are no array."""

    state_space = Dict({"x": Box(0, 1, (1,))})


def test_an_environment_that_is_refused_leaves_no_process():
    others = set(multiprocessing.active_children())
    with pytest.raises(ConfigError, match=r"^env.state_space=Dict") as refused:
        GymnasiumEnv({"num_envs": 2, "vectorization": "async"}, make=OddStates)
    assert set(multiprocessing.active_children()) <= others and refused.value.key == "env.state_space"


# -- rows by hand ---------------------------------------------------------------------------------------------------------

ONES, TWO = np.ones(2, bool), np.array([[1, 0, 0, 1, 0], [0, 1, 0, 0, 1]])


def infos_of(action_space=MultiDiscrete([2, 3]), state_space=None) -> Infos:  # noqa: B008
    return Infos("here", 2, state_space, action_space)


def test_masks_row_by_row():
    infos = infos_of()
    infos.begin({"action_mask": TWO, "_action_mask": ONES})
    assert infos.masks.tolist() == TWO.astype(bool).tolist()
    infos.begin_some({}, np.array([False, True]))  # copy 1 began and sent none
    assert infos.masks.tolist() == [[True, False, False, True, False], [True] * 5]
    infos.begin_some({"action_mask": TWO, "_action_mask": np.array([False, True])}, np.array([False, True]))
    assert infos.masks.tolist() == TWO.astype(bool).tolist()
    infos.step({"action_mask": TWO[::-1], "_action_mask": np.array([True, False])})
    assert infos.masks.tolist() == [[False, True, False, False, True], [True] * 5]
    infos.step({})
    assert infos.masks.all()
    infos.begin({"action_mask": TWO, "_action_mask": np.array([True, False])})
    assert infos.masks.tolist() == [[True, False, False, True, False], [True] * 5]
    infos.begin({})  # masks were recorded so far, so there must be some
    assert infos.masks.all() and infos.masks.shape == (2, 5)


def test_no_masks():
    infos = infos_of()
    infos.begin({})
    infos.step({"more": ONES})
    infos.begin_some({}, ONES)
    assert infos.masks is None and infos.allowed(0, ~ONES) is None


def test_masks_of_a_native_environment_need_no_list_of_copies():
    infos = infos_of()
    infos.begin({"action_mask": TWO})
    assert infos.masks.tolist() == TWO.astype(bool).tolist()


def test_masks_are_read_only_where_actions_are_choices():
    infos = infos_of(Box(-1, 1, (2,)))
    infos.begin({"action_mask": np.ones((2, 3))})
    infos.step({"action_mask": np.ones((2, 3))})
    assert infos.masks is None and infos.allowed(0, ~ONES) is None


def test_every_part_needs_a_choice_but_in_rows_that_only_begin_an_episode():
    infos, none = infos_of(), np.zeros(2, bool)
    infos.begin({"action_mask": np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])})
    with pytest.raises(EnvironmentFailure, match=r"^here: copy 8: action_mask allows no action in dimension 0$"):
        infos.allowed(7, none)
    assert infos.allowed(7, np.array([False, True])).all()
    assert not infos.masks.all()
    infos.begin({"action_mask": np.array([[1, 0, 0, 0, 1], [0, 1, 1, 0, 0]])})
    assert infos.allowed(7, none).sum() == 4


def test_states_row_by_row():
    infos = infos_of(Discrete(2), Box(0, 9, (2,), np.float32))
    infos.begin({"state": np.array([[1, 2], [3, 4]]), "_state": ONES})
    infos.begin_some({"state": np.array([[0, 0], [5.5, 6]]), "_state": np.array([False, True])}, np.array([False, True]))
    assert infos.states.tolist() == [[1, 2], [5.5, 6]] and infos.states.dtype == np.float32
    with pytest.raises(EnvironmentFailure, match=r"^here: infos\['state'\] is missing from 1 of 2 copies"):
        infos.step({"state": np.zeros((2, 2)), "_state": np.array([True, False])})


def test_states_that_their_space_cannot_hold_are_refused():
    infos = infos_of(Discrete(2), Discrete(4))
    infos.begin({"state": np.array([3, 1])})
    assert infos.states.tolist() == [3, 1]
    with pytest.raises(EnvironmentFailure, match=r"infos\['state'\]: expected int64 \(\) of each copy, got float64 \(\)"):
        infos.step({"state": np.array([0.5, 1.0])})


# -- the command line -----------------------------------------------------------------------------------------------------

KWARGS = "env.kwargs={game: multi discrete, composite: true, states: given}"


@pytest.mark.parametrize("agent", ["ppo", "a2c"])
def test_a_masked_environment_by_the_command_line(agent, here):
    sizes = (f"agents.{agent}.network.{kind}_sizes=[8]" for kind in ("policy", "value"))
    small = ("seed=1", "env=space_envs:Game-v0", "env.num_envs=3", KWARGS, f"agents={agent}", f"agents.{agent}.rollout_length=16",
             *sizes, "tracking.tensorboard=false", "evaluation.interval=50", "evaluation.episodes=4")  # fmt: skip
    for name, timesteps in (("whole", 120), ("run", 75)):
        result = call("train", *small, f"run.dir={name}", f"trainer.timesteps={timesteps}", "schedule.horizon=120")
        assert result.status == 0, result.err
    assert call("train", "resume=run", "trainer.timesteps=120").status == 0
    hashes = [summary(here / name)["agents"][agent]["parameters_sha256"] for name in ("whole", "run")]
    assert hashes[0] == hashes[1]
    result = call("eval", "checkpoint=run", "episodes=5", "json=true")
    assert result.status == 0, result.err
    figures = json.loads(result.out)
    assert figures["agents"][agent]["episodes"] == 5 and 0 < figures["agents"][agent]["max"] <= 6


def test_a_mask_of_another_form_is_one_line_at_the_command_line(here):
    result = train("env=space_envs:Game-v0", "env.kwargs={masks: short}", "trainer.timesteps=50", "run.dir=run", status=1)
    assert f"error: {WHERE}infos['action_mask']: expected bool (5,) of each copy, got int8 (4,)" in result.err.splitlines()
    assert "Traceback" not in result.err
