"""The loop as compiled programs: environment and agents in JAX, any number of agents with scopes and schedules of their own.

The same functions as in the stepped loop, inside `lax.scan`: an iteration is as many timesteps as divide every agent's `every`,
then each agent learns if it is due. A chunk is a number of iterations, an argument of the program, so that nothing is compiled
twice. While a chunk runs, the host writes what the one before it brought.

All agents are one program, or each is one with its own copies of the environment, on a device of its own: copies in different
scopes never touch, so both give the same.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rltrain.errors import EnvironmentFailure, NonFiniteError
from rltrain.memories.rollout.jax import Rollout
from rltrain.ops.trees.jax import zeros_like
from rltrain.spaces import map_arrays, named
from rltrain.structures import Acting, Array, Arrays, Progress, Step, starts_after

if TYPE_CHECKING:
    from rltrain.trainers.base import Trainer

# a chunk is as many iterations as make about this, unless learning takes more: long enough to hide the host's work, short for
# signals
CHUNK_ENV_STEPS = 65_536
LEARNED = "rewards to learn from"  # of the environment's, where an agent has a reward function
CHUNK_OPERATIONS = 2e10  # sums and products of learning, about a second


class AgentCarry(NamedTuple):
    """What one agent carries from timestep to timestep; a team's by group."""

    state: Any
    memory: Any
    key: Any  # of its actor
    carry: Any  # by its actor, from timestep to timestep


class Carry(NamedTuple):
    """What a program carries."""

    env: Any
    agents: tuple[AgentCarry, ...]
    timestep: Array


class Looks(NamedTuple):
    """What the host sees of each iteration of a chunk; K iterations of L timesteps of N copies. Rewards and `valid` by member."""

    rewards: Arrays  # (K, L, N)
    done: Array  # (K, L, N) bool: a copy's episode ended
    valid: Arrays  # (K, L, N) bool, or None: every row happened
    bad: Array  # (K, L, N) of rewards, observations and states the number, from 1, of the first that isn't finite; 0: all are
    outside: Any  # what is outside its space after a step or its reset, by the environment: of arrays (K, L, N); or None
    playable: Array  # (K, L, N) bool: an action was allowed
    updates: tuple[Any, ...]  # per agent (metrics, which there are, due, finite), each (K,)


class FusedLoop:
    """Runs a trainer's agents on its environment, both written in JAX, in chunks of whole iterations.

    `devices`: None makes all agents one program; devices, as many as agents, make each agent a program on one of them.
    """

    def __init__(self, trainer: "Trainer", devices: Sequence[Any] | None = None) -> None:
        self.trainer, self.env = trainer, trainer.env.pure  # type: ignore[attr-defined]
        pures = [agent.algorithm.pure for agent in trainer.agents]
        self.length = math.gcd(*(pure.schedule.every for pure in pures))
        operations = max(sum(pure.operations() for pure in pures), 1)
        self.most = max(1, int(min(CHUNK_ENV_STEPS / trainer.env.num_envs, CHUNK_OPERATIONS / operations) / self.length))
        self.devices = devices
        groups = [slice(0, len(pures))] if devices is None else [slice(i, i + 1) for i in range(len(pures))]
        find: Callable[..., Any] = trainer.env.find_outside  # type: ignore[attr-defined]
        self.programs = [
            Program(self.env, find, pures[group], trainer.scopes[group], self.length, self.most, group) for group in groups
        ]

    def advance(self, until: int) -> bool:
        """Train in whole iterations until timestep `until` is reached or passed; False if no whole iteration fits here.

        A signal ends it after the chunks that are under way.
        """
        trainer, at = self.trainer, self.trainer.timestep
        if at % self.length or trainer.timesteps - at < self.length:
            return False
        carries, before = self._take(), 0
        under_way: list[Looks] = []
        try:
            while at < until and trainer.timesteps - at >= self.length and trainer.run.stop_signal is None:
                wanted = -(-(until - at) // self.length)
                count = min(self.most, wanted, (trainer.timesteps - at) // self.length)
                looks = []
                for i, program in enumerate(self.programs):
                    carries[i], look = program.run(carries[i], count, trainer.horizon)
                    looks.append(look)
                at += count * self.length
                if under_way:
                    self._tell(under_way, before, until)
                under_way, before = looks, count
            if under_way:
                self._tell(under_way, before, until)
        finally:
            if not any(carry.timestep.is_deleted() for carry in carries):  # a program that was cut off took it along
                self._give_back(carries)
        return True

    def _tell(self, parts: list[Looks], count: int, until: int) -> None:
        """Keep statistics and metrics of a chunk's iterations as the stepped loop would."""
        trainer = self.trainer
        looks = _side_by_side([jax.device_get(part) for part in parts])
        for k in range(count):
            self._check(looks, k)
            trainer.timestep += self.length
            for agent, scope, update in zip(trainer.agents, trainer.scopes, looks.updates, strict=True):
                rewards, valid = (
                    None if rows is None else map_arrays(lambda own: own[k][:, scope], rows)  # noqa: B023
                    for rows in (looks.rewards, looks.valid)
                )
                agent.statistics.record_rollout(rewards, looks.done[k][:, scope], valid)
                metrics, there, due, finite = update
                if due[k]:
                    agent.note_update(agent.algorithm.note_learned(metrics, there, finite, k), trainer.timestep - 1)
            interval = trainer.run.tracking.interval
            if trainer.timestep // interval > trainer.row_at // interval and trainer.timestep < until:
                trainer.write_rows()

    def _check(self, looks: Looks, k: int) -> None:
        """Raise what the stepped loop would have raised in iteration `k`."""
        trainer = self.trainer
        stuck, bad, outside = ~looks.playable[k], looks.bad[k], jax.tree.map(lambda rows: rows[k], looks.outside)
        watched = max((program.watched for program in self.programs), key=len)
        if trainer.env.cfg.on_nonfinite != "error":  # type: ignore[attr-defined]
            bad = np.where(bad > sum(not name.startswith(LEARNED) for name in watched), bad, 0)
        wrong = (stuck | (bad > 0) | (False if outside is None else outside.leaf > 0)).any(axis=1)
        if not wrong.any():
            return
        t = int(np.argmax(wrong))
        where = f"env.id={trainer.env.name}: timestep {trainer.timestep + t}"
        if stuck[t].any():
            raise EnvironmentFailure(f"{where}: copy {np.argmax(stuck[t])}: action_masks allows no action")
        if not bad[t].any():
            trainer.env.refuse_outside(jax.tree.map(lambda rows: rows[t], outside), trainer.timestep + t)  # type: ignore[attr-defined]
        copy = int(np.argmax(bad[t] > 0))
        name = watched[bad[t, copy] - 1]
        if name.startswith(LEARNED):
            self._refuse_learned(named(looks.rewards, LEARNED)[name][k, t, copy], copy, trainer.timestep + t, name)
        value = f"={rewards[k, t, copy]}" if (rewards := named(looks.rewards, "rewards").get(name)) is not None else ""
        raise NonFiniteError(f"{where}: copy {copy}: {name}{value} is not finite; the last checkpoint is where to go on from")

    def _refuse_learned(self, reward: Any, copy: int, timestep: int, name: str) -> None:
        """Raise NonFiniteError for what a reward function made of a reward."""
        for agent, scope in zip(self.trainer.agents, self.trainer.scopes, strict=True):
            if scope.start <= copy < scope.stop:
                agent.reward_function.refuse(reward, copy - scope.start, timestep, name.partition("/")[2])

    def _take(self) -> list[Carry]:
        """Return everything that the stepped loop holds as what the programs carry."""
        trainer = self.trainer
        carries = []
        copies = trainer.env.copies  # type: ignore[attr-defined]
        following = copies.observations, self.env.states(copies)
        for i, program in enumerate(self.programs):
            agents = []
            for agent, scope in zip(trainer.agents[program.group], trainer.scopes[program.group], strict=True):
                agents.append(AgentCarry(*agent.algorithm.lend(agent.actor, *_cut(following, scope))))
            carry = Carry(copies, tuple(agents), jnp.int32(trainer.timestep))
            if self.devices is not None:
                carry = carry._replace(env=self.env.cut(copies, trainer.scopes[i]))
            carry = carry._replace(agents=program.with_memories(carry))
            carries.append(carry if self.devices is None else jax.device_put(carry, self.devices[i]))
        return carries

    def _give_back(self, carries: list[Carry]) -> None:
        """Hand everything back to where the stepped loop holds it."""
        trainer = self.trainer
        if self.devices is not None:
            carries = [jax.device_put(carry, trainer.agents[0].backend.device) for carry in carries]
        copies = carries[0].env if self.devices is None else self.env.join([carry.env for carry in carries])
        trainer.env.copies = copies  # type: ignore[attr-defined]
        trainer.observations = copies.observations
        for agent, after in zip(trainer.agents, (after for carry in carries for after in carry.agents), strict=True):
            agent.actor = agent.algorithm.take_back(agent.actor, *after, trainer.timestep)


class Program:
    """Some agents on some copies, as one compiled program. `scopes` are theirs in the whole environment."""

    def __init__(
        self,
        env: Any,
        find_outside: Callable[..., Any],
        pures: Sequence[Any],
        scopes: Sequence[slice],
        length: int,
        most: int,
        group: slice,
    ) -> None:
        self.env, self.find_outside, self.pures = env, find_outside, pures
        self.length, self.most, self.group = length, most, group
        first = scopes[0].start
        self.scopes = [slice(scope.start - first, scope.stop - first) for scope in scopes]
        self.watched: list[str] = []  # what must be finite, by full name; known once it is traced
        self.run = jax.jit(self._chunk, donate_argnums=0)

    def with_memories(self, carry: Carry) -> tuple[AgentCarry, ...]:
        """Return the agents, those without a memory with an empty one."""

        def play(carry: Carry) -> tuple[Any, ...]:
            noise = jax.tree.map(lambda array: array[0], self._draw(carry, carry.timestep[None]))
            return self._play(carry, noise, jnp.int32(1))[2]

        agents = []
        rows = zeros_like(play, carry)
        for pure, agent, row in zip(self.pures, carry.agents, rows, strict=True):
            agents.append(agent if agent.memory is not None else agent._replace(memory=pure.init_memory(row)))
        return tuple(agents)

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
        noise = self._draw(carry, carry.timestep + jnp.arange(self.length))
        turn = functools.partial(self._turn, horizon)
        carry, (rewards, done, valid, bad, playable, outside) = jax.lax.scan(turn, carry, noise)
        agents, updates = [], []
        for pure, agent in zip(self.pures, carry.agents, strict=True):
            after, update = self._update(pure, agent, Progress(carry.timestep - 1, horizon))
            agents.append(after)
            updates.append(update)
        return carry._replace(agents=tuple(agents)), Looks(rewards, done, valid, bad, outside, playable, tuple(updates))

    def _turn(self, horizon: Array, carry: Carry, noise: tuple[Array, ...]) -> tuple[Carry, tuple[Array, ...]]:
        """Make one timestep: act, step, record, reset."""
        # 2 act, 3 step
        env, carried, rows, looks = self._play(carry, noise, horizon)

        # 5 record
        agents = []
        for pure, agent, after, row, scope in zip(self.pures, carry.agents, carried, rows, self.scopes, strict=True):
            memory = pure.record(agent.memory, row, carry.timestep)
            begins = starts_after(row.terminated, row.truncated, row.valid) if pure.remembers else env.done[scope]
            agents.append(agent._replace(memory=memory, carry=pure.reset_carry(after, begins)))

        # 7 reset
        begun = self.env.reset_done(env)
        outside = self.find_outside(env, looks[2], begun)
        return Carry(begun, tuple(agents), carry.timestep + 1), (*looks, outside)

    def _play(
        self, carry: Carry, noise: tuple[Array, ...], horizon: Array
    ) -> tuple[Any, tuple[Array | None, ...], tuple[Rollout, ...], tuple[Array, ...]]:
        """Act and step; return the environment, what actors carry, each agent's row and what the host sees."""
        observations, states, masks = carry.env.observations, self.env.states(carry.env), self.env.action_masks(carry.env)
        progress = Progress(carry.timestep, horizon)
        acted = []
        for pure, agent, own, scope in zip(self.pures, carry.agents, noise, self.scopes, strict=True):
            seen, allowed = _cut((observations, masks), scope)
            act = functools.partial(pure.act, explore=True, progress=progress)
            actor = Acting(agent.carry, own)
            acted.append(_apart(carry.timestep, act, pure.policy(agent.state), actor, seen, None, allowed))
        actions = map_arrays(lambda *parts: jnp.concatenate(parts), *(actions for _, actions, _ in acted))
        env, step = _apart(carry.timestep, self.env.step, carry.env, actions)
        rows = tuple(
            _shaped(
                pure,
                _row(_cut(observations, scope), _cut(states, scope), _cut(step._replace(infos={}), scope), outputs),
                progress,
            )
            for pure, (_, _, outputs), scope in zip(self.pures, acted, self.scopes, strict=True)
        )
        playable = jnp.ones_like(env.done) if masks is None else self.env.is_playable(masks)
        looks = step.rewards, env.done, step.valid, self._find_bad(step, rows), playable
        return env, tuple(actor.carry for actor, _, _ in acted), rows, looks

    def _find_bad(self, step: Step, rows: Sequence[Rollout]) -> Array:
        """Return for every copy (N,) the number, from 1, of the first of `watched` that isn't finite there; 0: all are."""
        seen = named(step.rewards, "rewards") | named(step.next_observations, "observations")
        seen |= {} if step.next_states is None else named(step.next_states, "states")
        if any(getattr(pure, "reward_function", None) for pure in self.pures):
            learned = map_arrays(lambda *parts: jnp.concatenate(parts), *(row.rewards for row in rows))
            learned = map_arrays(lambda made, given: jnp.where(jnp.isfinite(given), made, 0), learned, step.rewards)
            seen |= named(learned, LEARNED)  # the last ones: see `_check`
        numbers = {name: array for name, array in seen.items() if array.dtype.kind == "f"}
        self.watched = list(numbers)
        bad = jnp.uint8(0)
        for number, array in reversed(list(enumerate(numbers.values(), 1))):
            finite = jnp.isfinite(array).reshape(len(array), -1).all(axis=1)
            bad = jnp.where(finite, bad, jnp.uint8(min(number, 255)))
        return bad

    def _draw(self, carry: Carry, timesteps: Array) -> tuple[Array, ...]:
        """Return the random numbers that acting takes in these timesteps, per agent (T, ...)."""
        return tuple(
            jax.vmap(lambda t, pure=pure, key=agent.key: pure.draw(key, t))(timesteps)
            for pure, agent in zip(self.pures, carry.agents, strict=True)
        )

    def _update(self, pure: Any, agent: AgentCarry, progress: Progress) -> tuple[AgentCarry, Any]:
        def learn() -> tuple[Any, Any]:
            state, metrics, present = pure.update(agent.state, agent.memory, progress)
            return state, (metrics, present, jnp.bool_(True), pure.is_finite(state))

        none = zeros_like(learn)[1]
        state, update = jax.lax.cond(pure.schedule.is_due(progress.timestep), learn, lambda: (agent.state, none))
        return agent._replace(state=state), update


def _apart(timestep: Array, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return function(*arguments), compiled as when it is called on its own.

    What XLA compiles together it rounds otherwise: sine and cosine of a vector's last elements, a product and a sum in one. The
    branch of a condition is compiled by itself, and XLA doesn't know that timesteps are never negative.
    """
    return jax.lax.cond(timestep >= 0, lambda: function(*arguments), lambda: zeros_like(function, *arguments))


def _cut(tree: Any, scope: slice) -> Any:
    return jax.tree.map(lambda array: array[scope], tree)


def _row(observations: Arrays, states: Arrays, step: Step, outputs: dict[str, Array]) -> Rollout:
    return Rollout(
        observations=observations,
        states=states,
        next_observations=step.next_observations,
        next_states=step.next_states,
        rewards=step.rewards,
        terminated=step.terminated,
        truncated=step.truncated,
        valid=step.valid,
        outputs=outputs,
    )


def _shaped(pure: Any, row: Rollout, progress: Progress) -> Rollout:
    """Return the row with the rewards to learn from."""
    function = getattr(pure, "reward_function", None)
    if function is None:
        return row
    timestep, timesteps = (jnp.int32(number) for number in progress)
    return row._replace(rewards=_apart(timestep, function.traced, row.rewards, timestep, timesteps))


def _side_by_side(parts: list[Looks]) -> Looks:
    """Return the looks of several programs as those of one."""
    if len(parts) == 1:
        return parts[0]
    rewards, done, valid, bad, outside, playable = (
        jax.tree.map(lambda *rows: np.concatenate(rows, axis=-1), *(getattr(part, name) for part in parts))
        for name in ("rewards", "done", "valid", "bad", "outside", "playable")
    )
    return Looks(rewards, done, valid, bad, outside, playable, tuple(update for part in parts for update in part.updates))
