"""What PPO and A2C have in common in PyTorch: networks, acting, the rollout, advantages and returns."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn

from rltrain import spaces
from rltrain.agents.base import Made
from rltrain.agents.on_policy.config import OnPolicyConfig
from rltrain.backends.torch import TorchBackend
from rltrain.checks import build
from rltrain.errors import ConfigError
from rltrain.memories.rollout.torch import Rollout, RolloutMemory
from rltrain.models.distributions.torch import make_distribution
from rltrain.models.encoders.torch import features, make_encoder, make_inputs
from rltrain.models.freezing import find_frozen
from rltrain.models.inputs.torch import Inputs
from rltrain.models.networks.torch import ActorCritic
from rltrain.ops import losses, normalizers, schedules
from rltrain.ops.returns.torch import generalized_advantages, running_returns
from rltrain.optimizers.torch import Adam, FlatParameters, RMSProp
from rltrain.rewards import find_reward_function
from rltrain.seeding import AGENT_ACTOR, AGENT_MINIBATCHES, AGENT_PARAMETERS, seed64
from rltrain.structures import Arrays, Progress, Transition, UpdateSchedule

OPTIMIZER_EPSILON = 1e-5


@dataclass
class Actor:
    """What acting carries."""

    generator: torch.Generator


@dataclass
class Batch:
    """One rollout as rows, ready to learn from; B = T x N."""

    inputs: Any  # (B, O) normalised; where there are images, see `Inputs`
    critic_inputs: Any  # (B, S) normalised, or None: the same
    actions: torch.Tensor  # (B, *A)
    action_masks: torch.Tensor | None  # (B, M) bool, or None: all are allowed
    advantages: torch.Tensor  # (B,)
    returns: torch.Tensor  # (B,) normalised if values are
    values: torch.Tensor  # (B,) as predicted when acting, in the same units as returns
    weights: torch.Tensor | None  # (B,) 0 where the row did not happen, or None
    log_probs: torch.Tensor | None = None  # (B,) when the actions were drawn, where the algorithm compares with them
    statistics: torch.Tensor | None = None  # (B, K) of the distribution that they were drawn from, where it compares with that

    def shuffle(self, order: torch.Tensor, parts: int) -> Iterator["Batch"]:
        """Yield `parts` minibatches of the rows in `order`, remainders spread; copied once, then views."""
        arrays = {name: array for name, array in vars(self).items() if array is not None}
        shuffled = {
            name: spaces.map_arrays(lambda array: array[order].tensor_split(parts), array) for name, array in arrays.items()
        }
        absent = dict.fromkeys(vars(self).keys() - arrays.keys())
        for i in range(parts):
            minibatch = {name: spaces.map_arrays(lambda split: split[i], splits) for name, splits in shuffled.items()}  # noqa: B023
            yield Batch(**absent, **minibatch)  # type: ignore[arg-type]


class Evaluation(NamedTuple):
    """What the networks say about a batch; a loss's gradients go back through log-probabilities, entropies and `vjp`."""

    outputs: torch.Tensor  # (B, H) of the policy's network
    logits: torch.Tensor  # (B, H) of the distribution: without the choices that were not allowed
    log_probs: torch.Tensor  # (B,) of the actions
    entropies: torch.Tensor  # (B,), or () for all rows alike
    values: torch.Tensor  # (B,)
    vjp: Callable[..., None]  # takes the loss's gradients with respect to outputs and values, adds to the parameters' `grad`


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
        backend: TorchBackend | None = None,
        key: str | None = None,
        encoder: nn.Module | None = None,
    ) -> None:
        self.key = key or f"agents.{type(self).__name__.lower()}"
        self.cfg: Any = build(self.config, cfg, self.key)
        self.backend = backend or TorchBackend()
        self.num_envs = num_envs
        self.reward_function = find_reward_function(self.cfg.reward_function, self.key)
        self.schedule = UpdateSchedule(every=self.cfg.rollout_length)
        self.actor_seed = seed64(seed, AGENT_ACTOR, index)
        device, network = self.backend.device, self.cfg.network

        normalize = self.cfg.normalize_observations
        network_key = f"{self.key}.network"
        self.inputs = make_inputs(observation_space, device, network, network_key, normalize=normalize, module=encoder)
        self.critic_inputs: Inputs | None = None
        if state_space is not None and self.cfg.use_states:
            if network.shared:
                raise ConfigError(
                    f"{self.key}.network.shared", True,
                    "the environment has states, which only a critic's own network may read; set shared or use_states to false",
                )  # fmt: skip
            self.critic_inputs = make_inputs(
                state_space, device, network, network_key, normalize=normalize, module=encoder, space_key="env.state_space"
            )
        self.distribution = make_distribution(action_space, network, device, network_key)
        generator = torch.Generator().manual_seed(seed64(seed, AGENT_PARAMETERS, index))
        critic_inputs = self.critic_inputs or self.inputs
        policy = make_encoder(self.inputs, network, generator, network_key, encoder)
        value = None if network.shared else make_encoder(critic_inputs, network, generator, network_key, encoder)
        self.networks = ActorCritic(
            features(policy, self.inputs),
            features(value, critic_inputs),
            self.distribution.size,
            network,
            generator,
            device,
            (policy, value),
        )
        own = {f"policy.{name}": parameter for name, parameter in self.distribution.parameters.items()}
        self.parameters = FlatParameters({**dict(self.networks.named_parameters()), **own}, device)
        self.parameters.freeze(find_frozen(self.parameters.named, network.frozen, network_key))
        self.optimizer = self._make_optimizer()

        self.memory = RolloutMemory(self.cfg.rollout_length, num_envs, device)
        self.minibatch_generator = torch.Generator().manual_seed(seed64(seed, AGENT_MINIBATCHES, index))
        self.value_moments = _moments(device)
        self.reward_moments = _moments(device)
        self.running_returns = torch.zeros(num_envs, device=device)  # discounted sums of rewards in the running episodes

    def _make_optimizer(self) -> Adam | RMSProp:
        return Adam(self.parameters, self.cfg.learning_rate, epsilon=OPTIMIZER_EPSILON)

    @property
    def images(self) -> dict[str, Any]:
        """The images in an observation that networks read as such, by path."""
        return self.inputs.images

    # -- acting --------------------------------------------------------------------------------------------------------

    def init_actor(self, num_envs: int, seed: int) -> Actor:
        """Return a fresh actor with a random stream of its own."""
        return Actor(torch.Generator(self.backend.device).manual_seed(seed))

    @torch.inference_mode()
    def act(
        self,
        actor: Actor,
        observations: Arrays,
        states: Arrays = None,
        action_masks: torch.Tensor | None = None,
        *,
        explore: bool,
        progress: Progress,
    ) -> tuple[Actor, torch.Tensor, dict[str, torch.Tensor]]:
        """Return actions (N, *A) as the environment takes them; exploring, what `record` wants back, else logits."""
        logits = self._masked(self.networks.logits(self.inputs(observations)), action_masks)
        if not explore:
            return actor, self.distribution.to_environment(self.distribution.mode(logits)), {"logits": logits}
        actions = self.distribution.sample(logits, actor.generator)
        outputs = {"actions": actions} if action_masks is None else {"actions": actions, "action_masks": action_masks}
        return actor, self.distribution.to_environment(actions), outputs

    def reset_actor(self, actor: Actor, done: torch.Tensor) -> Actor:
        """Nothing that the actor carries belongs to an episode."""
        return actor

    def renew_actor(self, actor: Actor) -> Actor:
        """The actor's stream goes on by itself."""
        return actor

    def actor_snapshot(self, actor: Actor) -> dict[str, Any]:
        """Return the actor as plain data."""
        return {"generator": actor.generator.get_state().cpu().numpy()}

    def restore_actor(self, snapshot: dict[str, Any]) -> Actor:
        """Return the actor that `snapshot` was taken of."""
        actor = self.init_actor(self.num_envs, 0)
        actor.generator.set_state(torch.from_numpy(np.array(snapshot["generator"])))
        return actor

    # -- learning ------------------------------------------------------------------------------------------------------

    def record(self, transition: Transition) -> None:
        """Store one transition of all copies."""
        if self.memory.position == 0:
            self.cfg.check_copies(self.num_envs, self.key)
        self.memory.record(transition)

    def interrupt(self, next_observations: Arrays, next_states: Arrays = None) -> None:
        """Take the last row recorded of every copy as truncated there, unless its episode ended anyway."""
        self.memory.truncate(next_observations, next_states)
        if self.memory.position == 0:
            self.running_returns.zero_()

    def discard(self) -> None:
        """Drop what was recorded since the last update."""
        self.memory.clear()
        self.running_returns.zero_()

    def update(self, progress: Progress) -> dict[str, float]:
        """Learn from the full rollout; return the usual diagnostics, means over all gradient steps."""
        rollout = self.memory.read()
        metrics: dict[str, float] = {}
        if not self.inputs.normalize or float(self.inputs.moments.count) > 0:
            metrics = self._improve(self._prepare(rollout), progress)
        self._fold_observations(rollout)
        return metrics

    @abstractmethod
    def _improve(self, batch: Batch, progress: Progress) -> dict[str, float]:
        """Take gradient steps; return metrics."""

    @torch.no_grad()
    def _prepare(self, rollout: Rollout) -> Batch:
        """Turn a rollout into rows with advantages and returns.

        Nothing learned has changed since the rollout began, so what the networks said about it then is computed here at once: a
        batch costs a fraction of its rows one timestep at a time.
        """
        cfg, shape = self.cfg, rollout.rewards.shape
        inputs, critic_inputs = self._read(rollout.observations, rollout.states)
        masks = rollout.outputs.get("action_masks")
        weights = _weights(rollout)

        # ---- successors' values: the next row's, but for truncated and last rows the true successor's
        values = self._values(inputs if critic_inputs is None else critic_inputs).view(shape)
        next_values = torch.cat((values[1:], values[-1:]))
        last = rollout.last_observations if self.critic_inputs is None else rollout.last_states
        next_values.view(-1)[rollout.last_rows] = self._values((self.critic_inputs or self.inputs)(last))

        # ---- advantages and returns, in the environment's units
        rewards = self._scale_rewards(rollout, weights)
        advantages = generalized_advantages(
            rewards, values, next_values, rollout.terminated, rollout.truncated, cfg.discount_factor, cfg.gae_lambda,
        ).view(-1)  # fmt: skip
        values = values.reshape(-1)
        returns = advantages + values

        # ---- values and returns in the units the network predicts
        if cfg.normalize_values:
            self.value_moments = normalizers.fold(torch, self.value_moments, returns, weights)
            returns = normalizers.normalize(torch, self.value_moments, returns)
            values = normalizers.normalize(torch, self.value_moments, values)
        return Batch(
            inputs=inputs,
            critic_inputs=critic_inputs,
            actions=rollout.outputs["actions"].flatten(0, 1),
            action_masks=None if masks is None else masks.flatten(0, 1),
            advantages=losses.standardize(torch, advantages, weights) if cfg.standardize_advantages else advantages,
            returns=returns,
            values=values,
            weights=weights,
        )

    def _scale_rewards(self, rollout: Rollout, weights: torch.Tensor | None) -> torch.Tensor:
        """Return the rewards to learn from (T, N): normalised, scaled, clipped, as far as the settings say."""
        cfg, rewards = self.cfg, rollout.rewards
        if cfg.normalize_rewards:
            done = rollout.terminated | rollout.truncated
            happened = rewards if rollout.valid is None else rewards * rollout.valid
            sums, self.running_returns = running_returns(happened, done, self.running_returns, cfg.discount_factor)
            self.reward_moments = normalizers.fold(torch, self.reward_moments, sums.view(-1), weights)
            rewards = rewards / normalizers.scale(torch, self.reward_moments)
        if cfg.reward_scale != 1:
            rewards = rewards * cfg.reward_scale
        return rewards if cfg.reward_clip is None else rewards.clamp(-cfg.reward_clip, cfg.reward_clip)

    def _evaluate(self, batch: Batch) -> Evaluation:
        """Return what the networks say about a batch."""
        critic_inputs = batch.inputs if batch.critic_inputs is None else batch.critic_inputs
        outputs, values, vjp = self.networks.logits_and_values_with_vjp(batch.inputs, critic_inputs)
        with torch.enable_grad():
            outputs.requires_grad_()
            logits = self._masked(outputs, batch.action_masks)
            log_probs, entropies = self.distribution.log_prob_and_entropy(logits, batch.actions)
        return Evaluation(outputs, logits, log_probs, entropies, values, vjp)

    def _differentiate(self, evaluation: Evaluation, gradients: losses.Gradients) -> torch.Tensor:
        """Set the parameters' gradient by a loss's with respect to log-probabilities, values and entropies; return its norm.

        Those are known in closed form, so autograd's graph holds the distribution only: half the time of a small minibatch.
        """
        self.parameters.clear_gradients()
        entropies = gradients.entropies.sum_to_size(evaluation.entropies.shape)
        torch.autograd.backward((evaluation.log_probs, evaluation.entropies), (gradients.log_probs, entropies))
        evaluation.vjp(evaluation.outputs.grad, gradients.values)
        return self.parameters.clip_gradients(self.cfg.grad_norm_clip)

    def _now(self, name: str, progress: Progress) -> float:
        """Return the value of setting `name` according to its schedule."""
        cfg = self.cfg
        done = schedules.fraction(np, progress, cfg.rollout_length)
        kind, end = getattr(cfg, f"{name}_schedule"), getattr(cfg, f"{name}_end")
        return float(schedules.scheduled(np, kind, getattr(cfg, name), end, done))

    def _report(self, batch: Batch) -> dict[str, float]:
        """Return the metrics that don't belong to single gradient steps."""
        explained = losses.explained_variance(torch, batch.values, batch.returns, batch.weights)
        return {
            "value/explained_variance": float(explained),
            "policy/learning_rate": self.optimizer.learning_rate,
            **{f"policy/{name}": float(parameter.detach().mean()) for name, parameter in self.distribution.parameters.items()},
        }

    @torch.no_grad()
    def _fold_observations(self, rollout: Rollout) -> None:
        """Fold the raw rollout into the statistics, which were frozen since its first act."""
        weights = _weights(rollout)
        self.inputs.fold(_rows(rollout.observations), weights)
        if self.critic_inputs is not None:
            self.critic_inputs.fold(_rows(rollout.states), weights)

    def _read(self, observations: Arrays, states: Arrays) -> tuple[Any, Any]:
        """Return the networks' inputs (B, O) and, where the critic has its own, (B, S) for a rollout's rows (T, N, ...)."""
        critic_inputs = None if self.critic_inputs is None else self.critic_inputs(_rows(states))
        return self.inputs(_rows(observations)), critic_inputs

    def _masked(self, logits: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
        return logits if masks is None else self.distribution.mask(logits, masks)  # type: ignore[union-attr]

    def _values(self, critic_inputs: Any) -> torch.Tensor:
        """Return values (B,) in the environment's units."""
        values = self.networks.values(critic_inputs)
        return normalizers.denormalize(torch, self.value_moments, values) if self.cfg.normalize_values else values

    # -- keeping -------------------------------------------------------------------------------------------------------

    def is_finite(self) -> bool:
        """Tell whether every parameter is finite; a sum is, unless a term isn't."""
        return bool(torch.isfinite(self.parameters.values.sum()))

    def snapshot(self) -> dict[str, Any]:
        """Return everything as arrays and plain data; "policy" is what acting needs."""
        policy = {
            "parameters": self.parameters.snapshot(),
            "observation_moments": _to_arrays(self.inputs.moments),
            "value_moments": _to_arrays(self.value_moments),
        }
        if self.critic_inputs is not None:
            policy["state_moments"] = _to_arrays(self.critic_inputs.moments)
        training = {
            "optimizer": self.optimizer.snapshot(),
            "learning_rate": self.optimizer.learning_rate,
            "memory": self.memory.snapshot(),
            "minibatch_generator": self.minibatch_generator.get_state().numpy(),
            "reward_moments": _to_arrays(self.reward_moments),
            "running_returns": self.running_returns.cpu().numpy().copy(),
        }
        return {"policy": policy, "training": training}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put everything back; a snapshot that holds only "policy" restores only that."""
        device = self.backend.device
        policy = snapshot["policy"]
        self.parameters.restore(policy["parameters"])
        self.inputs.moments = _from_arrays(policy["observation_moments"], device)
        self.value_moments = _from_arrays(policy["value_moments"], device)
        if self.critic_inputs is not None:
            self.critic_inputs.moments = _from_arrays(policy["state_moments"], device)
        if "training" not in snapshot:
            return
        training = snapshot["training"]
        self.optimizer.restore(training["optimizer"])
        self.optimizer.learning_rate = self._restored_learning_rate(float(training["learning_rate"]))
        self.memory.restore(training["memory"])
        self.minibatch_generator.set_state(torch.from_numpy(np.array(training["minibatch_generator"])))
        self.reward_moments = _from_arrays(training["reward_moments"], device)
        self.running_returns = torch.as_tensor(np.array(training["running_returns"]), device=device)

    def _restored_learning_rate(self, learning_rate: float) -> float:
        """Return a learning rate that is state as it was; one that is a setting as it is set now."""
        return self.cfg.learning_rate

    def describe(self) -> dict[str, Any]:
        """Return parameters, memory in bytes of a full rollout, gradient steps per update."""
        row = self.inputs.row_bytes + 8 * max(1, int(np.prod(self.distribution.action_shape))) + 7
        row += 0 if self.critic_inputs is None else self.critic_inputs.row_bytes
        return {
            "parameters": self.parameters.values.numel(),
            "memory_bytes": row * self.cfg.rollout_length * self.num_envs,
            "gradient_steps_per_update": self._gradient_steps(),
        }

    def _gradient_steps(self) -> int:
        return 1


def _rows(arrays: Arrays) -> Arrays:
    return spaces.map_arrays(lambda array: array.flatten(0, 1), arrays)


def _weights(rollout: Rollout) -> torch.Tensor | None:
    return None if rollout.valid is None else rollout.valid.view(-1).float()


def _moments(device: torch.device) -> normalizers.Moments:
    return normalizers.Moments(torch.zeros((), device=device), torch.ones((), device=device), torch.zeros((), device=device))


def _to_arrays(moments: normalizers.Moments) -> dict[str, np.ndarray]:
    return {name: array.cpu().numpy().copy() for name, array in moments._asdict().items()}


def _from_arrays(arrays: dict[str, np.ndarray], device: torch.device) -> normalizers.Moments:
    return normalizers.Moments(**{name: torch.as_tensor(np.array(array), device=device) for name, array in arrays.items()})
