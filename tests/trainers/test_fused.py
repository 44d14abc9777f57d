"""The fused loop against the stepped one: the same bits, rows, statistics; nothing compiled twice."""

import copy
import os
import re
import signal

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp
from functional_envs import Fenced, Leaping, Nested, Pictured, Walk, make_trainer, numbers

from rltrain.agents.a2c.jax import A2C
from rltrain.agents.base import Agent
from rltrain.agents.ppo.jax import PPO
from rltrain.backends import jax as backend
from rltrain.errors import ConfigError, EnvironmentFailure, NonFiniteError
from rltrain.evaluation import EvaluationConfig
from rltrain.runs import Run
from rltrain.tracking import TrackingConfig
from rltrain.trainers import ParallelTrainer, SequentialTrainer, StepTrainer, fused

ONE = [(PPO, 4, {"rollout_length": 16, "epochs": 2, "minibatches": 3})]
CNN = {"network": {"cnn": [[4, 3, 1], 8], "policy_sizes": [8], "shared": True}}
SEEING = [(PPO, 2, {"rollout_length": 16, "epochs": 2, "minibatches": 2, **CNN})]
CELL = {"network": {"cell": "gru", "cell_size": 8, "policy_sizes": [8], "value_sizes": [8]}}
REMEMBERING = [(PPO, 3, {"rollout_length": 16, "epochs": 2, "minibatches": 2, "sequence_length": 8, **CELL})]
NORMALISED = {"normalize_observations": True, "normalize_rewards": True, "normalize_values": True, "kl_stop": 0.05}
TWO = [(PPO, 3, {"rollout_length": 16, "epochs": 2, **NORMALISED}), (A2C, 2, {"rollout_length": 24})]


@pytest.mark.parametrize(
    ("env", "agents"),
    [
        pytest.param(Walk, TWO, id="discrete-two"),
        pytest.param(lambda: Walk(continuous=True), ONE, id="continuous-one", marks=pytest.mark.slow),
        pytest.param(Walk, REMEMBERING, id="memory", marks=pytest.mark.slow),
        pytest.param(Walk, ONE, id="discrete-one", marks=pytest.mark.slow),
        pytest.param(lambda: Walk(continuous=True), TWO, id="continuous-two", marks=pytest.mark.slow),
        pytest.param(Nested, ONE, id="dict-one", marks=pytest.mark.slow),
        pytest.param(Nested, TWO, id="dict-two", marks=pytest.mark.slow),
        pytest.param(Pictured, SEEING, id="pictures", marks=pytest.mark.slow),
    ],
)
def test_fused_equals_stepped(agents, env):
    trainers = [make_trainer(agents, env(), timesteps=105, fused=how) for how in ("true", "false")]
    for trainer in trainers:
        trainer.train()
    one, other = map(numbers, trainers)
    np.testing.assert_equal(one, other)
    assert all(agent.updates >= 4 and agent.statistics.episodes > 5 for agent in trainers[0].agents)


@pytest.mark.slow
@pytest.mark.parametrize("env", [Walk, Fenced], ids=["plain", "states and masks"])
def test_parallel_is_a_program_per_agent_on_a_device_of_its_own_and_equals_one_for_all(env, monkeypatch):
    whole = make_trainer(TWO, env(), timesteps=105)
    whole.train()
    apart = make_trainer(TWO, env(), timesteps=105, kind=ParallelTrainer)
    used, real = set(), fused.FusedLoop._tell

    def tell(self, parts, *rest):
        used.update(device for part in parts for device in part.rewards.devices())
        real(self, parts, *rest)

    monkeypatch.setattr(fused.FusedLoop, "_tell", tell)
    apart.train()
    assert used == set(jax.devices()[:2])
    np.testing.assert_equal(numbers(apart), numbers(whole))


@pytest.mark.parametrize("stop", [pytest.param(40, marks=pytest.mark.slow), 56])
def test_resumed_in_mid_rollout_equals_fused(stop):
    """At 40, in the middle of the first agent's rollout and at row 16 of the second's 24, episodes end; at 56 they run."""
    whole = make_trainer(TWO, timesteps=104)
    whole.train()
    first = make_trainer(TWO, timesteps=stop, horizon=104)
    first.train()
    rest = make_trainer(TWO, timesteps=104)
    rest.restore(copy.deepcopy(first.snapshot()[0]))
    rest.train()
    np.testing.assert_equal(numbers(rest), numbers(whole))


@pytest.mark.slow
def test_what_is_remembered_goes_from_loop_to_loop_in_mid_rollout():
    whole = make_trainer(REMEMBERING, timesteps=104)
    whole.train()
    for first_how, rest_how in (("true", "true"), ("true", "false"), ("false", "true")):
        first = make_trainer(REMEMBERING, timesteps=40, horizon=104, fused=first_how)
        first.train()
        rest = make_trainer(REMEMBERING, timesteps=104, fused=rest_how)
        rest.restore(copy.deepcopy(first.snapshot()[0]))
        rest.train()
        np.testing.assert_equal(numbers(rest), numbers(whole))


@pytest.mark.slow
def test_rows_are_those_of_the_stepped_loop(tmp_path):
    written = {}
    for how in ("true", "false"):
        run = Run(directory=tmp_path / how, tracking=TrackingConfig(interval=32, tensorboard=False))
        trainer = make_trainer(TWO, timesteps=96, fused=how, run=run)
        rows = []
        run.write_metrics = lambda agent, t, steps, row, rows=rows: rows.append(
            (agent, t, steps, {k: row[k] for k in row if "time" not in k})
        )
        trainer.train()
        written[how] = rows
    np.testing.assert_equal(written["true"], written["false"])
    assert [row[1] for row in written["true"] if row[0] == "a0"] == [32, 64, 96]


def test_nothing_is_compiled_after_the_first_chunk(monkeypatch):
    monkeypatch.setattr(fused, "CHUNK_ENV_STEPS", 16 * 4 * 2)  # two iterations a chunk
    trainer = make_trainer(ONE, timesteps=16 * 11)
    counts = []
    real = fused.FusedLoop._tell
    monkeypatch.setattr(fused.FusedLoop, "_tell", lambda *a: (counts.append(backend.compilations()), real(*a)))
    trainer.train()
    assert len(counts) == 6 and counts[1:] == counts[:1] * 5


def test_a_signal_ends_it_at_a_chunk_and_then_the_script(monkeypatch):
    monkeypatch.setattr(fused, "CHUNK_ENV_STEPS", 16 * 4 * 2)
    trainer = make_trainer(ONE, timesteps=16 * 100)
    real, sent = fused.FusedLoop._tell, []

    def tell(*arguments):
        real(*arguments)
        if not sent:
            os.kill(os.getpid(), signal.SIGTERM)
        sent.append(trainer.timestep)

    monkeypatch.setattr(fused.FusedLoop, "_tell", tell)
    with pytest.raises(SystemExit) as raised:
        trainer.train()
    assert raised.value.code == 143
    assert trainer.timestep == 64 and trainer.agents[0].updates == 4  # the second chunk was under way
    whole = make_trainer(ONE, timesteps=64, horizon=1600)
    whole.train()
    np.testing.assert_equal(trainer.agents[0].snapshot()["policy"], whole.agents[0].snapshot()["policy"])


def test_evaluations_wait_for_whole_iterations():
    run = Run(evaluation=EvaluationConfig(interval=20, episodes=2))
    evaluation_env = make_trainer(ONE, timesteps=1).env
    trainer = make_trainer(ONE, timesteps=80, run=run, evaluation_env=evaluation_env)
    at = []
    real = trainer._evaluate_for_best
    trainer._evaluate_for_best = lambda: (at.append(trainer.timestep), real())[1]
    trainer.train()
    assert at == [32, 48, 64, 80]  # 20, 40, 60 and 80, rounded up to multiples of 16


def test_numbers_that_are_not_finite_end_it():
    with pytest.raises(NonFiniteError, match=r"walk: timestep 4: copy 0: rewards=nan is not finite"):
        make_trainer(ONE, Walk(breaks_at=5), timesteps=64).train()


def test_an_observation_that_is_not_finite_names_copy_part_and_timestep():
    class Torn(Nested):
        def _observe(self, state):
            found = super()._observe(state)
            return {**found, "at": jnp.where(state[0] > 1, jnp.nan, found["at"])}

    def copies_and_steps(fused):
        with pytest.raises(NonFiniteError, match=r"observations/at(=.*)? is not finite") as caught:
            make_trainer(ONE, Torn(), timesteps=256, fused=fused).train()
        return re.search(r"copy (\d+)", str(caught.value))[1], re.search(r"(?:step|timestep) (\d+)", str(caught.value))[1]

    assert copies_and_steps("true") == copies_and_steps("false")


def test_an_observation_outside_its_space_names_copy_part_and_timestep():
    """How it is found is tested with the environment (`test_functional.py`)."""
    trainer = make_trainer([(A2C, 3, {"rollout_length": 8})], Leaping(late=2), timesteps=64)
    with pytest.raises(
        EnvironmentFailure, match=r"walk: copy \d: timestep [124578]: states\[1\]=-1 is outside MultiDiscrete\(.*; mend"
    ):
        trainer.train()


def test_what_cannot_be_fused_says_why():
    with pytest.raises(ConfigError, match=r"trainer.fused=true: rendering needs every step; use auto or false"):
        make_trainer(ONE, timesteps=64, headless=False)


def test_an_agent_with_a_hook_of_its_own_is_stepped():
    class Hooked(Agent):
        calls = 0

        def pre_interaction(self, timestep: int, timesteps: int) -> None:
            self.calls += 1

    trainer = make_trainer(ONE, timesteps=16, fused="auto", agent_class=Hooked)
    trainer.train()
    assert trainer.agents[0].calls == 16


MOST = 2**31 - 2  # int32's largest number but one


@pytest.mark.parametrize("fused", ["false", pytest.param("true", marks=pytest.mark.slow)])
def test_the_last_timestep_that_can_be_counted_is_made(fused):
    trainer = make_trainer(ONE, timesteps=MOST, fused=fused)
    trainer.timestep = MOST - 16 - MOST % 16
    trainer.train()
    assert (trainer.timestep, trainer.agents[0].updates) == (MOST, 1)


def test_more_timesteps_than_can_be_counted_are_refused():
    told = r"=3000000000: backend=jax counts up to 2,147,483,646 timesteps; give fewer, or use another backend"
    with pytest.raises(ConfigError, match=r"trainer\.timesteps" + told):
        make_trainer(ONE, timesteps=3 * 10**9)
    trainer = make_trainer(ONE, timesteps=16, kind=StepTrainer, fused="false")
    for given in ({"timestep": 3 * 10**9}, {"timesteps": 3 * 10**9}):
        with pytest.raises(ConfigError, match=next(iter(given)) + told):
            trainer.train(**given)
    for kind in (SequentialTrainer, ParallelTrainer, StepTrainer):
        with pytest.raises(ConfigError, match="horizon" + told):
            kind(env=trainer.env, agents=trainer.agents, cfg={"timesteps": 16}, horizon=3 * 10**9)
        again = kind(env=trainer.env, agents=trainer.agents, cfg={"timesteps": 16, "close_environment_at_exit": False})
        again.timesteps = 3 * 10**9
        with pytest.raises(ConfigError, match=r"trainer\.timesteps" + told):
            again.train()
        assert again.timestep == 0


def test_a_second_training_draws_other_noise():
    trainer = make_trainer(ONE, timesteps=16)
    trainer.train()
    key = trainer.agents[0].actor.key
    again = type(trainer)(env=trainer.env, agents=trainer.agents, cfg={"timesteps": 16, "disable_progressbar": True})
    again.train()
    assert again.agents[0].actor.key != key


def test_a_row_is_not_written_twice_where_a_signal_ends_it(monkeypatch, tmp_path):
    run = Run(directory=tmp_path, tracking=TrackingConfig(interval=16, tensorboard=False))
    trainer = make_trainer(ONE, timesteps=1600, run=run)
    rows = []
    monkeypatch.setattr(fused, "CHUNK_ENV_STEPS", 16 * 4 * 2)
    monkeypatch.setattr(Run, "write_metrics", lambda self, agent, t, steps, row: rows.append(t))
    real = fused.FusedLoop._tell

    def tell(*arguments):
        real(*arguments)
        trainer.run.stop_signal = signal.SIGTERM

    monkeypatch.setattr(fused.FusedLoop, "_tell", tell)
    trainer.train()
    assert rows == [16, 32, 48, 64]
