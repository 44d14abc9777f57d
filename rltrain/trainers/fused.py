"""The loop as one compiled program: environment and agents in JAX, any number of agents with scopes and schedules of their own.

The same functions as in the stepped loop, inside `lax.scan`: an iteration is as many timesteps as divide every agent's `every`,
then each agent learns if it is due. A chunk is a number of iterations, an argument of the program, so that nothing is compiled
twice. While a chunk runs, the host writes what the one before it brought.
"""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rltrain.backends.jax import draw
from rltrain.errors import NonFiniteError
from rltrain.structures import Array, Progress, Step

if TYPE_CHECKING:
    from rltrain.trainers.base import Trainer

CHUNK_ENV_STEPS = (
    65_536  # a chunk is as many iterations as make about this: long enough to hide the host's work, short for signals
)


class AgentCarry(NamedTuple):
    """What one agent carries from timestep to timestep."""

    state: Any
    memory: Any
    key: Array  # of its actor


class Carry(NamedTuple):
    """What the program carries."""

    env: Any
    agents: tuple[AgentCarry, ...]
    timestep: Array


class Looks(NamedTuple):
    """What the host sees of each iteration of a chunk; K iterations of L timesteps of N copies."""

    rewards: Array  # (K, L, N)
    done: Array  # (K, L, N) bool
    finite: Array  # (K, L) bool: rewards and observations
    updates: tuple[Any, ...]  # per agent (metrics, learned, due, finite), each (K,)


class FusedLoop:
    """Runs a trainer's agents on its environment, both written in JAX, in chunks of whole iterations."""

    def __init__(self, trainer: "Trainer") -> None:
        self.trainer, self.env = trainer, trainer.env.pure  # type: ignore[attr-defined]
        self.pures: list[Any] = [agent.algorithm.pure for agent in trainer.agents]
        self.scopes = trainer.scopes
        self.length = math.gcd(*(pure.schedule.every for pure in self.pures))
        self.most = max(1, CHUNK_ENV_STEPS // (self.length * trainer.env.num_envs))
        self._run = jax.jit(self._chunk, donate_argnums=0)

    # -- on the host ---------------------------------------------------------------------------------------------------

    def advance(self, until: int) -> bool:
        """Train in whole iterations until timestep `until` is reached or passed; False if no whole iteration fits here.

        A signal ends it after the chunks that are under way.
        """
        trainer, at = self.trainer, self.trainer.timestep
        if at % self.length or trainer.timesteps - at < self.length:
            return False
        carry, before = self._take(), 0
        under_way: Looks | None = None
        try:
            while at < until and trainer.timesteps - at >= self.length and trainer.run.stop_signal is None:
                wanted = -(-(until - at) // self.length)
                count = min(self.most, wanted, (trainer.timesteps - at) // self.length)
                carry, looks = self._run(carry, count, trainer.horizon)
                at += count * self.length
                if under_way is not None:
                    self._tell(under_way, before, until)
                under_way, before = looks, count
            if under_way is not None:
                self._tell(under_way, before, until)
        finally:
            if not carry.timestep.is_deleted():  # a program that was cut off took it along
                self._give_back(carry)
        return True

    def _tell(self, looks: Looks, count: int, until: int) -> None:
        """Keep statistics and metrics of a chunk's iterations as the stepped loop would."""
        trainer = self.trainer
        looks = jax.device_get(looks)
        for k in range(count):
            if not looks.finite[k].all() and trainer.env.cfg.on_nonfinite == "error":  # type: ignore[attr-defined]
                t = int(np.argmin(looks.finite[k]))
                bad = ~np.isfinite(looks.rewards[k, t])
                what = f"copy {np.argmax(bad)}: rewards={looks.rewards[k, t][np.argmax(bad)]}" if bad.any() else "an observation"
                raise NonFiniteError(
                    f"env.id={trainer.env.name}: timestep {trainer.timestep + t}: {what} is not finite; "
                    "the last checkpoint is where to go on from"
                )
            trainer.timestep += self.length
            for agent, scope, update in zip(trainer.agents, self.scopes, looks.updates, strict=True):
                agent.statistics.record_rollout(looks.rewards[k][:, scope], looks.done[k][:, scope])
                metrics, learned, due, finite = jax.tree.map(lambda array: array[k], update)  # noqa: B023
                if due:
                    agent.algorithm.note_finite(bool(finite))
                    agent.note_update({t: float(v) for t, v in metrics.items()} if learned else {}, trainer.timestep - 1)
            interval = trainer.run.tracking.interval
            if trainer.timestep // interval > trainer.row_at // interval and trainer.timestep < until:
                trainer.write_rows()

    def _take(self) -> Carry:
        """Return everything that the stepped loop holds as what the program carries."""
        trainer = self.trainer
        agents = []
        for agent, pure in zip(trainer.agents, self.pures, strict=True):
            algorithm = agent.algorithm
            memory = algorithm.memory.lend() or self._empty_memory(pure, algorithm)
            agents.append(AgentCarry(algorithm.state, memory, agent.actor.key))
        return Carry(trainer.env.copies, tuple(agents), jnp.int32(trainer.timestep))  # type: ignore[attr-defined]

    def _give_back(self, carry: Carry) -> None:
        """Hand everything back to where the stepped loop holds it."""
        trainer = self.trainer
        trainer.env.copies = carry.env  # type: ignore[attr-defined]
        trainer.observations = carry.env.observations
        for agent, after in zip(trainer.agents, carry.agents, strict=True):
            algorithm = agent.algorithm
            agent.actor = agent.actor._replace(key=after.key)
            algorithm.take_over(after.state)
            position = int(carry.timestep) % algorithm.memory.length
            algorithm.memory.take_back(jax.device_get(after.memory) if position else None, position)

    # -- in the program ------------------------------------------------------------------------------------------------

    def _chunk(self, carry: Carry, count: Array, horizon: Array) -> tuple[Carry, Looks]:
        """Run `count` iterations."""
        shapes = jax.eval_shape(lambda carry: self._iterate(carry, horizon), carry)[1]
        looks = jax.tree.map(lambda shape: jnp.zeros((self.most, *shape.shape), shape.dtype), shapes)

        def body(k: Array, both: tuple[Carry, Looks]) -> tuple[Carry, Looks]:
            carry, look = self._iterate(both[0], horizon)
            return carry, jax.tree.map(lambda rows, row: rows.at[k].set(row), both[1], look)

        return jax.lax.fori_loop(0, count, body, (carry, looks))

    def _iterate(self, carry: Carry, horizon: Array) -> tuple[Carry, Looks]:
        """Make `length` timesteps, then let each agent learn that is due."""
        timesteps = carry.timestep + jnp.arange(self.length)
        noise = tuple(
            jax.vmap(lambda t, pure=pure, key=agent.key: draw(key, t, *pure.noise(pure.num_envs)))(timesteps)
            for pure, agent in zip(self.pures, carry.agents, strict=True)
        )
        carry, (rewards, done, finite) = jax.lax.scan(self._interact, carry, noise)
        agents, updates = [], []
        for pure, agent in zip(self.pures, carry.agents, strict=True):
            after, update = self._update(pure, agent, Progress(carry.timestep - 1, horizon))
            agents.append(after)
            updates.append(update)
        return carry._replace(agents=tuple(agents)), Looks(rewards, done, finite, tuple(updates))

    def _interact(self, carry: Carry, noise: tuple[Array, ...]) -> tuple[Carry, tuple[Array, Array, Array]]:
        """Make one timestep: act, step, record, reset."""
        # 2 act
        observations = carry.env.observations
        acted = [
            pure.act(pure.policy(agent.state), own, jax.tree.map(lambda array: array[scope], observations))  # noqa: B023
            for pure, agent, own, scope in zip(self.pures, carry.agents, noise, self.scopes, strict=True)
        ]
        actions = jnp.concatenate([actions for actions, _ in acted])

        # 3 step
        env, step = self.env.step(carry.env, actions)

        # 5 record
        agents = tuple(
            agent._replace(memory=pure.record(agent.memory, _row(observations, step, outputs, scope), carry.timestep))
            for pure, agent, (_, outputs), scope in zip(self.pures, carry.agents, acted, self.scopes, strict=True)
        )

        # 7 reset
        numbers = [leaf for leaf in jax.tree.leaves((step.rewards, step.next_observations)) if leaf.dtype.kind == "f"]
        finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in numbers]).all()
        looks = (step.rewards, env.done, finite)
        return Carry(self.env.reset_done(env), agents, carry.timestep + 1), looks

    def _update(self, pure: Any, agent: AgentCarry, progress: Progress) -> tuple[AgentCarry, Any]:
        def learn() -> tuple[Any, Any]:
            state, metrics, learned = pure.learn(agent.state, agent.memory, progress)
            return state, (metrics, learned, jnp.bool_(True), pure.is_finite(state))

        if pure.schedule.every == self.length and not pure.schedule.learning_starts:
            state, update = learn()
        else:
            shapes = jax.eval_shape(learn)[1]
            none = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
            state, update = jax.lax.cond(pure.schedule.is_due(progress.timestep), learn, lambda: (agent.state, none))
        return agent._replace(state=state), update

    def _empty_memory(self, pure: Any, algorithm: Any) -> Any:
        """Return a rollout of zeros in the shapes that a timestep has."""
        scope = self.scopes[self.pures.index(pure)]

        def example() -> Any:
            copies = self.trainer.env.copies  # type: ignore[attr-defined]
            observations = jax.tree.map(lambda array: array[scope], copies.observations)
            noise = draw(self.trainer.agents[0].actor.key, jnp.int32(0), *pure.noise(pure.num_envs))
            actions, outputs = pure.act(pure.policy(algorithm.state), noise, observations)
            whole = jnp.concatenate([actions] * -(-len(copies.done) // len(actions)))[: len(copies.done)]
            return _row(copies.observations, self.env.step(copies, whole)[1], outputs, scope)

        length = algorithm.memory.length
        return jax.tree.map(lambda row: jnp.zeros((length, *row.shape), row.dtype), jax.eval_shape(example))


def _row(observations: Any, step: Step, outputs: Any, scope: slice) -> Any:
    from rltrain.memories.jax import Rollout

    own_observations, own = jax.tree.map(lambda array: array[scope], (observations, step._replace(infos={})))
    return Rollout(
        observations=own_observations, states=None, next_observations=own.next_observations, next_states=None,
        rewards=own.rewards, terminated=own.terminated, truncated=own.truncated, valid=None, outputs=outputs,
    )  # fmt: skip
