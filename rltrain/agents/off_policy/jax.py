"""What DQN, DDPG, SAC and what extends them have in common in JAX: warm-up, targets, the steps of an update.

Pure functions over `State`. A memory on the device is drawn from in `update`; one on the host, by `UpdateFromHost`.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from rltrain import spaces
from rltrain.agents.algorithm.jax import BaseAlgorithm
from rltrain.agents.off_policy.config import OffPolicyConfig
from rltrain.agents.off_policy.updates.jax import Tally, UpdateFromHost
from rltrain.agents.pure.jax import Metrics
from rltrain.agents.pure.protocol import LearnerState, Policy
from rltrain.backends.jax import key_of
from rltrain.memories.replay.host import Replay, Sample, Window
from rltrain.memories.replay.jax import ReplayMemory, ReplayOnDevice, Transitions
from rltrain.memories.replay.ring import CARRY
from rltrain.memories.rollout.jax import Rollout
from rltrain.models.networks.jax import VJP
from rltrain.models.sequences import Run, Sequences, Successors
from rltrain.ops import losses, normalizers
from rltrain.ops.trees.jax import xp_of, zeros_like
from rltrain.seeding import AGENT_MINIBATCHES, seed64
from rltrain.structures import Acting, Array, Arrays, Progress

STEPS_AT_ONCE = 64  # gradient steps whose batches are drawn on the host for one compiled call

Diagnostics = Metrics


class State(NamedTuple):
    """Everything that learning carries, but for the memory."""

    learners: dict[str, LearnerState]
    observation_moments: normalizers.Moments
    key: Array  # of noise in learning, and of what is drawn from a memory on the device
    folded: Array  # () timesteps recorded on the device that the observations' statistics know
    gradient_steps: Array  # () in all


class Batch(NamedTuple):
    """Transitions, ready to learn from; for networks that remember, rows of sequences."""

    inputs: Any  # (B, O) normalised, where there are images see `Inputs`; or `Sequences`
    next_inputs: Any  # (B, O) normalised, k steps later; or `Successors`
    actions: Array  # (B, A), or (B,) choices
    returns: Array  # (B,) sums of k rewards
    discounts: Array  # (B,) gamma^k, 0 where the episode terminated
    weights: Array | None  # (B,) importance weights, or None: all alike
    next_action_masks: Array | None  # (B, M) bool, or None: all are allowed
    action_masks: Array | None  # (B, M) bool, or None
    happened: Array | None = None  # (B,) 0 where a row of a sequence did not happen, or None: all did


class OffPolicy(BaseAlgorithm):
    """Collects transitions in a memory and learns from batches of them; an algorithm says in `improve` how."""

    config: ClassVar[type[OffPolicyConfig]]
    row_bytes = 11

    def _start(self, seed: int, index: int) -> None:
        cfg = self.cfg
        self.memory_seed = seed64(seed, AGENT_MINIBATCHES, index, 1)
        self.gradient_steps = self._count_gradient_steps()
        parts = self.gradient_steps if cfg.prioritized else -(-self.gradient_steps // STEPS_AT_ONCE)
        self.at_once = -(-self.gradient_steps // parts)  # priorities of a step's batch depend on the step before
        self._memory_settings: dict[str, Any] = {
            "discount_factor": cfg.discount_factor,
            "n_steps": cfg.n_steps,
            "reward_scale": cfg.reward_scale,
            "reward_clip": cfg.reward_clip,
            "window": Window(cfg.burn_in, cfg.sequence_length, cfg.window) if self.remembers else None,
        }
        self.memory = ReplayOnDevice(cfg.memory_size, self.num_envs, **self._memory_settings)
        timesteps = max(min(cfg.learning_starts + 1, self.memory.timesteps), cfg.least_timesteps(self.num_envs))
        self.least = timesteps * self.num_envs  # transitions that learning takes
        self.row_bytes += cfg.bytes_remembered(self.actions_read)
        self._learn_from_host = UpdateFromHost(self)

    def init(self) -> State:
        """Return the state to start from."""
        return State(
            learners=self.init_learners(),
            observation_moments=self.inputs.init(),
            key=key_of(self.seeds[1]),
            folded=jnp.int32(0),
            gradient_steps=jnp.int32(0),
        )

    # -- acting --------------------------------------------------------------------------------------------------------

    def _explore(
        self, policy: Policy, actor: Acting, observations: Arrays, action_masks: Array | None, progress: Progress
    ) -> tuple[Acting, Array]:
        warms_up = progress.timestep < self.cfg.learning_starts
        if warms_up is True and not self.remembers:
            return Acting(actor.carry), self._draw_uniform(actor, action_masks)
        inputs = self.inputs(policy.observation_moments, observations)
        if warms_up is True:
            after, _ = self._look(policy.parameters, actor, inputs, action_masks)
            return Acting(after.carry), self._draw_uniform(actor, action_masks)
        after, actions = self._deviate(policy.parameters, actor, inputs, action_masks, progress)
        if warms_up is not False:
            actions = jnp.where(warms_up, self._draw_uniform(actor, action_masks), actions)
            still = (*after.carry[:-1], actor.carry[-1]) if self.remembers else actor.carry  # noise waits, memory doesn't
            after = Acting(jax.tree.map(lambda new, old: jnp.where(warms_up, old, new), after.carry, still))
        return after, actions

    @abstractmethod
    def _deviate(
        self, parameters: dict[str, Array], actor: Acting, inputs: Any, action_masks: Array | None, progress: Progress
    ) -> tuple[Acting, Array]:
        """Return the next actor and what it does after the warm-up: the best actions, and something else now and then."""

    @abstractmethod
    def _draw_uniform(self, actor: Acting, action_masks: Array | None) -> Array:
        """Return actions that are all equally likely."""

    def _remembered(self, carry: Any) -> dict[str, Array]:
        outputs = super()._remembered(carry)
        return outputs | dict(zip(CARRY, carry[1], strict=False)) if self.cfg.stored_state else outputs

    def _choose(self, parameters: dict[str, Array], inputs: Any, action_masks: Array | None) -> Array:
        return self._best(self._logits(parameters, inputs, action_masks))

    # -- learning ------------------------------------------------------------------------------------------------------

    def make_memory(self) -> ReplayMemory:
        """Return a memory for `update_from_host`."""
        cfg = self.cfg
        on_host = Replay(
            cfg.memory_size,
            self.num_envs,
            self.memory_seed,
            **self._memory_settings,
            priority_exponent=cfg.priority_exponent if cfg.prioritized else None,
            mapped=cfg.memory_mapped,
            directory=cfg.memory_directory,
            key=self.key,
        )
        why_not_on_device = ""
        if cfg.prioritized:
            why_not_on_device = f"{self.key}.prioritized=true draws from a memory on the host"
        elif cfg.memory_mapped == "true":
            why_not_on_device = f"{self.key}.memory_mapped=true keeps the memory on the host"
        return ReplayMemory(on_host, self.memory, why_not_on_device)

    def init_memory(self, row: Rollout) -> Transitions:
        """Return an empty memory on the device for rows (N, ...) like this one."""
        return self.memory.empty(row)

    def record(self, memory: Transitions, row: Rollout, timestep: Array) -> Transitions:
        """Return the memory with the row (N, ...) of a timestep in its place."""
        return self.memory.record(memory, row)

    def interrupt(self, state: State, memory: ReplayMemory, next_observations: Arrays, next_states: Arrays) -> State:
        """Take the last row recorded of every copy as truncated there, unless its episode ended anyway."""
        memory.interrupt()
        return state

    def discard(self, state: State, memory: ReplayMemory) -> State:
        """Keep every transition; the running episodes end where they are."""
        memory.interrupt()
        return state

    def update(self, state: State, memory: Transitions, progress: Progress) -> tuple[State, Metrics, dict[str, Array]]:
        """Take the gradient steps that are due on a memory on the device; return means over them, and which there are."""
        steps = self.gradient_steps

        def learn() -> tuple[State, Any]:
            ready = self._fold_observations(state, memory)
            key, own = jax.random.split(ready.key)
            rows = self.memory.draw_rows(memory, own, steps * self.cfg.drawn).reshape(steps, -1)
            batch = lambda k: self.memory.read(memory, rows[k])  # noqa: E731
            after, tally, _ = self.improve_by_steps(ready._replace(key=key), batch, steps, True, progress)
            always = {tag: total / steps for tag, total in tally.every.items()} | self.report(progress)
            always |= {
                "replay/ratio": jnp.float32(steps / (self.cfg.update_interval * self.num_envs)),
                "replay/size": (memory.filled * self.num_envs).astype(jnp.float32),
            }
            some = {tag: total / jnp.maximum(tally.count, 1) for tag, total in tally.some.items()}
            present = dict.fromkeys(always, jnp.bool_(True)) | dict.fromkeys(some, tally.count > 0)
            return after, (always | some, present)

        none, is_due = zeros_like(learn)[1], memory.filled * self.num_envs >= self.least
        after, (metrics, present) = jax.lax.cond(is_due, learn, lambda: (state, none))
        return after, metrics, present

    def update_from_host(self, state: State, memory: ReplayMemory, progress: Progress) -> tuple[State, dict[str, float], bool]:
        """Take the gradient steps that are due; return diagnostics, means over them, and if every parameter is finite.

        Nothing is learned before the memory holds a batch, and as many timesteps as learning starts after: after a resume
        without the memory it fills first.
        """
        if memory.rows is not None:
            return self.update_compiled(state, memory.rows, progress)
        cfg, host = self.cfg, memory.host
        lacks = host.filled < cfg.window if self.remembers else host.count < cfg.batch_size
        if lacks or host.filled < min(cfg.learning_starts + 1, host.timesteps):
            return state, {}, True
        return self._learn_from_host(state, host, *memory.take_counts(), progress)

    def improve_by_steps(
        self, state: State, batch: Callable[[int | Array], Sample], steps: int | Array, finishes: bool | Array, progress: Progress
    ) -> tuple[State, Tally, Array]:
        """Take gradient steps 0 ... `steps` - 1, each on `batch`(k) (B, ...); tell if they `finish` an update.

        Return diagnostics, summed over them, and the last one's errors (B,), of sequences (S,).
        """
        # ---- learning rates
        rates = self._learning_rates(self.now("learning_rate", progress))

        def take(k: int | Array, state: State) -> tuple[State, Tally, Array]:
            # ---- batch
            ready = self._prepare_windows(state, batch(k)) if self.remembers else self._prepare(state, batch(k))
            # ---- step
            state = state._replace(gradient_steps=state.gradient_steps + 1)
            state, diagnostics, errors = self.improve(state, ready, rates)
            errors = self._sequence_errors(errors, ready) if self.remembers else errors
            # ---- targets
            is_last = finishes & (k == steps - 1)
            return self._move_targets_if_due(state, progress, is_last), diagnostics, errors

        if self.at_once == 1:
            return take(0, state)

        def add(k: Array, carry: tuple[State, Tally, Array]) -> tuple[State, Tally, Array]:
            state, tally, errors = take(k, carry[0])
            return state, jax.tree.map(jnp.add, carry[1], tally), errors

        return jax.lax.fori_loop(0, steps, add, (state, *zeros_like(take, 0, state)[1:]))

    @abstractmethod
    def improve(self, state: State, batch: Batch, rates: dict[str, Array]) -> tuple[State, Tally, Array]:
        """Take one gradient step; return its diagnostics and the errors (B,) that priorities follow."""

    def _prepare(self, state: State, sample: Sample) -> Batch:
        """Return what was drawn as inputs of the networks."""
        return Batch(
            inputs=self.inputs(state.observation_moments, sample.observations),
            next_inputs=self.inputs(state.observation_moments, sample.next_observations),
            actions=sample.outputs["actions"],
            returns=sample.returns,
            discounts=sample.discounts,
            weights=sample.weights,
            next_action_masks=sample.outputs.get("next_action_masks"),
            action_masks=sample.outputs.get("action_masks"),
        )

    def _prepare_windows(self, state: State, sample: Sample) -> Batch:
        """Return what was drawn as sequences, timestep by timestep; successors are read with what is remembered before them."""
        outputs, burn_in, length = sample.outputs, self.cfg.burn_in, self.cfg.sequence_length
        starts = outputs["starts"].swapaxes(0, 1)  # (T, S)
        before = _rows(outputs["actions_before"]) if self.actions_read else None
        read = lambda observations: self.inputs(state.observation_moments, spaces.map_arrays(_rows, observations))  # noqa: E731
        inputs = self.inputs.join(read(sample.observations), before)
        by_time = spaces.map_arrays(lambda array: array.reshape(*starts.shape, *array.shape[1:]), inputs)

        def run(first: int, end: int | None = None) -> Run:
            return Run(spaces.map_arrays(lambda array: array[first:end], by_time), starts[first:end])

        sequences = Sequences(run(0, burn_in), run(burn_in, burn_in + length), sample.carry)
        actions = self.distribution.as_numbers(_rows(sample.last_actions)) if self.actions_read else None
        following = self.inputs.join(read(sample.next_observations), actions)
        count = starts.shape[1]
        after = sample.last * count + jnp.arange(count)[:, None]
        optional = (sample.weights, outputs.get("next_action_masks"), outputs.get("action_masks"), sample.happened)
        return Batch(
            sequences,
            Successors(sequences._replace(rows=run(burn_in)), following, _rows(after)),
            _rows(outputs["actions"]),
            _rows(sample.returns),
            _rows(sample.discounts),
            *(None if array is None else _rows(array) for array in optional),
        )

    def _sequence_errors(self, errors: Array, batch: Batch) -> Array:
        """Return what priorities of sequences follow, (S,), of their rows' errors (B,)."""
        by_time = lambda rows: rows.reshape(self.cfg.sequence_length, -1)  # noqa: E731
        happened = None if batch.happened is None else by_time(batch.happened)
        return losses.sequence_errors(jnp, by_time(errors), happened)

    def mean(self, rows: Array, batch: Batch) -> Array:
        """Return the mean of (B,) or (C, B) over the batch's rows, without those that did not happen."""
        if batch.happened is None:
            return rows.mean()
        return losses.mean(jnp, rows if rows.ndim == 1 else rows.mean(0), batch.happened)

    def shares(self, batch: Batch) -> Array:
        """Return each row's share in `mean`, (B,)."""
        return losses.shares(jnp, batch.returns, batch.happened)

    def _regress(
        self, state: State, name: str, values: Array, vjp: VJP, targets: Array, batch: Batch, learning_rate: Array
    ) -> tuple[State, Diagnostics, Array]:
        """Step down the loss of `values` (C, B), of C critics, against targets (B,); return their differences too.

        The loss is summed over critics, the weighted mean over rows. `vjp` takes the gradient with respect to the values.
        """
        differences = values - targets
        errors, gradients = losses.temporal_difference_loss(jnp, differences, self.cfg.loss)
        if batch.weights is not None:
            errors, gradients = errors * batch.weights, gradients * batch.weights
        share = gradients / len(batch.returns) if batch.happened is None else gradients * self.shares(batch)
        state, norm = self.descend(state, name, vjp, share, learning_rate)
        diagnostics = {
            "loss/q": self.mean(errors, batch),
            "value/q_mean": self.mean(values, batch),
            "value/grad_norm": norm,
            "value/target_mean": self.mean(targets, batch),
        }
        return state, diagnostics, differences

    def descend(self, state: State, name: str, vjp: VJP, gradients: Any, learning_rate: Array) -> tuple[State, Array]:
        """Let a learner take one step down a loss, given its gradients with respect to what `vjp` takes; return their norm."""
        learner, norm = self.learners[name].step(state.learners[name], vjp(gradients), learning_rate, self.cfg.grad_norm_clip)
        return state._replace(learners={**state.learners, name: learner}), norm

    def _fold_observations(self, state: State, memory: Transitions) -> State:
        """Fold the observations since the last update into the statistics: acting and learning share them until the next."""
        if not self.inputs.normalize:
            return state
        every, timesteps = self.cfg.update_interval, self.memory.timesteps
        unfolded = jnp.minimum(memory.recorded - state.folded, memory.filled)
        warm_up = max(self.cfg.learning_starts + 1, self.cfg.least_timesteps(self.num_envs)) + every

        def fold(most: int) -> normalizers.Moments:
            weights = jnp.repeat(jnp.arange(most) >= most - unfolded, self.num_envs).astype(jnp.float32)
            return self.inputs.fold(state.observation_moments, self.memory.newest(memory, most), weights)

        few, many = min(every, timesteps), min(warm_up, timesteps)
        moments = jax.lax.cond(unfolded > few, lambda: fold(many), lambda: fold(few))
        return state._replace(observation_moments=moments, folded=memory.recorded)

    def _targets_are_due(self, progress: Progress) -> bool | Array:
        """Tell whether a multiple of `target_update_interval` was reached since the update before this one."""
        interval, reached = self.cfg.target_update_interval, progress.timestep + 1
        if interval <= self.cfg.update_interval:
            return True
        return reached // interval > (reached - self.cfg.update_interval) // interval

    def _step_moves_targets(self, state: State) -> bool | Array:
        """Tell whether the targets move after this gradient step."""
        return True

    def _move_targets_if_due(self, state: State, progress: Progress, is_last: bool | Array) -> State:
        """Move the targets after a gradient step, or copy them after the last one."""
        due = self._targets_are_due(progress) & (is_last if self.cfg.polyak == 1 else self._step_moves_targets(state))
        if due is True:
            return self._move_targets(state)
        targets = lambda state: {name: learner.target for name, learner in state.learners.items()}  # noqa: E731
        moved = jax.lax.cond(due, lambda: targets(self._move_targets(state)), lambda: targets(state))
        return state._replace(learners={name: learner._replace(target=moved[name]) for name, learner in state.learners.items()})

    def _noise(self, state: State, shape: tuple[int, ...]) -> tuple[State, Array]:
        """Draw standard normal noise for a gradient step."""
        key, own = jax.random.split(state.key)
        return state._replace(key=key), jax.random.normal(own, shape)

    def _move_targets(self, state: State) -> State:
        moved = {name: learner.move_target(state.learners[name], self.cfg.polyak) for name, learner in self.learners.items()}
        return state._replace(learners=moved)

    def report(self, progress: Progress) -> Diagnostics:
        """Return the metrics that don't belong to single gradient steps."""
        return {"policy/learning_rate": self.now("learning_rate", progress)}

    # -- snapshots -----------------------------------------------------------------------------------------------------

    def snapshot(self, state: State) -> dict[str, Any]:
        """Return everything as arrays and plain data; "policy" is what acting needs, and the critics to go on from."""
        snapshot = super().snapshot(state)
        snapshot["training"] |= {"folded": int(state.folded), "gradient_steps": int(state.gradient_steps)}
        return snapshot

    def restore(self, state: State, snapshot: dict[str, Any]) -> State:
        """Return the state with everything put back; where only "policy" is there, only that, and targets are copies of it."""
        state, training = super().restore(state, snapshot), snapshot.get("training")
        if training is None:
            return state
        folded = 0 if training["memory"] is None else training["folded"]  # a new memory counts anew
        return state._replace(folded=jnp.int32(folded), gradient_steps=jnp.int32(training["gradient_steps"]))

    def _count_rows(self) -> int:
        return (self.memory.timesteps + 1) * self.num_envs

    def _count_gradient_steps(self) -> int:
        cfg = self.cfg
        return cfg.update_interval * self.num_envs if cfg.gradient_steps == "auto" else int(cfg.gradient_steps)

    def rows_learned(self) -> float:
        """Return on how many rows gradient steps learn, per timestep."""
        rows = self.cfg.drawn * max(1, self.cfg.window)
        return rows * self.gradient_steps / self.cfg.update_interval


def _rows(array: Array) -> Array:
    """Return windows (S, T, ...) as rows, timestep by timestep, (T x S, ...)."""
    return array.swapaxes(0, 1).reshape(-1, *array.shape[2:])


def choose_uniform(size: int, noise: Array, masks: Array | None) -> Array:
    """Return of `size` choices, (B,), each allowed one equally likely; `noise` (B,) is uniform."""
    xp = xp_of(noise)
    if masks is None:
        return xp.minimum((noise * np.float32(size)).astype(np.int32), size - 1)
    counts = masks.sum(1)
    nth = xp.minimum((noise * counts.astype(np.float32)).astype(np.int32), counts - 1)
    return (masks.cumsum(1) > nth[:, None]).argmax(1)


def draw_in_range(noise: Array) -> Array:
    """Return actions (N, A) that are uniform in [-1, 1]; `noise` (N, A) is standard normal, whose distribution function it is."""
    scaled = noise * np.float32(0.5**0.5)
    return scipy.special.erf(scaled) if isinstance(noise, np.ndarray) else jax.scipy.special.erf(scaled)
