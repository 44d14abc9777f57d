"""PPO in PyTorch (Schulman et al. 2017, "Proximal policy optimization algorithms")."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rltrain.agents.ppo.config import PPOConfig
from rltrain.backends.torch import TorchBackend
from rltrain.checks import build
from rltrain.memories.torch import Rollout, RolloutMemory
from rltrain.models.torch import MLP, Observations, make_head
from rltrain.ops import losses, normalizers
from rltrain.ops.returns.torch import generalized_advantages
from rltrain.optimizers.torch import Adam, FlatParameters
from rltrain.seeding import AGENT_ACTOR, AGENT_MINIBATCHES, AGENT_PARAMETERS, seed64
from rltrain.structures import Progress, Transition, UpdateSchedule

OBSERVATION_CLIP = 10.0
ADAM_EPSILON = 1e-5


@dataclass
class Actor:
    """What acting carries."""

    generator: torch.Generator


@dataclass
class Batch:
    """One rollout as rows, ready to learn from; B = T x N."""

    inputs: torch.Tensor  # (B, O) normalised
    actions: torch.Tensor  # (B, *A)
    log_probs: torch.Tensor  # (B,) when they were drawn
    advantages: torch.Tensor  # (B,) standardised
    returns: torch.Tensor  # (B,) normalised if values are
    values: torch.Tensor  # (B,) as predicted when acting, in the same units as returns
    weights: torch.Tensor | None  # (B,) 0 where the row did not happen, or None

    def shuffle(self, order: torch.Tensor, parts: int) -> Iterator["Batch"]:
        """Yield `parts` minibatches of the rows in `order`, remainders spread; copied once, then views."""
        shuffled = {name: array[order].tensor_split(parts) for name, array in vars(self).items() if array is not None}
        for i in range(parts):
            yield Batch(**{"weights": None, **{name: arrays[i] for name, arrays in shuffled.items()}})


class PPO:
    """Acts by a stochastic policy, collects a rollout, then improves the clipped surrogate over several epochs."""

    def __init__(
        self,
        observation_space: Any,
        action_space: Any,
        *,
        num_envs: int,
        cfg: PPOConfig | dict[str, Any] | None = None,
        seed: int = 0,
        index: int = 0,
        backend: TorchBackend | None = None,
        key: str = "agents.ppo",
    ) -> None:
        self.cfg = build(PPOConfig, cfg, key)
        self.cfg.check_copies(num_envs, key)
        self.backend = backend or TorchBackend()
        self.num_envs = num_envs
        self.schedule = UpdateSchedule(every=self.cfg.rollout_length)
        self.actor_seed = seed64(seed, AGENT_ACTOR, index)
        device = self.backend.device

        network = self.cfg.network
        self.observations = Observations(observation_space)
        self.head = make_head(action_space, network.initial_log_std, device)
        generator = torch.Generator().manual_seed(seed64(seed, AGENT_PARAMETERS, index))
        arguments: dict[str, Any] = {"activation": network.activation, "generator": generator}
        inputs = self.observations.size
        self.policy = MLP(inputs, network.policy_sizes, self.head.size, output_gain=0.01, **arguments).to(device)
        self.value = MLP(inputs, network.value_sizes, 1, output_gain=1.0, **arguments).to(device)
        self.parameters = FlatParameters(self._named_parameters(), device)
        self.optimizer = Adam(self.parameters, self.cfg.learning_rate, epsilon=ADAM_EPSILON)

        self.memory = RolloutMemory(self.cfg.rollout_length, num_envs, device)
        self.minibatch_generator = torch.Generator().manual_seed(seed64(seed, AGENT_MINIBATCHES, index))
        self.observation_moments = _moments((inputs,), device)
        self.value_moments = _moments((), device)

    # -- acting --------------------------------------------------------------------------------------------------------

    def init_actor(self, num_envs: int, seed: int) -> Actor:
        """Return a fresh actor with a random stream of its own."""
        return Actor(torch.Generator(self.backend.device).manual_seed(seed))

    @torch.inference_mode()
    def act(
        self,
        actor: Actor,
        observations: torch.Tensor,
        states: torch.Tensor | None = None,
        *,
        explore: bool,
        progress: Progress,
    ) -> tuple[Actor, torch.Tensor, dict[str, torch.Tensor]]:
        """Return actions (N, *A) as the environment takes them; exploring, also what `record` wants back."""
        inputs = self._inputs(observations)
        heads = self.policy.forward(inputs)
        if not explore:
            return actor, self.head.to_environment(self.head.mode(heads)), {}
        actions = self.head.sample(heads, actor.generator)
        return actor, self.head.to_environment(actions), {"actions": actions}

    def reset_actor(self, actor: Actor, done: torch.Tensor) -> Actor:
        """Nothing that an actor of PPO carries belongs to an episode."""
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
        self.memory.record(transition)

    def interrupt(self, next_observations: np.ndarray) -> None:
        """Take the last row recorded of every copy as truncated there, unless its episode ended anyway."""
        self.memory.truncate(next_observations)

    def discard(self) -> None:
        """Drop what was recorded since the last update."""
        self.memory.clear()

    def update(self, progress: Progress) -> dict[str, float]:
        """Learn from the full rollout; return the usual diagnostics, means over all gradient steps."""
        rollout = self.memory.read()
        metrics: dict[str, float] = {}
        if not self.cfg.normalize_observations or float(self.observation_moments.count) > 0:
            batch = self._prepare(rollout)
            metrics = self._improve(batch)
        self._fold_observations(rollout)
        return metrics

    @torch.no_grad()
    def _prepare(self, rollout: Rollout) -> Batch:
        """Turn a rollout into rows with log-probabilities, advantages and returns.

        Nothing learned has changed since the rollout began, so what the policy and the value network said about it then is
        computed here at once: a batch costs a fraction of its rows one timestep at a time.
        """
        length, copies = rollout.rewards.shape
        inputs = self._inputs(rollout.observations.flatten(0, 1))
        actions = rollout.outputs["actions"].flatten(0, 1)
        log_probs = self.head.log_prob(self.policy.forward(inputs), actions)

        # ---- successors' values: the next row's, but for truncated and last rows the true successor's
        values = self._values(inputs).view(length, copies)
        next_values = torch.cat((values[1:], values[-1:]))
        next_values.view(-1)[rollout.last_rows] = self._values(self._inputs(rollout.last_observations))

        # ---- advantages and returns, in the environment's units
        advantages = generalized_advantages(
            rollout.rewards, values, next_values, rollout.terminated, rollout.truncated,
            self.cfg.discount_factor, self.cfg.gae_lambda,
        ).view(-1)  # fmt: skip
        values = values.reshape(-1)
        returns = advantages + values
        weights = None if rollout.valid is None else rollout.valid.view(-1).float()

        # ---- values and returns in the units the network predicts
        if self.cfg.normalize_values:
            self.value_moments = normalizers.fold(torch, self.value_moments, returns, weights)
            returns = normalizers.normalize(torch, self.value_moments, returns)
            values = normalizers.normalize(torch, self.value_moments, values)
        return Batch(
            inputs=inputs,
            actions=actions,
            log_probs=log_probs,
            advantages=losses.standardize(torch, advantages, weights),
            returns=returns,
            values=values,
            weights=weights,
        )

    def _improve(self, batch: Batch) -> dict[str, float]:
        """Take `minibatches` gradient steps in each epoch."""
        rows, parts = batch.inputs.shape[0], self.cfg.minibatches
        explained = losses.explained_variance(torch, batch.values, batch.returns, batch.weights)
        metrics = []
        for _ in range(self.cfg.epochs):
            # ---- shuffle
            order = torch.randperm(rows, generator=self.minibatch_generator).to(batch.inputs.device)
            for minibatch in batch.shuffle(order, parts):
                # ---- gradient
                self.parameters.gradients.zero_()
                diagnostics = self._differentiate(minibatch)
                # ---- step
                norm = self.parameters.clip_gradients(self.cfg.grad_norm_clip)
                self.optimizer.step()
                metrics.append(torch.cat((diagnostics, norm.view(1))))
        means = torch.stack(metrics).mean(0).tolist()
        names = ("loss/policy", "loss/value", "policy/entropy", "policy/approx_kl", "policy/clip_fraction", "policy/grad_norm")
        return {
            **dict(zip(names, means, strict=True)),
            "value/explained_variance": float(explained),
            "policy/learning_rate": self.optimizer.learning_rate,
            **{f"policy/{name}": float(parameter.detach().mean()) for name, parameter in self.head.parameters.items()},
        }

    def _differentiate(self, minibatch: Batch) -> torch.Tensor:
        """Add the gradient of policy loss + value_scale x value loss - entropy_scale x entropy; return diagnostics (5,).

        The loss is a mean of terms whose slopes are known, so the graph holds the networks and the distribution only and is
        entered with those slopes: that halves the time of a small minibatch.
        """
        cfg = self.cfg
        log_probs, entropies = self.head.log_prob_and_entropy(self.policy.forward(minibatch.inputs), minibatch.actions)
        values = self.value.forward(minibatch.inputs).squeeze(-1)
        with torch.no_grad():
            log_ratios = log_probs - minibatch.log_probs
            ratios = log_ratios.exp()
            surrogate, slope = losses.clipped_surrogate(torch, ratios, minibatch.advantages, cfg.ratio_clip)
            error, value_slope = losses.squared_error(torch, values, minibatch.values, minibatch.returns, cfg.value_clip)
            shares = losses.shares(torch, surrogate, minibatch.weights)
            kl = losses.approximate_kl(ratios, log_ratios)
            clipped = (ratios - 1).abs() > cfg.ratio_clip
            diagnostics = torch.stack((surrogate, error, entropies.expand_as(error), kl, clipped.float())) @ shares
        torch.autograd.backward(
            (log_probs, values, entropies),
            (
                slope * shares,
                value_slope * (cfg.value_scale * shares),
                (-cfg.entropy_scale * shares).sum_to_size(entropies.shape),
            ),
        )
        return diagnostics

    @torch.no_grad()
    def _fold_observations(self, rollout: Rollout) -> None:
        """Fold the raw rollout into the statistics, which were frozen since its first act."""
        if not self.cfg.normalize_observations:
            return
        weights = None if rollout.valid is None else rollout.valid.view(-1).float()
        rows = self.observations(rollout.observations.flatten(0, 1))
        self.observation_moments = normalizers.fold(torch, self.observation_moments, rows, weights)

    def _inputs(self, observations: torch.Tensor) -> torch.Tensor:
        """Return network inputs (B, O) for observations (B, *O)."""
        inputs = self.observations(observations)
        if not self.cfg.normalize_observations:
            return inputs
        return normalizers.normalize(torch, self.observation_moments, inputs, OBSERVATION_CLIP)

    def _values(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return values (B,) in the environment's units."""
        values = self.value.forward(inputs).squeeze(-1)
        return normalizers.denormalize(torch, self.value_moments, values) if self.cfg.normalize_values else values

    # -- keeping -------------------------------------------------------------------------------------------------------

    def is_finite(self) -> bool:
        """Tell whether every parameter is finite; a sum is, unless a term isn't."""
        return bool(torch.isfinite(self.parameters.values.sum()))

    def snapshot(self) -> dict[str, Any]:
        """Return everything as arrays and plain data; "policy" is what acting needs."""
        return {
            "policy": {
                "parameters": self.parameters.snapshot(),
                "observation_moments": _to_arrays(self.observation_moments),
                "value_moments": _to_arrays(self.value_moments),
            },
            "training": {
                "optimizer": self.optimizer.snapshot(),
                "memory": self.memory.snapshot(),
                "minibatch_generator": self.minibatch_generator.get_state().numpy(),
            },
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put everything back; a snapshot that holds only "policy" restores only that."""
        device = self.backend.device
        policy = snapshot["policy"]
        self.parameters.restore(policy["parameters"])
        self.observation_moments = _from_arrays(policy["observation_moments"], device)
        self.value_moments = _from_arrays(policy["value_moments"], device)
        if "training" not in snapshot:
            return
        training = snapshot["training"]
        self.optimizer.restore(training["optimizer"])
        self.memory.restore(training["memory"])
        self.minibatch_generator.set_state(torch.from_numpy(np.array(training["minibatch_generator"])))

    def describe(self) -> dict[str, Any]:
        """Return parameters, memory in bytes of a full rollout, gradient steps per update."""
        row = 4 * (self.observations.size + 3) + 8 * max(1, int(np.prod(self.head.action_shape))) + 3
        return {
            "parameters": self.parameters.values.numel(),
            "memory_bytes": row * self.cfg.rollout_length * self.num_envs,
            "gradient_steps_per_update": self.cfg.epochs * self.cfg.minibatches,
        }

    def _named_parameters(self) -> dict[str, torch.nn.Parameter]:
        named = {f"policy.{name}": parameter for name, parameter in self.policy.named_parameters()}
        named |= {f"value.{name}": parameter for name, parameter in self.value.named_parameters()}
        return named | {f"policy.{name}": parameter for name, parameter in self.head.parameters.items()}


def _moments(shape: tuple[int, ...], device: torch.device) -> normalizers.Moments:
    return normalizers.Moments(
        torch.zeros(shape, device=device), torch.ones(shape, device=device), torch.zeros((), device=device)
    )


def _to_arrays(moments: normalizers.Moments) -> dict[str, np.ndarray]:
    return {name: array.cpu().numpy().copy() for name, array in moments._asdict().items()}


def _from_arrays(arrays: dict[str, np.ndarray], device: torch.device) -> normalizers.Moments:
    return normalizers.Moments(**{name: torch.as_tensor(np.array(array), device=device) for name, array in arrays.items()})
