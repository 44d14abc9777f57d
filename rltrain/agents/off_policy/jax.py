"""What DQN, DDPG, SAC and what extends them have in common in JAX: warm-up, targets, the steps of an update.

Pure functions over `State`. A memory on the device is drawn from in `learn`; one on the host, by `UpdateFromHost`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from flax import linen as nn

from rltrain.agents.base import Made
from rltrain.agents.off_policy.config import OffPolicyConfig
from rltrain.agents.off_policy.learners.jax import Batch, Diagnostics, Learner, Policy, State, Tally
from rltrain.agents.off_policy.updates.jax import UpdateFromHost
from rltrain.backends.jax import RANDOM, JaxBackend, draw, key_of
from rltrain.checks import build
from rltrain.memories.replay.host import Replay, Sample
from rltrain.memories.replay.jax import ReplayMemory, ReplayOnDevice, Transitions
from rltrain.memories.rollout.jax import Rollout
from rltrain.models.encoders.jax import Encoder, make_encoder, make_inputs
from rltrain.models.freezing import find_frozen
from rltrain.ops import losses, normalizers, schedules
from rltrain.rewards import find_reward_function
from rltrain.seeding import AGENT_ACTOR, AGENT_MINIBATCHES, AGENT_PARAMETERS, seed64
from rltrain.structures import Array, Arrays, Progress, UpdateSchedule

STEPS_AT_ONCE = 64  # gradient steps whose batches are drawn on the host for one compiled call


class OffPolicy(Made, ABC):
    """Collects transitions in a memory and learns from batches of them; an algorithm says in `_improve` how."""

    config: ClassVar[type[OffPolicyConfig]]
    reads_infos = False
    acts_with: ClassVar[str]  # the learner whose parameters acting needs
    distribution: Any  # from actions as they are learned to what the environment takes; `_build` makes it

    def __init__(
        self,
        observation_space: Any,
        action_space: Any,
        *,
        state_space: Any = None,
        num_envs: int,
        cfg: OffPolicyConfig | dict[str, Any] | None = None,
        seed: int = 0,
        index: int = 0,
        backend: JaxBackend | None = None,
        key: str | None = None,
        encoder: nn.Module | None = None,
    ) -> None:
        self.key = key or f"agents.{type(self).__name__.lower()}"
        self.cfg: Any = build(self.config, cfg, self.key)
        self.backend = backend or JaxBackend()
        self.num_envs = num_envs
        self.reward_function = find_reward_function(self.cfg.reward_function, self.key, jax.jit)
        self.schedule = UpdateSchedule(learning_starts=self.cfg.learning_starts, every=self.cfg.update_interval)
        self.actor_seed = seed64(seed, AGENT_ACTOR, index)
        self.seeds = [seed64(seed, AGENT_PARAMETERS, index), seed64(seed, AGENT_MINIBATCHES, index)]
        self.memory_seed = seed64(seed, AGENT_MINIBATCHES, index, 1)
        cfg = self.cfg

        self.encoder = encoder  # a ready-made one, of which each network has parameters of its own
        settings: Any = self.cfg
        network, normalize = settings.network, settings.normalize_observations
        self.inputs = make_inputs(observation_space, network, f"{self.key}.network", normalize=normalize, module=encoder)
        self.learners: dict[str, Learner] = {}
        self._build(action_space)
        if network.frozen:
            self._freeze(network.frozen)
        self.acts_in_numpy = self.learners[self.acts_with].network.acts_in_numpy

        self.gradient_steps = cfg.update_interval * num_envs if cfg.gradient_steps == "auto" else int(cfg.gradient_steps)
        parts = self.gradient_steps if cfg.prioritized else -(-self.gradient_steps // STEPS_AT_ONCE)
        self.at_once = -(-self.gradient_steps // parts)  # priorities of a step's batch depend on the step before
        self._memory_settings: dict[str, Any] = {
            "discount_factor": cfg.discount_factor, "n_steps": cfg.n_steps, "reward_scale": cfg.reward_scale,
            "reward_clip": cfg.reward_clip,
        }  # fmt: skip
        self.memory = ReplayOnDevice(cfg.memory_size, num_envs, **self._memory_settings)
        timesteps = max(min(cfg.learning_starts + 1, self.memory.timesteps), -(-cfg.batch_size // num_envs))
        self.least = timesteps * num_envs  # transitions that learning takes
        self._learn_on_device = jax.jit(self._learn_and_look, donate_argnums=0)
        self._update_from_host = UpdateFromHost(self)

    @abstractmethod
    def _build(self, action_space: Any) -> None:
        """Make the networks and put them into `learners`.

        Raises ConfigError for an action space that the algorithm doesn't act in.
        """

    def _freeze(self, entries: list[str]) -> None:
        """Let parameters whose names have these parts stay as they are."""
        states = jax.eval_shape(self.init).learners.values()
        names = [name for state in states for name in state.parameters]
        frozen = find_frozen(names, entries, f"{self.key}.network")
        for learner in self.learners.values():
            learner.frozen = frozen

    def _encoder(self) -> Encoder | None:
        """Return what makes features for one network, or None where inputs are rows of numbers."""
        return make_encoder(self.inputs, self.cfg.network, f"{self.key}.network", self.encoder)

    def init(self) -> State:
        """Return the state to start from."""
        keys = jax.random.split(key_of(self.seeds[0]), len(self.learners))
        return State(
            learners={name: learner.init(key) for key, (name, learner) in zip(keys, self.learners.items(), strict=True)},
            observation_moments=self.inputs.init(),
            key=key_of(self.seeds[1]),
            folded=jnp.int32(0),
            gradient_steps=jnp.int32(0),
        )

    @property
    def images(self) -> dict[str, Any]:
        """The images in an observation that networks read as such, by path."""
        return self.inputs.images

    # -- acting --------------------------------------------------------------------------------------------------------

    def policy(self, state: State) -> Policy:
        """Return what acting needs."""
        return Policy(state.learners[self.acts_with].parameters, state.observation_moments)

    def init_carried(self, num_envs: int) -> Array | None:
        """Return what the actor carries from timestep to timestep, (N, A), where the algorithm has such."""
        return None

    def reset_carried(self, carried: Array | None, done: Array) -> Array | None:
        """Begin the noise of episodes that ended anew."""
        return carried if carried is None else _xp(carried).where(done[:, None], np.float32(0), carried)

    @abstractmethod
    def noise(self, num_envs: int) -> tuple[str, tuple[int, ...]]:
        """Return the kind and shape of the random numbers that one step of acting takes; see `rltrain.backends.jax.draw`."""

    def draw(self, key: Array, timestep: Array) -> Array:
        """Return the random numbers that acting takes in this timestep of training."""
        return draw(key, timestep, *self.noise(self.num_envs))

    def act(
        self,
        policy: Policy,
        carried: Array | None,
        noise: Array | None,
        observations: Arrays,
        action_masks: Array | None,
        progress: Progress,
    ) -> tuple[Array | None, Array, dict[str, Array]]:
        """Return what the actor carries on, actions (N, *A) as the environment takes them and what `record` wants back.

        Without `noise` the best ones, and the logits they were read from. With NumPy arrays everything is computed in NumPy.
        """
        if noise is None:
            inputs = self.inputs(policy.observation_moments, observations)
            logits = self._logits(policy.parameters, inputs, action_masks)
            return carried, self._to_environment(self._best(logits)), {"logits": logits}
        warms_up = progress.timestep < self.cfg.learning_starts
        if warms_up is True:
            actions = self._draw_uniform(noise, action_masks)
        else:
            inputs = self.inputs(policy.observation_moments, observations)
            following, actions = self._explore(policy.parameters, carried, noise, inputs, action_masks, progress)
            if warms_up is not False:
                actions = jnp.where(warms_up, self._draw_uniform(noise, action_masks), actions)
                following = jax.tree.map(lambda new, old: jnp.where(warms_up, old, new), following, carried)
            carried = following
        outputs = {"actions": actions} if action_masks is None else {"actions": actions, "action_masks": action_masks}
        return carried, self._to_environment(actions), outputs

    @abstractmethod
    def _logits(self, parameters: dict[str, Array], inputs: Array, action_masks: Array | None) -> Array:
        """Return what the network gives for these inputs that `_best` reads an action from."""

    @abstractmethod
    def _best(self, logits: Array) -> Array:
        """Return the actions that look best."""

    def _choose(self, parameters: dict[str, Array], inputs: Array, action_masks: Array | None) -> Array:
        return self._best(self._logits(parameters, inputs, action_masks))

    @abstractmethod
    def _explore(
        self, parameters: dict[str, Array], carried: Array | None, noise: Array, inputs: Array, action_masks: Array | None,
        progress: Progress,
    ) -> tuple[Array | None, Array]:  # fmt: skip
        """Return what the actor carries on and actions to learn from."""

    @abstractmethod
    def _draw_uniform(self, noise: Array, action_masks: Array | None) -> Array:
        """Return actions that are all equally likely."""

    @abstractmethod
    def _to_environment(self, actions: Array) -> Array:
        """Return actions as the environment takes them."""

    # -- learning ------------------------------------------------------------------------------------------------------

    def make_memory(self) -> ReplayMemory:
        """Return a memory for `update`."""
        cfg = self.cfg
        on_host = Replay(
            cfg.memory_size, self.num_envs, self.memory_seed, **self._memory_settings,
            priority_exponent=cfg.priority_exponent if cfg.prioritized else None,
            mapped=cfg.memory_mapped, directory=cfg.memory_directory, key=self.key,
        )  # fmt: skip
        return ReplayMemory(on_host, self.memory, self._why_not_on_device())

    def _why_not_on_device(self) -> str:
        if self.cfg.prioritized:
            return f"{self.key}.prioritized=true draws from a memory on the host"
        if self.cfg.memory_mapped == "true":
            return f"{self.key}.memory_mapped=true keeps the memory on the host"
        return ""

    def new_memory(self, row: Rollout) -> Transitions:
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

    def update(self, state: State, memory: ReplayMemory, progress: Progress) -> tuple[State, dict[str, float], bool]:
        """Take the gradient steps that are due; return diagnostics, means over them, and if every parameter is finite.

        Nothing is learned before the memory holds a batch, and as many timesteps as learning starts after: after a resume
        without the memory it fills first.
        """
        if memory.rows is not None:
            state, looks = self._learn_on_device(state, memory.rows, progress)
            found, there, finite = jax.device_get(looks)
            return state, {tag: float(value) for tag, value in found.items() if there[tag]}, bool(finite)
        cfg, host = self.cfg, memory.host
        if host.count < cfg.batch_size or host.filled < min(cfg.learning_starts + 1, host.timesteps):
            return state, {}, True
        return self._update_from_host(state, host, *memory.take_counts(), progress)

    def _learn_and_look(self, state: State, memory: Transitions, progress: Progress) -> tuple[State, Any]:
        state, found, there = self.learn(state, memory, progress)
        return state, (found, there, self.is_finite(state))

    def learn(self, state: State, memory: Transitions, progress: Progress) -> tuple[State, Diagnostics, dict[str, Array]]:
        """Take the gradient steps that are due on a memory on the device; return means over them, and which there are."""
        shapes = jax.eval_shape(self._learn, state, memory, progress)[1]
        none = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        learn = lambda: self._learn(state, memory, progress)  # noqa: E731
        is_due = memory.filled * self.num_envs >= self.least
        state, (found, there) = jax.lax.cond(is_due, learn, lambda: (state, none))
        return state, found, there

    def _learn(self, state: State, memory: Transitions, progress: Progress) -> tuple[State, Any]:
        state = self._fold_observations(state, memory)
        key, own = jax.random.split(state.key)
        steps = self.gradient_steps
        rows = self.memory.draw_rows(memory, own, steps * self.cfg.batch_size).reshape(steps, -1)
        batch = lambda k: self.memory.read(memory, rows[k])  # noqa: E731
        state, tally, _ = self.improve(state._replace(key=key), batch, steps, True, progress)
        always = {tag: total / steps for tag, total in tally.every.items()} | self._report(progress)
        always |= {
            "replay/ratio": jnp.float32(steps / (self.cfg.update_interval * self.num_envs)),
            "replay/size": (memory.filled * self.num_envs).astype(jnp.float32),
        }
        some = {tag: total / jnp.maximum(tally.count, 1) for tag, total in tally.some.items()}
        there = dict.fromkeys(always, jnp.bool_(True)) | dict.fromkeys(some, tally.count > 0)
        return state, (always | some, there)

    def improve(
        self, state: State, batch: Callable[[int | Array], Sample], steps: int | Array, finishes: bool | Array, progress: Progress
    ) -> tuple[State, Tally, Array]:
        """Take gradient steps 0 ... `steps` - 1, each on `batch`(k) (B, ...); tell if they `finish` an update.

        Return diagnostics, summed over them, and the last one's errors (B,).
        """
        # ---- learning rates
        rates = self._learning_rates(progress)

        def take(k: int | Array, state: State) -> tuple[State, Tally, Array]:
            # ---- batch
            ready = self._prepare(state, batch(k))
            # ---- step
            state = state._replace(gradient_steps=state.gradient_steps + 1)
            state, found, errors = self._improve(state, ready, rates)
            # ---- targets
            is_last = finishes & (k == steps - 1)
            return self._move_targets_if_due(state, progress, is_last), found, errors

        if self.at_once == 1:
            return take(0, state)

        def add(k: Array, carry: tuple[State, Tally, Array]) -> tuple[State, Tally, Array]:
            state, tally, errors = take(k, carry[0])
            return state, jax.tree.map(jnp.add, carry[1], tally), errors

        shapes = jax.eval_shape(take, 0, state)[1:]
        zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        return jax.lax.fori_loop(0, steps, add, (state, *zeros))

    @abstractmethod
    def _improve(self, state: State, batch: Batch, rates: dict[str, Array]) -> tuple[State, Tally, Array]:
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

    def _regress(
        self, state: State, name: str, values: Any, targets: Array, batch: Batch, learning_rate: Array
    ) -> tuple[State, Diagnostics, Array]:
        """Step down the loss of `values`(parameters) (C, B), of C critics, against targets; return their differences too.

        The loss is summed over critics, the weighted mean over rows.
        """
        found, vjp = jax.vjp(values, state.learners[name].parameters)
        differences = found - targets
        errors, gradients = losses.temporal_difference_loss(jnp, differences, self.cfg.loss)
        if batch.weights is not None:
            errors, gradients = errors * batch.weights, gradients * batch.weights
        state, norm = self._descend(state, name, vjp(gradients / len(batch.returns)), learning_rate)
        diagnostics = {
            "loss/q": errors.mean(), "value/q_mean": found.mean(), "value/grad_norm": norm, "value/target_mean": targets.mean(),
        }  # fmt: skip
        return state, diagnostics, differences

    def _descend(self, state: State, name: str, gradients: tuple[dict[str, Array]], learning_rate: Array) -> tuple[State, Array]:
        """Let a learner take one step; return the gradient's norm."""
        learner, norm = self.learners[name].step(state.learners[name], gradients[0], learning_rate, self.cfg.grad_norm_clip)
        return state._replace(learners={**state.learners, name: learner}), norm

    def _fold_observations(self, state: State, memory: Transitions) -> State:
        """Fold the observations since the last update into the statistics: acting and learning share them until the next."""
        if not self.inputs.normalize:
            return state
        every, timesteps = self.cfg.update_interval, self.memory.timesteps
        unfolded = jnp.minimum(memory.recorded - state.folded, memory.filled)
        warm_up = max(self.cfg.learning_starts + 1, -(-self.cfg.batch_size // self.num_envs)) + every

        def fold(most: int) -> normalizers.Moments:
            weights = jnp.repeat(jnp.arange(most) >= most - unfolded, self.num_envs).astype(jnp.float32)
            return self.inputs.fold(state.observation_moments, self.memory.newest(memory, most), weights)

        few, many = min(every, timesteps), min(warm_up, timesteps)
        moments = jax.lax.cond(unfolded > few, lambda: fold(many), lambda: fold(few))
        return state._replace(observation_moments=moments, folded=memory.recorded)

    def _learning_rates(self, progress: Progress) -> dict[str, Array]:
        """Return every optimiser's learning rate of now; all follow the one schedule."""
        now = self._now("learning_rate", progress, self.cfg.update_interval)
        own = {name: getattr(self.cfg, f"{name}_learning_rate", None) for name in self.learners}
        return {name: now if rate is None else now * (rate / self.cfg.learning_rate) for name, rate in own.items()}

    def _now(self, name: str, progress: Progress, every: int) -> Any:
        """Return the value of setting `name` according to its schedule, for what happens once in `every` timesteps."""
        cfg, xp = self.cfg, np if isinstance(progress.timestep, int) else jnp
        done = schedules.fraction(xp, progress, every)
        kind, end = getattr(cfg, f"{name}_schedule"), getattr(cfg, f"{name}_end")
        return xp.float32(schedules.scheduled(xp, kind, getattr(cfg, name), end, done))

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
        found = jax.lax.cond(due, lambda: targets(self._move_targets(state)), lambda: targets(state))
        return state._replace(learners={name: learner._replace(target=found[name]) for name, learner in state.learners.items()})

    def _noise(self, state: State, shape: tuple[int, ...]) -> tuple[State, Array]:
        """Draw standard normal noise for a gradient step."""
        key, own = jax.random.split(state.key)
        return state._replace(key=key), jax.random.normal(own, shape)

    def _move_targets(self, state: State) -> State:
        moved = {name: learner.move_target(state.learners[name], self.cfg.polyak) for name, learner in self.learners.items()}
        return state._replace(learners=moved)

    def _report(self, progress: Progress) -> Diagnostics:
        """Return the metrics that don't belong to single gradient steps."""
        return {"policy/learning_rate": self._now("learning_rate", progress, self.cfg.update_interval)}

    # -- keeping -------------------------------------------------------------------------------------------------------

    def is_finite(self, state: State) -> Array:
        """Tell whether every parameter is finite; a sum is, unless a term isn't."""
        parameters = [learner.parameters for learner in state.learners.values()]
        return jnp.isfinite(sum(parameter.sum() for parameter in jax.tree.leaves(parameters)))

    def snapshot(self, state: State) -> dict[str, Any]:
        """Return everything as arrays and plain data; "policy" is what acting needs, and the critics to go on from."""
        parameters: dict[str, np.ndarray] = {}
        for learner in state.learners.values():
            parameters |= _to_arrays(learner.parameters)
        policy = {"parameters": parameters, "observation_moments": _to_arrays(state.observation_moments._asdict())}
        training = {
            "optimizers": {
                name: [np.array(leaf) for leaf in jax.tree.leaves(learner.optimizer)] for name, learner in state.learners.items()
            },
            "targets": {
                name: _to_arrays(learner.target) for name, learner in state.learners.items() if learner.target is not None
            },
            "key": np.array(jax.random.key_data(state.key)),
            "folded": int(state.folded),
            "gradient_steps": int(state.gradient_steps),
        }
        return {"policy": policy, "training": training}

    def restore(self, state: State, snapshot: dict[str, Any]) -> State:
        """Return the state with everything put back; where only "policy" is there, only that, and targets are copies of it."""
        policy, training = snapshot["policy"], snapshot.get("training")
        learners = {}
        for name, learner in self.learners.items():
            before = state.learners[name]
            after = before._replace(parameters=_fit(before.parameters, policy["parameters"]))
            if training is not None:
                leaves, structure = jax.tree.flatten(before.optimizer)
                there = training["optimizers"][name]
                if len(leaves) != len(there):
                    raise ValueError("the optimizer there is of another kind")
                after = after._replace(optimizer=jax.tree.unflatten(structure, [jnp.array(leaf) for leaf in there]))
            if learner.has_target:
                target = policy["parameters"] if training is None else training["targets"][name]
                after = after._replace(target=_fit(before.parameters, target))
            learners[name] = after
        moments = normalizers.Moments(**{name: jnp.array(array) for name, array in policy["observation_moments"].items()})
        state = state._replace(learners=learners, observation_moments=moments)
        if training is None:
            return state
        folded = 0 if training["memory"] is None else training["folded"]  # a new memory counts anew
        return state._replace(
            key=jax.random.wrap_key_data(jnp.asarray(training["key"]), impl=RANDOM),
            folded=jnp.int32(folded),
            gradient_steps=jnp.int32(training["gradient_steps"]),
        )

    def describe(self, memory: ReplayMemory | None = None) -> dict[str, Any]:
        """Return parameters, memory in bytes when it is full, gradient steps per update; `memory` is one that is shared."""
        rows = (self.memory.timesteps + 1) * self.num_envs if memory is None else memory.capacity
        row = self.inputs.row_bytes + 8 * max(1, int(np.prod(self.distribution.action_shape))) + 11
        return {
            "parameters": self._count_parameters(),
            "memory_bytes": row * rows,
            "gradient_steps_per_update": self.gradient_steps,
        }

    def operations(self) -> float:
        """Return about how many sums and products learning takes per timestep."""
        return 6.0 * self._count_parameters() * self.cfg.batch_size * self.gradient_steps / self.cfg.update_interval

    def _count_parameters(self) -> int:
        learners = jax.eval_shape(self.init).learners.values()
        return sum(int(np.prod(array.shape)) for learner in learners for array in learner.parameters.values())


def choose_uniform(size: int, noise: Array, masks: Array | None) -> Array:
    """Return of `size` choices, (B,), each allowed one equally likely; `noise` (B,) is uniform."""
    xp = _xp(noise)
    if masks is None:
        return xp.minimum((noise * np.float32(size)).astype(np.int32), size - 1)
    counts = masks.sum(1)
    nth = xp.minimum((noise * counts.astype(np.float32)).astype(np.int32), counts - 1)
    return (masks.cumsum(1) > nth[:, None]).argmax(1)


def draw_in_range(noise: Array) -> Array:
    """Return actions (N, A) that are uniform in [-1, 1]; `noise` (N, A) is standard normal, whose distribution function it is."""
    scaled = noise * np.float32(0.5**0.5)
    return scipy.special.erf(scaled) if isinstance(noise, np.ndarray) else jax.scipy.special.erf(scaled)


def _xp(array: Array) -> ModuleType:
    return np if isinstance(array, np.ndarray) else jnp


def _to_arrays(arrays: dict[str, Array]) -> dict[str, np.ndarray]:
    return {name: np.array(array) for name, array in arrays.items()}


def _fit(parameters: dict[str, Array], arrays: dict[str, np.ndarray]) -> dict[str, Array]:
    for name, parameter in parameters.items():
        if name not in arrays:
            raise ValueError(f"{name} is not there; it has {', '.join(list(arrays)[:3])}, ...")
        if arrays[name].shape != parameter.shape:
            raise ValueError(f"{name} has shape {arrays[name].shape} there and {parameter.shape} here")
    return {name: jnp.array(arrays[name]) for name in parameters}
