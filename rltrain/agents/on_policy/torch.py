"""What PPO and A2C have in common in PyTorch: an actor-critic, the rollout, advantages and returns."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from rltrain import spaces
from rltrain.agents.algorithm.torch import BaseAlgorithm
from rltrain.agents.learners.torch import Learner
from rltrain.agents.on_policy.config import OnPolicyConfig
from rltrain.agents.on_policy.saved import upgraded
from rltrain.backends.torch import Actor
from rltrain.memories.rollout.torch import Rollout, RolloutMemory
from rltrain.models.distributions.torch import make_distribution
from rltrain.models.encoders.torch import features
from rltrain.models.networks.torch import ActorCritic
from rltrain.ops import losses, normalizers
from rltrain.ops.returns.torch import generalized_advantages, running_returns
from rltrain.ops.trees.torch import to_arrays, to_moments
from rltrain.seeding import AGENT_MINIBATCHES, seed64
from rltrain.structures import Arrays, Progress, Transition

EPSILON = 1e-5  # of the optimiser


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
    """What the networks say about a batch."""

    logits: torch.Tensor  # (B, F) of the distribution: without the choices that were not allowed
    log_probs: torch.Tensor  # (B,) of the actions
    entropies: torch.Tensor  # (B,)
    values: torch.Tensor  # (B,)
    vjp: Callable[[losses.Gradients], None]  # takes a loss's gradients, adds the parameters' to their `grad`


class OnPolicy(BaseAlgorithm):
    """Acts by a stochastic policy and collects a rollout; an algorithm says in `improve` how to learn from it."""

    config: ClassVar[type[OnPolicyConfig]]
    row_bytes = 7

    def _build(self, action_space: Any, generator: torch.Generator) -> None:
        cfg, device = self.cfg.network, self.backend.device
        self.distribution = make_distribution(action_space, cfg, device, f"{self.key}.network")
        critic_inputs = self.critic_inputs or self.inputs
        policy = self._make_encoder(self.inputs, generator)
        value = None if cfg.shared else self._make_encoder(critic_inputs, generator)
        sizes = features(policy, self.inputs), features(value, critic_inputs)
        self.networks = ActorCritic(*sizes, self.distribution.size, cfg, generator, device, (policy, value))
        self.learners = self.make_learners(self.own_parameters())

    def own_parameters(self) -> dict[str, Any]:
        """Return the distribution's own parameters by name."""
        return {f"policy.{name}": own for name, own in self.distribution.parameters.items()}

    def make_learners(self, own: dict[str, Any]) -> dict[str, Learner]:
        """Return what learns: one network and one optimiser; `own` are the distribution's parameters by name.

        With several, one of each part of `networks`, each is clipped and takes its steps by itself.
        """
        return {"actor_critic": Learner(self.networks, self.cfg.learning_rate, self.backend.device, more=own, epsilon=EPSILON)}

    def _start(self, seed: int, index: int) -> None:
        device = self.backend.device
        self.generator = torch.Generator().manual_seed(seed64(seed, AGENT_MINIBATCHES, index))  # of minibatches
        self.learning_rate: float = self.cfg.learning_rate
        self.value_moments = _moments(device)
        self.reward_moments = _moments(device)
        self.running_returns = torch.zeros(self.num_envs, device=device)  # discounted sums of rewards in the running episodes

    # -- acting --------------------------------------------------------------------------------------------------------

    def _logits(self, inputs: Any, action_masks: torch.Tensor | None) -> torch.Tensor:
        return self._masked(self.networks.logits(inputs), action_masks)

    def _best(self, logits: torch.Tensor) -> torch.Tensor:
        return self.distribution.mode(logits)

    def _explore(
        self, actor: Actor, observations: Arrays, action_masks: torch.Tensor | None, progress: Progress
    ) -> tuple[Actor, torch.Tensor]:
        logits = self._logits(self.inputs(observations), action_masks)
        return actor, self.distribution.sample(logits, actor.generator)

    # -- learning ------------------------------------------------------------------------------------------------------

    def make_memory(self) -> RolloutMemory:
        """Return a memory that stages rows for `update`."""
        return RolloutMemory(self.cfg.rollout_length, self.num_envs, self.backend.device)

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
            metrics = self.improve(self._prepare(rollout), progress)
        self._fold_observations(rollout)
        return metrics

    @abstractmethod
    def improve(self, batch: Batch, progress: Progress) -> dict[str, float]:
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
            rewards,
            values,
            next_values,
            rollout.terminated,
            rollout.truncated,
            cfg.discount_factor,
            cfg.gae_lambda,
        ).view(-1)
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

    def evaluate(self, batch: Batch) -> Evaluation:
        """Return what the networks say about a batch."""
        critic_inputs = batch.inputs if batch.critic_inputs is None else batch.critic_inputs
        outputs, values, networks_vjp = self.networks.logits_and_values_with_vjp(batch.inputs, critic_inputs)
        with torch.enable_grad():
            outputs.requires_grad_()
            logits = self._masked(outputs, batch.action_masks)
            log_probs, entropies = self.distribution.log_prob_and_entropy(logits, batch.actions)

        def vjp(gradients: losses.Gradients) -> None:
            shares = gradients.entropies.sum_to_size(entropies.shape)
            torch.autograd.backward((log_probs, entropies), (gradients.log_probs, shares))
            networks_vjp(outputs.grad, gradients.values)  # type: ignore[arg-type]

        return Evaluation(logits.detach(), log_probs.detach(), entropies.detach().expand_as(values), values, vjp)

    def descend(self, evaluation: Evaluation, gradients: losses.Gradients) -> torch.Tensor:
        """Step down a loss, given its gradients with respect to what the networks say; return the parameters' norm.

        Those are known in closed form, so autograd's graph holds the distribution only: half the time of a small minibatch.
        """
        rates = self._learning_rates(self.learning_rate)
        for learner in self.learners.values():
            learner.parameters.clear_gradients()
        evaluation.vjp(gradients)
        norms = [learner.step(rates[name], self.cfg.grad_norm_clip) for name, learner in self.learners.items()]
        return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))

    def report(self, batch: Batch) -> dict[str, float]:
        """Return the metrics that don't belong to single gradient steps."""
        explained = losses.explained_variance(torch, batch.values, batch.returns, batch.weights)
        return {
            "value/explained_variance": float(explained),
            "policy/learning_rate": self.learning_rate,
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

    def _values(self, critic_inputs: Any) -> torch.Tensor:
        """Return values (B,) in the environment's units."""
        values = self.networks.values(critic_inputs)
        return normalizers.denormalize(torch, self.value_moments, values) if self.cfg.normalize_values else values

    # -- snapshots -----------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Return everything as arrays and plain data; "policy" is what acting needs."""
        snapshot = super().snapshot()
        snapshot["policy"]["value_moments"] = to_arrays(self.value_moments)
        snapshot["training"] |= {
            "learning_rate": self.learning_rate,
            "memory": self.memory.snapshot(),
            "generator": self.generator.get_state().numpy(),
            "reward_moments": to_arrays(self.reward_moments),
            "running_returns": self.running_returns.cpu().numpy().copy(),
        }
        return snapshot

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put everything back; a snapshot that holds only "policy" restores only that."""
        snapshot = upgraded(snapshot)
        super().restore(snapshot)
        self.value_moments = to_moments(snapshot["policy"]["value_moments"], self.backend.device)
        if "training" not in snapshot:
            return
        training = snapshot["training"]
        self.learning_rate = self._restored_learning_rate(float(training["learning_rate"]))
        self.memory.restore(training["memory"])
        self.generator.set_state(torch.from_numpy(np.array(training["generator"])))
        self.reward_moments = to_moments(training["reward_moments"], self.backend.device)
        self.running_returns = torch.as_tensor(np.array(training["running_returns"]), device=self.backend.device)

    def _restored_learning_rate(self, learning_rate: float) -> float:
        """Return a learning rate that is state as it was; one that is a setting as it is set now."""
        return self.cfg.learning_rate

    def _count_rows(self) -> int:
        return self.cfg.rollout_length * self.num_envs

    def _count_gradient_steps(self) -> int:
        return 1


def _rows(arrays: Arrays) -> Arrays:
    return spaces.map_arrays(lambda array: array.flatten(0, 1), arrays)


def _weights(rollout: Rollout) -> torch.Tensor | None:
    return None if rollout.valid is None else rollout.valid.view(-1).float()


def _moments(device: torch.device) -> normalizers.Moments:
    return normalizers.Moments(torch.zeros((), device=device), torch.ones((), device=device), torch.zeros((), device=device))
