"""What PPO and A2C have in common in JAX: networks, acting, the rollout, advantages and returns. Pure functions over `State`."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from rltrain import spaces
from rltrain.agents.base import Made
from rltrain.agents.on_policy.config import OnPolicyConfig
from rltrain.backends.jax import RANDOM, JaxBackend, draw, key_of
from rltrain.checks import build
from rltrain.errors import ConfigError
from rltrain.memories.rollout.jax import Rollout, RolloutMemory
from rltrain.models.distributions.jax import make_distribution
from rltrain.models.encoders.jax import features, make_encoder, make_inputs
from rltrain.models.freezing import find_frozen
from rltrain.models.inputs.jax import Inputs
from rltrain.models.networks.jax import ActorCritic
from rltrain.ops import losses, normalizers, schedules
from rltrain.ops.returns.jax import generalized_advantages, running_returns
from rltrain.optimizers.jax import descend
from rltrain.rewards import find_reward_function
from rltrain.seeding import AGENT_ACTOR, AGENT_MINIBATCHES, AGENT_PARAMETERS, seed64
from rltrain.structures import Array, Arrays, Progress, UpdateSchedule

OPTIMIZER_EPSILON = 1e-5

Metrics = dict[str, Array]


class State(NamedTuple):
    """Everything that learning carries."""

    parameters: dict[str, Array]
    optimizer: Any  # optax's
    learning_rate: Array  # ()
    observation_moments: normalizers.Moments
    state_moments: normalizers.Moments | None
    value_moments: normalizers.Moments
    reward_moments: normalizers.Moments
    running_returns: Array  # (N,) discounted sums of rewards in the running episodes
    minibatch_key: Array


class Policy(NamedTuple):
    """The part of it that acting needs."""

    parameters: dict[str, Array]
    observation_moments: normalizers.Moments


class Batch(NamedTuple):
    """One rollout as rows, ready to learn from; B = T x N."""

    inputs: Any  # (B, O) normalised; where there are images, see `Inputs`
    critic_inputs: Any  # (B, S) normalised, or None: the same
    actions: Array  # (B, *A)
    action_masks: Array | None  # (B, M) bool, or None: all are allowed
    advantages: Array  # (B,)
    returns: Array  # (B,) normalised if values are
    values: Array  # (B,) as predicted when acting, in the same units as returns
    weights: Array | None  # (B,) 0 where the row did not happen, or None
    log_probs: Array | None = None  # (B,) when the actions were drawn, where the algorithm compares with them
    statistics: Array | None = None  # (B, K) of the distribution that they were drawn from, where it compares with that


class Evaluation(NamedTuple):
    """What the networks say about a batch."""

    logits: Array  # (B, H) of the distribution: without the choices that were not allowed
    log_probs: Array  # (B,) of the actions
    entropies: Array  # (B,)
    values: Array  # (B,)
    vjp: Any  # takes a loss's `Gradients`, gives the parameters'


class OnPolicy(Made, ABC):
    """Acts by a stochastic policy and collects a rollout; an algorithm says in `_improve` how to learn from it."""

    config: ClassVar[type[OnPolicyConfig]]
    reads_infos = False

    def __init__(
        self,
        observation_space: Any,
        action_space: Any,
        *,
        state_space: Any = None,
        num_envs: int,
        cfg: OnPolicyConfig | dict[str, Any] | None = None,
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
        self.schedule = UpdateSchedule(every=self.cfg.rollout_length)
        self.actor_seed = seed64(seed, AGENT_ACTOR, index)
        self.seeds = [seed64(seed, role, index) for role in (AGENT_PARAMETERS, AGENT_MINIBATCHES)]
        network = self.cfg.network

        normalize = self.cfg.normalize_observations
        network_key = f"{self.key}.network"
        self.inputs = make_inputs(observation_space, network, network_key, normalize=normalize, module=encoder)
        self.critic_inputs: Inputs | None = None
        if state_space is not None and self.cfg.use_states:
            if network.shared:
                raise ConfigError(
                    f"{self.key}.network.shared", True,
                    "the environment has states, which only a critic's own network may read; set shared or use_states to false",
                )  # fmt: skip
            self.critic_inputs = make_inputs(
                state_space, network, network_key, normalize=normalize, module=encoder, space_key="env.state_space"
            )
        self.distribution = make_distribution(action_space, network, network_key)
        critic_inputs = self.critic_inputs or self.inputs
        policy = make_encoder(self.inputs, network, network_key, encoder)
        value = None if network.shared else make_encoder(critic_inputs, network, network_key, encoder)
        self.networks = ActorCritic(
            features(policy, self.inputs), features(value, critic_inputs), self.distribution.size, network, (policy, value)
        )
        self.acts_in_numpy = self.networks.acts_in_numpy
        self.optimizer = self._make_optimizer()
        names = jax.eval_shape(self.init).parameters if network.frozen else ()
        self.frozen = find_frozen(names, network.frozen, network_key)
        self._learn_from_host = jax.jit(self._learn_and_look, donate_argnums=0)

    def _make_optimizer(self) -> optax.GradientTransformation:
        return optax.scale_by_adam(eps=OPTIMIZER_EPSILON)

    def init(self) -> State:
        """Return the state to start from."""
        parameters = self.networks.init(key_of(self.seeds[0]))
        own = {f"policy.{name}": jnp.asarray(parameter) for name, parameter in self.distribution.parameters.items()}
        parameters = {**parameters, **own}
        return State(
            parameters=parameters,
            optimizer=self.optimizer.init(parameters),
            learning_rate=jnp.float32(self.cfg.learning_rate),
            observation_moments=self.inputs.init(),
            state_moments=None if self.critic_inputs is None else self.critic_inputs.init(),
            value_moments=_moments(),
            reward_moments=_moments(),
            running_returns=jnp.zeros(self.num_envs),
            minibatch_key=key_of(self.seeds[1]),
        )

    @property
    def images(self) -> dict[str, Any]:
        """The images in an observation that networks read as such, by path."""
        return self.inputs.images

    # -- acting --------------------------------------------------------------------------------------------------------

    def policy(self, state: State) -> Policy:
        """Return what acting needs."""
        return Policy(state.parameters, state.observation_moments)

    def init_carried(self, num_envs: int) -> None:
        """Nothing is carried from timestep to timestep."""

    def reset_carried(self, carried: None, done: Array) -> None:
        """Nothing that is carried belongs to an episode."""

    def noise(self, num_envs: int) -> tuple[str, tuple[int, ...]]:
        """Return the kind (exponential, normal, uniform) and shape of the random numbers that one step of acting takes."""
        return self.distribution.noise, self.distribution.noise_shape(num_envs)

    def draw(self, key: Array, timestep: Array) -> Array:
        """Return the random numbers that acting takes in this timestep of training."""
        return draw(key, timestep, *self.noise(self.num_envs))

    def act(
        self,
        policy: Policy,
        carried: None,
        noise: Array | None,
        observations: Arrays,
        action_masks: Array | None,
        progress: Progress,
    ) -> tuple[None, Array, dict[str, Array]]:
        """Return actions (N, *A) as the environment takes them, after what the actor carries; exploring, what `record` wants too.

        Without `noise` the likeliest ones, and the logits they were read from. With NumPy arrays everything is computed in NumPy.
        """
        inputs = self.inputs(policy.observation_moments, observations)
        logits = self._logits(policy.parameters, inputs, action_masks)
        if noise is None:
            return None, self.distribution.to_environment(self.distribution.mode(logits)), {"logits": logits}
        actions = self.distribution.sample(logits, noise)
        outputs = {"actions": actions} if action_masks is None else {"actions": actions, "action_masks": action_masks}
        return None, self.distribution.to_environment(actions), outputs

    # -- learning ------------------------------------------------------------------------------------------------------

    def make_memory(self) -> RolloutMemory:
        """Return a memory that stages rows for `update`."""
        return RolloutMemory(self.cfg.rollout_length, self.num_envs)

    def new_memory(self, row: Rollout) -> Rollout:
        """Return a rollout of zeros on the device for rows (N, ...) like this one."""
        return jax.tree.map(lambda row: jnp.zeros((self.cfg.rollout_length, *row.shape), row.dtype), row)

    def record(self, memory: Rollout, row: Rollout, timestep: Array) -> Rollout:
        """Return the rollout with the row (N, ...) of a timestep in its place."""
        position = timestep % self.cfg.rollout_length
        return jax.tree.map(lambda rows, new: rows.at[position].set(new), memory, row)

    def interrupt(self, state: State, memory: RolloutMemory, next_observations: Arrays, next_states: Arrays) -> State:
        """Take the last row recorded of every copy as truncated there, unless its episode ended anyway."""
        memory.truncate(next_observations, next_states)
        return self._forget_running(state) if memory.is_empty else state

    def discard(self, state: State, memory: RolloutMemory) -> State:
        """Drop what was recorded since the last update."""
        memory.clear()
        return self._forget_running(state)

    def _forget_running(self, state: State) -> State:
        return state._replace(running_returns=jnp.zeros_like(state.running_returns))

    def update(self, state: State, memory: RolloutMemory, progress: Progress) -> tuple[State, dict[str, float], bool]:
        """Learn from the full rollout; return diagnostics, means over all gradient steps, and if every parameter is finite."""
        state, looks = self._learn_from_host(state, memory.read(), progress)
        metrics, there, finite = jax.device_get(looks)
        return state, {tag: float(value) for tag, value in metrics.items() if there[tag]}, bool(finite)

    def _learn_and_look(self, state: State, rollout: Rollout, progress: Progress) -> tuple[State, Any]:
        state, metrics, there = self.learn(state, rollout, progress)
        return state, (metrics, there, self.is_finite(state))

    def learn(self, state: State, rollout: Rollout, progress: Progress) -> tuple[State, Metrics, dict[str, Array]]:
        """Learn from the full rollout; return the usual diagnostics, means over all gradient steps, and which there are."""
        learned = jnp.bool_(True)
        if self.inputs.normalize:
            learned = state.observation_moments.count > 0
            shapes = jax.eval_shape(self._learn, state, rollout, progress)[1]
            none = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
            state, metrics = jax.lax.cond(learned, lambda: self._learn(state, rollout, progress), lambda: (state, none))
        else:
            state, metrics = self._learn(state, rollout, progress)
        return self._fold_observations(state, rollout), metrics, dict.fromkeys(metrics, learned)

    def _learn(self, state: State, rollout: Rollout, progress: Progress) -> tuple[State, Metrics]:
        state, batch = self._prepare(state, rollout)
        return self._improve(state, batch, progress)

    @abstractmethod
    def _improve(self, state: State, batch: Batch, progress: Progress) -> tuple[State, Metrics]:
        """Take gradient steps; return metrics."""

    def _prepare(self, state: State, rollout: Rollout) -> tuple[State, Batch]:
        """Turn a rollout into rows with advantages and returns.

        Nothing learned has changed since the rollout began, so what the networks said about it then is computed here at once: a
        batch costs a fraction of its rows one timestep at a time.
        """
        cfg, shape = self.cfg, rollout.rewards.shape
        inputs, critic_inputs = self._read(state, rollout.observations, rollout.states)
        next_inputs, next_critic_inputs = self._read(state, rollout.next_observations, rollout.next_states)
        masks = rollout.outputs.get("action_masks")
        weights = _weights(rollout)

        # ---- successors' values
        values = self._values(state, inputs if critic_inputs is None else critic_inputs).reshape(shape)
        next_values = self._values(state, next_inputs if next_critic_inputs is None else next_critic_inputs).reshape(shape)

        # ---- advantages and returns, in the environment's units
        state, rewards = self._scale_rewards(state, rollout, weights)
        advantages = generalized_advantages(
            rewards, values, next_values, rollout.terminated, rollout.truncated, cfg.discount_factor, cfg.gae_lambda,
        ).reshape(-1)  # fmt: skip
        values = values.reshape(-1)
        returns = advantages + values

        # ---- values and returns in the units the network predicts
        if cfg.normalize_values:
            state = state._replace(value_moments=normalizers.fold(jnp, state.value_moments, returns, weights))
            returns = normalizers.normalize(jnp, state.value_moments, returns)
            values = normalizers.normalize(jnp, state.value_moments, values)
        return state, Batch(
            inputs=inputs,
            critic_inputs=critic_inputs,
            actions=_flat(rollout.outputs["actions"]),
            action_masks=None if masks is None else _flat(masks),
            advantages=losses.standardize(jnp, advantages, weights) if cfg.standardize_advantages else advantages,
            returns=returns,
            values=values,
            weights=weights,
        )

    def _scale_rewards(self, state: State, rollout: Rollout, weights: Array | None) -> tuple[State, Array]:
        """Return the rewards to learn from (T, N): normalised, scaled, clipped, as far as the settings say."""
        cfg, rewards = self.cfg, rollout.rewards
        if cfg.normalize_rewards:
            done = rollout.terminated | rollout.truncated
            happened = rewards if rollout.valid is None else rewards * rollout.valid
            sums, after = running_returns(happened, done, state.running_returns, cfg.discount_factor)
            moments = normalizers.fold(jnp, state.reward_moments, sums.reshape(-1), weights)
            state = state._replace(reward_moments=moments, running_returns=after)
            rewards = rewards / normalizers.scale(jnp, moments)
        if cfg.reward_scale != 1:
            rewards = rewards * cfg.reward_scale
        return state, rewards if cfg.reward_clip is None else jnp.clip(rewards, -cfg.reward_clip, cfg.reward_clip)

    def _evaluate(self, state: State, batch: Batch) -> Evaluation:
        """Return what the networks say about a batch."""
        critic_inputs = batch.inputs if batch.critic_inputs is None else batch.critic_inputs

        def evaluate(parameters: dict[str, Array]) -> tuple[losses.Gradients, Array]:
            outputs, values = self.networks.logits_and_values(parameters, batch.inputs, critic_inputs)
            logits = self._masked(self._complete(outputs, parameters), batch.action_masks)
            log_probs, entropies = self.distribution.log_prob_and_entropy(logits, batch.actions)
            return losses.Gradients(log_probs, values, entropies), logits

        said, vjp, logits = jax.vjp(evaluate, state.parameters, has_aux=True)
        return Evaluation(logits, said.log_probs, said.entropies, said.values, vjp)

    def _descend(
        self, state: State, evaluation: Evaluation, gradients: losses.Gradients, learning_rate: Array
    ) -> tuple[State, Array]:
        """Step down a loss, given its gradients with respect to log-probabilities, values and entropies; return their norm."""
        parameters, optimizer, norm = descend(
            self.optimizer,
            state.optimizer,
            state.parameters,
            evaluation.vjp(gradients)[0],
            learning_rate=learning_rate,
            max_norm=self.cfg.grad_norm_clip,
            frozen=self.frozen,
        )
        return state._replace(parameters=parameters, optimizer=optimizer), norm

    def _now(self, name: str, progress: Progress) -> Array:
        """Return the value of setting `name` according to its schedule."""
        cfg = self.cfg
        done = schedules.fraction(jnp, progress, cfg.rollout_length)
        kind, end = getattr(cfg, f"{name}_schedule"), getattr(cfg, f"{name}_end")
        return jnp.float32(schedules.scheduled(jnp, kind, getattr(cfg, name), end, done))

    def _report(self, state: State, batch: Batch) -> Metrics:
        """Return the metrics that don't belong to single gradient steps."""
        explained = losses.explained_variance(jnp, batch.values, batch.returns, batch.weights)
        return {
            "value/explained_variance": explained,
            "policy/learning_rate": state.learning_rate,
            **{f"policy/{name}": state.parameters[f"policy.{name}"].mean() for name in self.distribution.parameters},
        }

    def _fold_observations(self, state: State, rollout: Rollout) -> State:
        """Fold the raw rollout into the statistics, which were frozen since its first act."""
        weights = _weights(rollout)
        state = state._replace(
            observation_moments=self.inputs.fold(state.observation_moments, _rows(rollout.observations), weights)
        )
        if self.critic_inputs is not None:
            moments = self.critic_inputs.fold(state.state_moments, _rows(rollout.states), weights)  # type: ignore[arg-type]
            state = state._replace(state_moments=moments)
        return state

    def _read(self, state: State, observations: Arrays, states: Arrays) -> tuple[Any, Any]:
        """Return the networks' inputs (B, O) and, where the critic has its own, (B, S) for a rollout's rows (T, N, ...)."""
        inputs = self.inputs(state.observation_moments, _rows(observations))
        if self.critic_inputs is None:
            return inputs, None
        return inputs, self.critic_inputs(state.state_moments, _rows(states))  # type: ignore[arg-type]

    def _logits(self, parameters: dict[str, Array], inputs: Any, masks: Array | None) -> Array:
        return self._masked(self._complete(self.networks.logits(parameters, inputs), parameters), masks)

    def _complete(self, outputs: Array, parameters: dict[str, Array]) -> Array:
        return self.distribution.complete(outputs, {name: parameters[f"policy.{name}"] for name in self.distribution.parameters})

    def _masked(self, logits: Array, masks: Array | None) -> Array:
        return logits if masks is None else self.distribution.mask(logits, masks)  # type: ignore[union-attr]

    def _values(self, state: State, critic_inputs: Any) -> Array:
        """Return values (B,) in the environment's units."""
        values = self.networks.values(state.parameters, critic_inputs)
        return normalizers.denormalize(jnp, state.value_moments, values) if self.cfg.normalize_values else values

    # -- keeping -------------------------------------------------------------------------------------------------------

    def is_finite(self, state: State) -> Array:
        """Tell whether every parameter is finite; a sum is, unless a term isn't."""
        return jnp.isfinite(sum(parameter.sum() for parameter in jax.tree.leaves(state.parameters)))

    def snapshot(self, state: State) -> dict[str, Any]:
        """Return everything as arrays and plain data; "policy" is what acting needs."""
        policy = {
            "parameters": _to_arrays(state.parameters),
            "observation_moments": _to_arrays(state.observation_moments._asdict()),
            "value_moments": _to_arrays(state.value_moments._asdict()),
        }
        if state.state_moments is not None:
            policy["state_moments"] = _to_arrays(state.state_moments._asdict())
        training = {
            "optimizer": [np.array(leaf) for leaf in jax.tree.leaves(state.optimizer)],
            "learning_rate": float(state.learning_rate),
            "minibatch_key": np.array(jax.random.key_data(state.minibatch_key)),
            "reward_moments": _to_arrays(state.reward_moments._asdict()),
            "running_returns": np.array(state.running_returns),
        }
        return {"policy": policy, "training": training}

    def restore(self, state: State, snapshot: dict[str, Any]) -> State:
        """Return the state with everything put back; a snapshot that holds only "policy" restores only that."""
        policy = snapshot["policy"]
        state = state._replace(
            parameters=_fit(state.parameters, policy["parameters"]),
            observation_moments=_from_arrays(policy["observation_moments"]),
            value_moments=_from_arrays(policy["value_moments"]),
        )
        if state.state_moments is not None:
            state = state._replace(state_moments=_from_arrays(policy["state_moments"]))
        if "training" not in snapshot:
            return state
        training = snapshot["training"]
        leaves, structure = jax.tree.flatten(state.optimizer)
        if len(leaves) != len(training["optimizer"]):
            raise ValueError("the optimizer there is of another kind")
        return state._replace(
            optimizer=jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in training["optimizer"]]),
            learning_rate=self._restored_learning_rate(training["learning_rate"]),
            minibatch_key=jax.random.wrap_key_data(jnp.asarray(training["minibatch_key"]), impl=RANDOM),
            reward_moments=_from_arrays(training["reward_moments"]),
            running_returns=jnp.asarray(training["running_returns"]),
        )

    def _restored_learning_rate(self, learning_rate: float) -> Array:
        """Return a learning rate that is state as it was; one that is a setting as it is set now."""
        return jnp.float32(self.cfg.learning_rate)

    def describe(self) -> dict[str, Any]:
        """Return parameters, memory in bytes of a full rollout, gradient steps per update."""
        row = self.inputs.row_bytes + 8 * max(1, int(np.prod(self.distribution.action_shape))) + 7
        row += 0 if self.critic_inputs is None else self.critic_inputs.row_bytes
        parameters = jax.eval_shape(lambda: self.init().parameters)
        return {
            "parameters": sum(int(np.prod(parameter.shape)) for parameter in parameters.values()),
            "memory_bytes": row * self.cfg.rollout_length * self.num_envs,
            "gradient_steps_per_update": self._gradient_steps(),
        }

    def operations(self) -> float:
        """Return about how many sums and products learning takes per timestep."""
        return 6.0 * self.describe()["parameters"] * self.num_envs * self._epochs()

    def _gradient_steps(self) -> int:
        return 1

    def _epochs(self) -> int:
        return 1


def _flat(array: Array) -> Array:
    return array.reshape(-1, *array.shape[2:])


def _rows(arrays: Arrays) -> Arrays:
    return spaces.map_arrays(_flat, arrays)


def _weights(rollout: Rollout) -> Array | None:
    return None if rollout.valid is None else rollout.valid.reshape(-1).astype(jnp.float32)


def _moments() -> normalizers.Moments:
    return normalizers.Moments(jnp.zeros(()), jnp.ones(()), jnp.zeros(()))


def _to_arrays(arrays: dict[str, Array]) -> dict[str, np.ndarray]:
    return {name: np.array(array) for name, array in arrays.items()}


def _from_arrays(arrays: dict[str, np.ndarray]) -> normalizers.Moments:
    return normalizers.Moments(**{name: jnp.asarray(array) for name, array in arrays.items()})


def _fit(parameters: dict[str, Array], arrays: dict[str, np.ndarray]) -> dict[str, Array]:
    for name, parameter in parameters.items():
        if name not in arrays:
            raise ValueError(f"{name} is not there; it has {', '.join(list(arrays)[:3])}, ...")
        if arrays[name].shape != parameter.shape:
            raise ValueError(f"{name} has shape {arrays[name].shape} there and {parameter.shape} here")
    return {name: jnp.asarray(arrays[name]) for name in parameters}
