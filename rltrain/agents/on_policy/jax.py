"""What PPO and A2C have in common in JAX: an actor-critic, the rollout, advantages and returns. Pure functions over `State`."""

import functools
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rltrain import spaces
from rltrain.agents.algorithm.jax import BaseAlgorithm
from rltrain.agents.learners.jax import Learner
from rltrain.agents.on_policy.config import OnPolicyConfig
from rltrain.agents.on_policy.saved import upgraded
from rltrain.agents.pure.jax import Metrics
from rltrain.agents.pure.protocol import LearnerState, Policy
from rltrain.backends.jax import key_of
from rltrain.memories.rollout.jax import Rollout, RolloutMemory
from rltrain.models.distributions.jax import make_distribution
from rltrain.models.networks.jax import ActorCritic
from rltrain.ops import losses, normalizers
from rltrain.ops.returns.jax import generalized_advantages, running_returns
from rltrain.ops.trees.jax import to_arrays, to_moments, zeros_like
from rltrain.structures import Acting, Array, Arrays, Progress

EPSILON = 1e-5  # of the optimiser
BLOCK = 32  # timesteps of a rollout to unroll at once, at most


class State(NamedTuple):
    """Everything that learning carries."""

    learners: dict[str, LearnerState]
    learning_rate: Array  # ()
    observation_moments: normalizers.Moments
    state_moments: normalizers.Moments | None
    value_moments: normalizers.Moments
    reward_moments: normalizers.Moments
    running_returns: Array  # (N,) discounted sums of rewards in the running episodes
    key: Array  # of minibatches
    carries: Any  # what networks remember before the rollout's first row, one for each of them; None, where they don't


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
    outputs: Array | None = None  # (B, F) of the policy that acted, where networks remember
    starts: Array | None = None  # (B,) bool, where networks remember: a row that begins an episode
    carries: Any = None  # what each of them remembers before each of S sequences of rows, arrays (S, layers, H)

    def shuffle(self, order: Array, parts: int, length: int = 1) -> list["Batch"]:
        """Return minibatches (P, B, ...) of sequences of `length` rows in `order` to scan over.

        Remainders are spread: the first ones have a sequence more.
        """
        sequences = len(self.returns) // length
        size, longer = divmod(sequences, parts)
        cut = longer * (size + 1)
        groups = [(slice(0, cut), longer, size + 1), (slice(cut, sequences), parts - longer, size)]

        def take(array: Array, part: slice, count: int, size: int) -> Array:
            if len(array) == sequences:
                return array[order][part].reshape(count, size, *array.shape[1:])
            rows = array.reshape(sequences, length, *array.shape[1:])[order][part]
            return rows.reshape(count, size * length, *array.shape[1:])

        return [jax.tree.map(functools.partial(take, part=part, count=n, size=k), self) for part, n, k in groups if n]


class Evaluation(NamedTuple):
    """What the networks say about a batch."""

    logits: Array  # (B, F) of the distribution: without the choices that were not allowed
    log_probs: Array  # (B,) of the actions
    entropies: Array  # (B,)
    values: Array  # (B,)
    vjp: Callable[[losses.Gradients], dict[str, Array]]  # takes a loss's gradients, gives the parameters' by name


class OnPolicy(BaseAlgorithm):
    """Acts by a stochastic policy and collects a rollout; an algorithm says in `improve` how to learn from it."""

    config: ClassVar[type[OnPolicyConfig]]
    row_bytes = 7
    acts_with = "actor_critic"

    @property
    def sequence_length(self) -> int:
        """How many rows of a copy stay together in minibatches: one, unless networks remember."""
        return (self.cfg.sequence_length or self.cfg.rollout_length) if self.remembers else 1

    def _build(self, action_space: Any) -> None:
        cfg = self.cfg.network
        self.distribution = make_distribution(action_space, cfg, f"{self.key}.network")
        critic_inputs = self.critic_inputs or self.inputs
        policy = self._make_encoder(self.inputs)
        value = None if cfg.shared else self._make_encoder(critic_inputs)
        sizes = self._count_features(policy, self.inputs), self._count_features(value, critic_inputs)
        self.networks = self.acting = ActorCritic(*sizes, self.distribution.size, cfg, (policy, value))
        self.learners = self.make_learners(self.own_parameters())

    def own_parameters(self) -> dict[str, Any]:
        """Return the distribution's own parameters by name, as they are at first."""
        return {f"policy.{name}": own for name, own in self.distribution.parameters.items()}

    def make_learners(self, own: dict[str, Any]) -> dict[str, Learner]:
        """Return what learns: one network and one optimiser; `own` are the distribution's parameters by name.

        With several, one of each part of `networks`, each is clipped and takes its steps by itself.
        """
        return {"actor_critic": Learner(self.networks, more=own, epsilon=EPSILON)}

    def init(self) -> State:
        """Return the state to start from."""
        carries = None
        if self.remembers:
            carries = tuple(jax.tree.map(jnp.asarray, part.init_carry(self.num_envs)) for part in self.networks.parts)
        return State(
            learners=self.init_learners(),
            learning_rate=jnp.float32(self.cfg.learning_rate),
            observation_moments=self.inputs.init(),
            state_moments=None if self.critic_inputs is None else self.critic_inputs.init(),
            value_moments=_moments(),
            reward_moments=_moments(),
            running_returns=jnp.zeros(self.num_envs),
            key=key_of(self.seeds[1]),
            carries=carries,
        )

    # -- acting --------------------------------------------------------------------------------------------------------

    def _best(self, logits: Array) -> Array:
        return self.distribution.mode(logits)

    def _explore(
        self, policy: Policy, actor: Acting, observations: Arrays, action_masks: Array | None, progress: Progress
    ) -> tuple[Acting, Array]:
        inputs = self.inputs(policy.observation_moments, observations)
        after, logits = self._look(policy.parameters, actor, inputs, action_masks)
        return Acting(after.carry), self.distribution.sample(logits, actor.noise)

    # -- learning ------------------------------------------------------------------------------------------------------

    def make_memory(self) -> RolloutMemory:
        """Return a memory that stages rows for `update_from_host`."""
        return RolloutMemory(self.cfg.rollout_length, self.num_envs)

    def init_memory(self, row: Rollout) -> Rollout:
        """Return a rollout of zeros on the device for rows (N, ...) like this one."""
        return jax.tree.map(lambda row: jnp.zeros((self.cfg.rollout_length, *row.shape), row.dtype), row)

    def record(self, memory: Rollout, row: Rollout, timestep: Array) -> Rollout:
        """Return the rollout with the row (N, ...) of a timestep in its place."""
        position = timestep % self.cfg.rollout_length
        return jax.tree.map(lambda rows, new: rows.at[position].set(new), memory, row)

    def interrupt(self, state: State, memory: RolloutMemory, next_observations: Arrays, next_states: Arrays) -> State:
        """Take the last row recorded of every copy as truncated there, unless its episode ended anyway."""
        memory.truncate(next_observations, next_states)
        return state._replace(running_returns=jnp.zeros_like(state.running_returns)) if memory.is_empty else state

    def discard(self, state: State, memory: RolloutMemory) -> State:
        """Drop what was recorded since the last update."""
        memory.clear()
        return state._replace(running_returns=jnp.zeros_like(state.running_returns))

    def update(self, state: State, memory: Rollout, progress: Progress) -> tuple[State, Metrics, dict[str, Array]]:
        """Learn from the full rollout; return the usual diagnostics, means over all gradient steps, and which there are."""

        def learn() -> tuple[State, Metrics]:
            ready, batch = self._prepare(state, memory)
            return self.improve(ready, batch, progress)

        if not self.inputs.normalize:
            after, metrics = learn()
            return self._fold_observations(after, memory), metrics, dict.fromkeys(metrics, jnp.bool_(True))
        learned, none = state.observation_moments.count > 0, zeros_like(learn)[1]
        # networks remember a rollout that isn't learned from, too
        wait = lambda: (state._replace(carries=self._prepare(state, memory)[0].carries) if self.remembers else state, none)  # noqa: E731
        after, metrics = jax.lax.cond(learned, learn, wait)
        return self._fold_observations(after, memory), metrics, dict.fromkeys(metrics, learned)

    @abstractmethod
    def improve(self, state: State, batch: Batch, progress: Progress) -> tuple[State, Metrics]:
        """Take gradient steps; return metrics."""

    def _prepare(self, state: State, rollout: Rollout) -> tuple[State, Batch]:
        """Turn a rollout into rows with advantages and returns.

        Nothing learned has changed since the rollout began, so what the networks said about it then is computed here at once: a
        batch costs a fraction of its rows one timestep at a time.
        """
        cfg, shape = self.cfg, rollout.rewards.shape
        before = after = None
        if self.actions_read:
            before = _rows(rollout.outputs["actions_before"])
            after = self.distribution.as_numbers(_rows(rollout.outputs["actions"]))
        inputs, critic_inputs = self._read(state, rollout.observations, rollout.states, before)
        next_inputs, next_critic_inputs = self._read(state, rollout.next_observations, rollout.next_states, after)
        masks = rollout.outputs.get("action_masks")
        weights = _weights(rollout)

        # ---- successors' values
        carries = outputs = None
        if self.remembers:
            successors = next_inputs if next_critic_inputs is None else next_critic_inputs
            state, outputs, values, next_values, carries = self._remember(state, rollout, inputs, critic_inputs, successors)
        else:
            values = self._values(state, inputs if critic_inputs is None else critic_inputs).reshape(shape)
            next_values = self._values(state, next_inputs if next_critic_inputs is None else next_critic_inputs).reshape(shape)

        # ---- advantages and returns, in the environment's units
        state, rewards = self._scale_rewards(state, rollout, weights)
        advantages = generalized_advantages(
            rewards,
            values,
            next_values,
            rollout.terminated,
            rollout.truncated,
            cfg.discount_factor,
            cfg.gae_lambda,
        ).reshape(-1)
        values = values.reshape(-1)
        returns = advantages + values

        # ---- values and returns in the units the network predicts
        if cfg.normalize_values:
            state = state._replace(value_moments=normalizers.fold(jnp, state.value_moments, returns, weights))
            returns = normalizers.normalize(jnp, state.value_moments, returns)
            values = normalizers.normalize(jnp, state.value_moments, values)
        batch = Batch(
            inputs=inputs,
            critic_inputs=critic_inputs,
            actions=_rows(rollout.outputs["actions"]),
            action_masks=None if masks is None else _rows(masks),
            advantages=losses.standardize(jnp, advantages, weights) if cfg.standardize_advantages else advantages,
            returns=returns,
            values=values,
            weights=weights,
        )
        if carries is not None:
            return state, self._in_sequences(batch._replace(outputs=outputs), rollout.outputs["starts"], carries)
        return state, batch

    def _remember(
        self, state: State, rollout: Rollout, inputs: Any, critic_inputs: Any, successors: Any
    ) -> tuple[State, Array, Array, Array, Any]:
        """Return outputs (B, F), values (T, N), those of true successors (T, N), and what is remembered before each sequence.

        A successor is read with what is remembered after its row. The next rollout begins with what is remembered at the end.
        """
        shape, starts, parts = rollout.rewards.shape, rollout.outputs["starts"], self.networks.parts
        parameters, block = self.parameters(state.learners), _block(self.sequence_length)
        in_blocks = lambda array: array.reshape(-1, block, shape[1], *array.shape[1:])  # noqa: E731
        by_row = lambda array: array.reshape(shape[0] * shape[1], *array.shape[3:])  # noqa: E731
        starts = starts.reshape(-1, block, shape[1])
        read = [inputs, inputs if critic_inputs is None else critic_inputs]

        def unroll(part: Any, rows: Any, following: Any, before: Any) -> Any:
            """Unroll block by block: what is remembered after every row is a gigabyte where copies are thousands."""

            def turn(before: Any, block: Any) -> tuple[Any, Any]:
                rows, starts, following = block
                outputs, after, _ = part.unroll(parameters, rows, starts, before, keep="all" if following is not None else "last")
                if following is None:
                    return after, (outputs, before, None)
                known = jax.tree.map(lambda each: each.reshape(-1, *each.shape[2:]), after)
                flat = jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), following)
                next_outputs, _ = part.step(parameters, flat, known)
                return jax.tree.map(lambda each: each[-1], after), (outputs, before, next_outputs.reshape(*outputs.shape))

            return jax.lax.scan(turn, before, (jax.tree.map(in_blocks, rows), starts, jax.tree.map(in_blocks, following)))

        befores, lasts, each_outputs, next_outputs = [], [], [], None
        for part, rows, before in zip(parts, read, state.carries, strict=False):
            following = successors if part is parts[-1] else None
            last, (outputs, first, next_outputs) = unroll(part, rows, following, before)
            each_outputs.append(by_row(outputs))
            befores.append(tuple(_by_copy(each[:: self.sequence_length // block]) for each in first))
            lasts.append(last)
        state = state._replace(carries=tuple(lasts))
        values, next_values = each_outputs[-1][:, -1].reshape(shape), by_row(next_outputs)[:, -1].reshape(shape)
        outputs = each_outputs[0][:, :-1] if self.networks.is_shared else each_outputs[0]
        values, next_values = self._denormalized(state, values), self._denormalized(state, next_values)
        return state, outputs, values, next_values, tuple(befores)

    def _in_sequences(self, batch: Batch, starts: Array, carries: Any) -> Batch:
        """Return a batch whose rows stand copy by copy, so that sequences of them are runs."""
        order = _by_copy(jnp.arange(starts.size).reshape(starts.shape))
        batch = jax.tree.map(lambda array: array[order], batch)
        return batch._replace(starts=_by_copy(starts), carries=carries)

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

    def evaluate(self, state: State, batch: Batch) -> Evaluation:
        """Return what the networks say about a batch."""
        critic_inputs = batch.inputs if batch.critic_inputs is None else batch.critic_inputs
        parameters = self.parameters(state.learners)
        if batch.starts is None:
            outputs, values, networks_vjp = self.networks.logits_and_values_with_vjp(parameters, batch.inputs, critic_inputs)
        else:
            outputs, values, networks_vjp = self._unroll(parameters, batch, critic_inputs)

        def evaluate(outputs: Array, own: dict[str, Array]) -> tuple[tuple[Array, Array], Array]:
            logits = self._masked(self.distribution.complete(outputs, own), batch.action_masks)
            return self.distribution.log_prob_and_entropy(logits, batch.actions), logits

        own = {name: parameters[name] for name in self.own_parameters()}
        (log_probs, entropies), distribution_vjp, logits = jax.vjp(evaluate, outputs, own, has_aux=True)

        def vjp(gradients: losses.Gradients) -> dict[str, Array]:
            to_outputs, to_own = distribution_vjp((gradients.log_probs, gradients.entropies))
            return {**networks_vjp(to_outputs, gradients.values), **to_own}

        return Evaluation(logits, log_probs, entropies, values, vjp)

    def _unroll(self, parameters: dict[str, Array], batch: Batch, critic_inputs: Any) -> tuple[Array, Array, Callable[..., Any]]:
        """Return outputs (B, F) and values (B,) of networks that remember, and what takes gradients with respect to them."""
        length = self.sequence_length
        by_time = lambda array: array.reshape(-1, length, *array.shape[1:]).swapaxes(0, 1)  # noqa: E731
        by_row = lambda array: array.swapaxes(0, 1).reshape(-1, *array.shape[2:])  # noqa: E731
        inputs, critic_inputs = (jax.tree.map(by_time, rows) for rows in (batch.inputs, critic_inputs))
        starts = by_time(batch.starts)
        logits, values, vjp = self.networks.unroll_with_vjp(parameters, inputs, critic_inputs, starts, batch.carries)
        return by_row(logits), by_row(values), lambda *gradients: vjp(*(by_time(each) for each in gradients))

    def descend(self, state: State, evaluation: Evaluation, gradients: losses.Gradients) -> tuple[State, Array]:
        """Step down a loss, given its gradients with respect to what the networks say; return the gradient's norm."""
        rates, by_name = self._learning_rates(state.learning_rate), evaluation.vjp(gradients)
        learners, norms = {}, []
        for name, learner in self.learners.items():
            before = state.learners[name]
            own = {parameter: by_name[parameter] for parameter in before.parameters}
            learners[name], norm = learner.step(before, own, rates[name], self.cfg.grad_norm_clip)
            norms.append(norm)
        return state._replace(learners=learners), norms[0] if len(norms) == 1 else jnp.linalg.norm(jnp.stack(norms))

    def report(self, state: State, batch: Batch) -> Metrics:
        """Return the metrics that don't belong to single gradient steps."""
        parameters = self.policy(state).parameters
        explained = losses.explained_variance(jnp, batch.values, batch.returns, batch.weights)
        return {
            "value/explained_variance": explained,
            "policy/learning_rate": state.learning_rate,
            **{f"policy/{name}": parameters[f"policy.{name}"].mean() for name in self.distribution.parameters},
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

    def _read(self, state: State, observations: Arrays, states: Arrays, actions: Array | None) -> tuple[Any, Any]:
        """Return the networks' inputs (B, O) and, where the critic has its own, (B, S) for a rollout's rows (T, N, ...).

        `actions` are those before, (B, A), or None: networks don't read them.
        """
        inputs = self.inputs.join(self.inputs(state.observation_moments, _rows(observations)), actions)
        if self.critic_inputs is None:
            return inputs, None
        critic_inputs = self.critic_inputs(state.state_moments, _rows(states))  # type: ignore[arg-type]
        return inputs, self.critic_inputs.join(critic_inputs, actions)

    def _values(self, state: State, critic_inputs: Any) -> Array:
        """Return values (B,) in the environment's units."""
        return self._denormalized(state, self.networks.values(self.parameters(state.learners), critic_inputs))

    def _denormalized(self, state: State, values: Array) -> Array:
        return normalizers.denormalize(jnp, state.value_moments, values) if self.cfg.normalize_values else values

    # -- snapshots -----------------------------------------------------------------------------------------------------

    def snapshot(self, state: State) -> dict[str, Any]:
        """Return everything as arrays and plain data; "policy" is what acting needs."""
        snapshot = super().snapshot(state)
        snapshot["policy"]["value_moments"] = to_arrays(state.value_moments)
        if state.state_moments is not None:
            snapshot["policy"]["state_moments"] = to_arrays(state.state_moments)
        snapshot["training"] |= {
            "learning_rate": float(state.learning_rate),
            "reward_moments": to_arrays(state.reward_moments),
            "running_returns": np.array(state.running_returns),
        }
        if self.remembers:
            snapshot["training"]["carries"] = [np.array(array) for array in jax.tree.leaves(state.carries)]
        return snapshot

    def restore(self, state: State, snapshot: dict[str, Any]) -> State:
        """Return the state with everything put back; a snapshot that holds only "policy" restores only that."""
        snapshot = upgraded(snapshot)
        policy = snapshot["policy"]
        state = super().restore(state, snapshot)._replace(value_moments=to_moments(policy["value_moments"]))
        if state.state_moments is not None:
            state = state._replace(state_moments=to_moments(policy["state_moments"]))
        if "training" not in snapshot:
            return state
        training = snapshot["training"]
        if self.remembers:
            arrays = [jnp.asarray(array) for array in training["carries"]]
            state = state._replace(carries=jax.tree.unflatten(jax.tree.structure(state.carries), arrays))
        return state._replace(
            learning_rate=self._restored_learning_rate(training["learning_rate"]),
            reward_moments=to_moments(training["reward_moments"]),
            running_returns=jnp.asarray(training["running_returns"]),
        )

    def _restored_learning_rate(self, learning_rate: float) -> Array:
        """Return a learning rate that is state as it was; one that is a setting as it is set now."""
        return jnp.float32(self.cfg.learning_rate)

    def _count_rows(self) -> int:
        return self.cfg.rollout_length * self.num_envs

    def _count_gradient_steps(self) -> int:
        return 1

    def rows_learned(self) -> float:
        """Return on how many rows gradient steps learn, per timestep."""
        return self.num_envs * getattr(self.cfg, "epochs", 1)


def _rows(arrays: Arrays) -> Arrays:
    return spaces.map_arrays(lambda array: array.reshape(-1, *array.shape[2:]), arrays)


def _block(length: int) -> int:
    """Return how many timesteps to unroll at once, of sequences of this length: a divisor of it."""
    return max(size for size in range(1, BLOCK + 1) if length % size == 0)


def _by_copy(array: Array) -> Array:
    """Return rows (T, N, ...) copy by copy, (N x T, ...)."""
    return array.swapaxes(0, 1).reshape(-1, *array.shape[2:])


def _weights(rollout: Rollout) -> Array | None:
    return None if rollout.valid is None else rollout.valid.reshape(-1).astype(jnp.float32)


def _moments() -> normalizers.Moments:
    return normalizers.Moments(jnp.zeros(()), jnp.ones(()), jnp.zeros(()))
