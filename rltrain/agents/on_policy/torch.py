"""What PPO and A2C have in common in PyTorch: an actor-critic, the rollout, advantages and returns."""

import functools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from rltrain import spaces
from rltrain.agents.algorithm.torch import BaseAlgorithm
from rltrain.agents.learners.torch import Learner
from rltrain.agents.on_policy.config import OnPolicyConfig
from rltrain.agents.on_policy.saved import upgraded
from rltrain.backends.torch import Actor, filled, leaves
from rltrain.memories.rollout.torch import Rollout, RolloutMemory
from rltrain.models.distributions.torch import make_distribution
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
    outputs: torch.Tensor | None = None  # (B, F) of the policy that acted, where networks remember
    starts: torch.Tensor | None = None  # (B,) bool, where networks remember: a row that begins an episode
    carries: Any = None  # by number, the arrays (S, layers, H) that networks remember before each of S sequences of rows

    def shuffle(self, order: torch.Tensor, parts: int, length: int = 1) -> Iterator["Batch"]:
        """Yield `parts` minibatches of sequences of `length` rows in `order`, remainders spread; copied once, then views."""
        arrays = {name: array for name, array in vars(self).items() if array is not None}

        def split(name: str, array: torch.Tensor) -> Sequence[torch.Tensor]:
            if length == 1 or name == "carries":
                return array[order].tensor_split(parts)
            rows = array.view(-1, length, *array.shape[1:])[order].tensor_split(parts)
            return [part.flatten(0, 1) for part in rows]

        shuffled = {name: spaces.map_arrays(functools.partial(split, name), array) for name, array in arrays.items()}
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

    @property
    def sequence_length(self) -> int:
        """How many rows of a copy stay together in minibatches: one, unless networks remember."""
        return (self.cfg.sequence_length or self.cfg.rollout_length) if self.remembers else 1

    def _build(self, action_space: Any, generator: torch.Generator) -> None:
        cfg, device = self.cfg.network, self.backend.device
        self.distribution = make_distribution(action_space, cfg, device, f"{self.key}.network")
        critic_inputs = self.critic_inputs or self.inputs
        policy = self._make_encoder(self.inputs, generator)
        value = None if cfg.shared else self._make_encoder(critic_inputs, generator)
        sizes = self._count_features(policy, self.inputs), self._count_features(value, critic_inputs)
        self.networks = self.acting = ActorCritic(*sizes, self.distribution.size, cfg, generator, device, (policy, value))
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
        self.carries = tuple(part.init_carry(self.num_envs) for part in self.networks.parts)  # before the rollout's first row
        self.value_moments = _moments(device)
        self.reward_moments = _moments(device)
        self.running_returns = torch.zeros(self.num_envs, device=device)  # discounted sums of rewards in the running episodes

    # -- acting --------------------------------------------------------------------------------------------------------

    def _best(self, logits: torch.Tensor) -> torch.Tensor:
        return self.distribution.mode(logits)

    def _explore(
        self, actor: Actor, observations: Arrays, action_masks: torch.Tensor | None, progress: Progress
    ) -> tuple[Actor, torch.Tensor]:
        actor, logits = self._look(actor, self.inputs(observations), action_masks)
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
        elif self.remembers:
            self._remember(rollout, *self._read(rollout))  # this rollout, too
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
        inputs, critic_inputs = self._read(rollout)
        masks = rollout.outputs.get("action_masks")
        weights = _weights(rollout)

        # ---- successors' values: the next row's, but for truncated and last rows the true successor's
        carries = None
        if self.remembers:
            outputs, values, last_values, carries = self._remember(rollout, inputs, critic_inputs)
        else:
            values = self._values(inputs if critic_inputs is None else critic_inputs).view(shape)
            last_values = self._values(self._read_last(rollout))
        next_values = torch.cat((values[1:], values[-1:]))
        next_values.view(-1)[rollout.last_rows] = last_values

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
        batch = Batch(
            inputs=inputs,
            critic_inputs=critic_inputs,
            actions=rollout.outputs["actions"].flatten(0, 1),
            action_masks=None if masks is None else masks.flatten(0, 1),
            advantages=losses.standardize(torch, advantages, weights) if cfg.standardize_advantages else advantages,
            returns=returns,
            values=values,
            weights=weights,
        )
        if carries is not None:
            batch.outputs = outputs
            return self._in_sequences(batch, rollout.outputs["starts"], carries)
        return batch

    @torch.no_grad()
    def _remember(
        self, rollout: Rollout, inputs: Any, critic_inputs: Any
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Return outputs (B, F), values (T, N), those of true successors (K,), and what is remembered before each sequence.

        A successor is read with what is remembered after its row. The next rollout begins with what is remembered at the end.
        """
        starts, parts = rollout.outputs["starts"], self.networks.parts
        read = [inputs, inputs if critic_inputs is None else critic_inputs]
        befores: list[torch.Tensor] = []
        afters: list[Any] = []
        each_outputs = []
        for part, rows, before in zip(parts, read, self.carries, strict=False):
            outputs, after = part.engine.unroll(rows, starts, before, every=True)
            each_outputs.append(outputs)
            first = [torch.cat((own[None], each[:-1])) for own, each in zip(before, after, strict=True)]  # type: ignore[arg-type]
            befores += [_by_copy(each)[:: self.sequence_length] for each in first]
            afters.append(after)
        self.carries = tuple(tuple(each[-1] for each in after) for after in afters)
        known = tuple(each.flatten(0, 1)[rollout.last_rows] for each in afters[-1])
        last_values = parts[-1].step(self._read_last(rollout), known)[0][:, -1]
        carries = {str(i): each for i, each in enumerate(befores)}
        logits = each_outputs[0][..., :-1] if self.networks.is_shared else each_outputs[0]
        return logits.flatten(0, 1), self._denormalized(each_outputs[-1][..., -1]), self._denormalized(last_values), carries

    def _in_sequences(self, batch: Batch, starts: torch.Tensor, carries: dict[str, torch.Tensor]) -> Batch:
        """Return a batch whose rows stand copy by copy, so that sequences of them are runs."""
        order = _by_copy(torch.arange(starts.numel(), device=starts.device).view(starts.shape))
        arrays = {
            name: spaces.map_arrays(lambda array: array[order], array) for name, array in vars(batch).items() if array is not None
        }
        return Batch(**{**vars(batch), **arrays, "starts": _by_copy(starts), "carries": carries})

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
        if batch.starts is None:
            outputs, values, networks_vjp = self.networks.logits_and_values_with_vjp(batch.inputs, critic_inputs)
        else:
            outputs, values, networks_vjp = self._unroll(batch, critic_inputs)
        with torch.enable_grad():
            outputs.requires_grad_()
            logits = self._masked(outputs, batch.action_masks)
            log_probs, entropies = self.distribution.log_prob_and_entropy(logits, batch.actions)

        def vjp(gradients: losses.Gradients) -> None:
            shares = gradients.entropies.sum_to_size(entropies.shape)
            torch.autograd.backward((log_probs, entropies), (gradients.log_probs, shares))
            networks_vjp(outputs.grad, gradients.values)  # type: ignore[arg-type]

        return Evaluation(logits.detach(), log_probs.detach(), entropies.detach().expand_as(values), values, vjp)

    def _unroll(self, batch: Batch, critic_inputs: Any) -> tuple[torch.Tensor, torch.Tensor, Callable[..., None]]:
        """Return outputs (B, F) and values (B,) of networks that remember, and what takes gradients with respect to them."""
        length = self.sequence_length
        by_time = lambda array: array.view(-1, length, *array.shape[1:]).transpose(0, 1)  # noqa: E731
        by_row = lambda array: array.transpose(0, 1).flatten(0, 1)  # noqa: E731
        count = len(batch.carries) // len(self.networks.parts)
        states = list(batch.carries.values())
        carries = tuple(tuple(states[i : i + count]) for i in range(0, len(states), count))
        inputs, critic_inputs = (spaces.map_arrays(by_time, rows) for rows in (batch.inputs, critic_inputs))
        logits, values, vjp = self.networks.unroll_with_vjp(inputs, critic_inputs, by_time(batch.starts), carries)
        return by_row(logits), by_row(values), lambda *gradients: vjp(*(by_time(each) for each in gradients))

    def descend(self, evaluation: Evaluation, gradients: losses.Gradients) -> torch.Tensor:
        """Step down a loss, given its gradients with respect to what the networks say; return the gradient's norm.

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

    def _read(self, rollout: Rollout) -> tuple[Any, Any]:
        """Return the networks' inputs (B, O) and, where the critic has its own, (B, S) for a rollout's rows (T, N, ...)."""
        actions = rollout.outputs["actions_before"].flatten(0, 1) if self.actions_read else None
        inputs = self.inputs.join(self.inputs(_rows(rollout.observations)), actions)
        if self.critic_inputs is None:
            return inputs, None
        return inputs, self.critic_inputs.join(self.critic_inputs(_rows(rollout.states)), actions)

    def _read_last(self, rollout: Rollout) -> Any:
        """Return the critic's inputs (K, ...) of successors that are no next rows."""
        last, reads = rollout.last_observations, self.inputs
        if self.critic_inputs is not None:
            last, reads = rollout.last_states, self.critic_inputs
        actions = rollout.outputs["actions"].flatten(0, 1)[rollout.last_rows] if self.actions_read else None
        return reads.join(reads(last), None if actions is None else self.distribution.as_numbers(actions))

    def _values(self, critic_inputs: Any) -> torch.Tensor:
        """Return values (B,) in the environment's units."""
        return self._denormalized(self.networks.values(critic_inputs))

    def _denormalized(self, values: torch.Tensor) -> torch.Tensor:
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
        if self.remembers:
            snapshot["training"]["carries"] = [array.cpu().numpy().copy() for array in leaves(self.carries)]
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
        if self.remembers:
            self.carries = filled(self.carries, iter(training["carries"]))

    def _restored_learning_rate(self, learning_rate: float) -> float:
        """Return a learning rate that is state as it was; one that is a setting as it is set now."""
        return self.cfg.learning_rate

    def _count_rows(self) -> int:
        return self.cfg.rollout_length * self.num_envs

    def _count_gradient_steps(self) -> int:
        return 1


def _rows(arrays: Arrays) -> Arrays:
    return spaces.map_arrays(lambda array: array.flatten(0, 1), arrays)


def _by_copy(array: torch.Tensor) -> torch.Tensor:
    """Return rows (T, N, ...) copy by copy, (N x T, ...)."""
    return array.transpose(0, 1).flatten(0, 1)


def _weights(rollout: Rollout) -> torch.Tensor | None:
    return None if rollout.valid is None else rollout.valid.view(-1).float()


def _moments(device: torch.device) -> normalizers.Moments:
    return normalizers.Moments(torch.zeros((), device=device), torch.ones((), device=device), torch.zeros((), device=device))
