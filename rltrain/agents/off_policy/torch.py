"""What DQN, DDPG, SAC and what extends them have in common in PyTorch: warm-up, memory, targets, the steps of an update."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from rltrain import spaces
from rltrain.agents.algorithm.torch import BaseAlgorithm
from rltrain.agents.off_policy.config import OffPolicyConfig
from rltrain.backends.torch import Actor
from rltrain.memories.replay.host import Window
from rltrain.memories.replay.ring import CARRY
from rltrain.memories.replay.torch import ReplayMemory
from rltrain.models.engines.torch import VJP
from rltrain.models.sequences import Run, Sequences, Successors
from rltrain.ops import losses
from rltrain.seeding import AGENT_MINIBATCHES, seed64
from rltrain.structures import Arrays, Progress, Transition, count_rows

Diagnostics = dict[str, torch.Tensor]  # each (), by tag


@dataclass
class Batch:
    """Transitions, ready to learn from; for networks that remember, rows of sequences."""

    inputs: Any  # (B, O) normalised, where there are images see `Inputs`; or `Sequences`
    next_inputs: Any  # (B, O) normalised, k steps later; or `Successors`
    actions: torch.Tensor  # (B, A), or (B,) choices
    returns: torch.Tensor  # (B,) sums of k rewards
    discounts: torch.Tensor  # (B,) gamma^k, 0 where the episode terminated
    weights: torch.Tensor | None  # (B,) importance weights, or None: all alike
    next_action_masks: torch.Tensor | None  # (B, M) bool, or None: all are allowed
    action_masks: torch.Tensor | None  # (B, M) bool, or None
    happened: torch.Tensor | None = None  # (B,) 0 where a row of a sequence did not happen, or None: all did


class OffPolicy(BaseAlgorithm):
    """Collects transitions in a memory and learns from batches of them; an algorithm says in `improve` how."""

    config: ClassVar[type[OffPolicyConfig]]
    row_bytes = 11

    def _start(self, seed: int, index: int) -> None:
        seeds = seed, AGENT_MINIBATCHES, index
        self.generator = torch.Generator(self.backend.device).manual_seed(seed64(*seeds))  # of noise in learning
        self.memory_seed = seed64(*seeds, 1)
        self.keeps_memory = True  # in snapshots
        self.env_steps = 0  # since the last update
        self.unfolded = 0  # timesteps that the observations' statistics don't know yet
        self.gradient_steps = 0  # in all
        self.row_bytes += self.cfg.bytes_remembered(self.actions_read)

    # -- acting --------------------------------------------------------------------------------------------------------

    def _explore(
        self, actor: Actor, observations: Arrays, action_masks: torch.Tensor | None, progress: Progress
    ) -> tuple[Actor, torch.Tensor]:
        if not actor.trains:
            progress = Progress(max(progress.timesteps, 1), max(progress.timesteps, 1))
        if actor.trains and progress.timestep < self.cfg.learning_starts:
            if self.remembers:
                actor, _ = self._look(actor, self.inputs(observations), action_masks)
            return actor, self._draw_uniform(actor, count_rows(observations), action_masks)
        return self._deviate(actor, self.inputs(observations), action_masks, progress)

    @abstractmethod
    def _deviate(
        self, actor: Actor, inputs: Any, action_masks: torch.Tensor | None, progress: Progress
    ) -> tuple[Actor, torch.Tensor]:
        """Return the next actor and what it does after the warm-up: the best actions, and something else now and then."""

    @abstractmethod
    def _draw_uniform(self, actor: Actor, count: int, action_masks: torch.Tensor | None) -> torch.Tensor:
        """Return actions that are all equally likely."""

    def _remembered(self, carry: Any) -> dict[str, torch.Tensor]:
        outputs = super()._remembered(carry)
        return outputs | dict(zip(CARRY, carry[1], strict=False)) if self.cfg.stored_state else outputs

    def _choose(self, inputs: Any, action_masks: torch.Tensor | None) -> torch.Tensor:
        return self._best(self._logits(inputs, action_masks))

    # -- learning ------------------------------------------------------------------------------------------------------

    def make_memory(self) -> ReplayMemory:
        """Return a memory for `update`."""
        cfg = self.cfg
        return ReplayMemory(
            cfg.memory_size,
            self.num_envs,
            self.memory_seed,
            self.backend.device,
            discount_factor=cfg.discount_factor,
            n_steps=cfg.n_steps,
            reward_scale=cfg.reward_scale,
            reward_clip=cfg.reward_clip,
            priority_exponent=cfg.priority_exponent if cfg.prioritized else None,
            mapped=cfg.memory_mapped,
            directory=cfg.memory_directory,
            key=self.key,
            window=Window(cfg.burn_in, cfg.sequence_length, cfg.window) if self.remembers else None,
        )

    def record(self, transition: Transition) -> None:
        """Store one transition of all copies."""
        if self.memory.filled == 0:
            self.cfg.check_copies(self.memory.num_envs, self.key)
        self.memory.record(transition)
        self.env_steps += self.num_envs if transition.valid is None else int(np.sum(transition.valid))
        self.unfolded += 1

    def interrupt(self, next_observations: Arrays, next_states: Arrays = None) -> None:
        """Take the last row recorded of every copy as truncated there, unless its episode ended anyway."""
        self.memory.interrupt()

    def discard(self) -> None:
        """Keep every transition; the running episodes end where they are."""
        self.memory.interrupt()

    def update(self, progress: Progress) -> dict[str, float]:
        """Take the gradient steps that are due; return diagnostics, means over them.

        Nothing is learned before the memory holds a batch, and as many timesteps as learning starts after: after a resume
        without the memory it fills first.
        """
        cfg, memory = self.cfg, self.memory
        lacks = memory.filled < cfg.window if self.remembers else memory.count < cfg.batch_size
        if lacks or memory.filled < min(cfg.learning_starts + 1, memory.timesteps):
            return {}
        env_steps = max(1, min(self.env_steps, cfg.update_interval * self.num_envs))  # the warm-up's don't count
        gradient_steps = env_steps if cfg.gradient_steps == "auto" else int(cfg.gradient_steps)
        self._fold_observations()
        diagnostics = self.improve_by_steps(gradient_steps, progress)
        self.env_steps = 0
        means = torch.stack([v[0] if len(v) == 1 else torch.stack(v).mean() for v in diagnostics.values()]).tolist()
        return dict(zip(diagnostics, means, strict=True)) | self.report(progress, gradient_steps / env_steps)

    def improve_by_steps(self, steps: int, progress: Progress) -> dict[str, list[torch.Tensor]]:
        """Take gradient steps, each on a batch of its own; return their diagnostics."""
        cfg, rates = self.cfg, self._learning_rates(self.now("learning_rate", progress))
        importance_exponent = min(1.0, self.now("importance_exponent", progress))
        collected: dict[str, list[torch.Tensor]] = {}
        for k in range(steps):
            # ---- batch
            sample = self.memory.sample(cfg.drawn, importance_exponent)
            batch = self._prepare_windows(sample) if self.remembers else self._prepare(sample)
            # ---- step
            self.gradient_steps += 1
            diagnostics, errors = self.improve(batch, rates)
            for tag, value in diagnostics.items():
                collected.setdefault(tag, []).append(value)
            # ---- priorities
            if cfg.prioritized:
                errors = self._sequence_errors(errors, batch) if self.remembers else errors
                self.memory.update_priorities(sample.rows, errors.cpu().numpy())
            # ---- targets
            self._move_targets_if_due(progress, k == steps - 1)
        return collected

    @abstractmethod
    def improve(self, batch: Batch, rates: dict[str, float]) -> tuple[Diagnostics, torch.Tensor]:
        """Take one gradient step; return its diagnostics and the errors (B,) that priorities follow."""

    @torch.no_grad()
    def _prepare(self, sample: Any) -> Batch:
        """Return what was drawn as inputs of the networks."""
        return Batch(
            inputs=self.inputs(sample.observations),
            next_inputs=self.inputs(sample.next_observations),
            actions=sample.outputs["actions"],
            returns=sample.returns,
            discounts=sample.discounts,
            weights=sample.weights,
            next_action_masks=sample.outputs.get("next_action_masks"),
            action_masks=sample.outputs.get("action_masks"),
        )

    @torch.no_grad()
    def _prepare_windows(self, sample: Any) -> Batch:
        """Return what was drawn as sequences, timestep by timestep; successors are read with what is remembered before them."""
        outputs, burn_in, length = sample.outputs, self.cfg.burn_in, self.cfg.sequence_length
        starts = outputs["starts"].transpose(0, 1)  # (T, S)
        before = _rows(outputs["actions_before"]) if self.actions_read else None
        inputs = self.inputs.join(self.inputs(spaces.map_arrays(_rows, sample.observations)), before)
        by_time = spaces.map_arrays(lambda array: array.view(*starts.shape, *array.shape[1:]), inputs)

        def run(first: int, end: int | None = None) -> Run:
            return Run(spaces.map_arrays(lambda array: array[first:end], by_time), starts[first:end])

        sequences = Sequences(run(0, burn_in), run(burn_in, burn_in + length), sample.carry)
        actions = self.distribution.as_numbers(_rows(sample.last_actions)) if self.actions_read else None
        following = self.inputs.join(self.inputs(spaces.map_arrays(_rows, sample.next_observations)), actions)
        count = starts.shape[1]
        after = sample.last * count + torch.arange(count, device=starts.device)[:, None]
        optional = (sample.weights, outputs.get("next_action_masks"), outputs.get("action_masks"), sample.happened)
        return Batch(
            sequences,
            Successors(sequences._replace(rows=run(burn_in)), following, _rows(after)),
            _rows(outputs["actions"]),
            _rows(sample.returns),
            _rows(sample.discounts),
            *(None if array is None else _rows(array) for array in optional),
        )

    def _sequence_errors(self, errors: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return what priorities of sequences follow, (S,), of their rows' errors (B,)."""
        by_time = lambda rows: rows.view(self.cfg.sequence_length, -1)  # noqa: E731
        happened = None if batch.happened is None else by_time(batch.happened)
        return losses.sequence_errors(torch, by_time(errors), happened)

    def mean(self, rows: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the mean of (B,) or (C, B) over the batch's rows, without those that did not happen."""
        if batch.happened is None:
            return rows.mean()
        return losses.mean(torch, rows if rows.ndim == 1 else rows.mean(0), batch.happened)

    def shares(self, batch: Batch) -> torch.Tensor:
        """Return each row's share in `mean`, (B,)."""
        return losses.shares(torch, batch.returns, batch.happened)

    def _regress(
        self, name: str, values: torch.Tensor, vjp: VJP, targets: torch.Tensor, batch: Batch, learning_rate: float
    ) -> tuple[Diagnostics, torch.Tensor]:
        """Step down the loss of `values` (C, B), of C critics, against targets (B,); return their differences too.

        The loss is summed over critics, the weighted mean over rows. `vjp` takes the gradient with respect to the values.
        """
        differences = values - targets
        errors, gradients = losses.temporal_difference_loss(torch, differences, self.cfg.loss)
        if batch.weights is not None:
            errors, gradients = errors * batch.weights, gradients * batch.weights
        share = gradients / len(batch.returns) if batch.happened is None else gradients * self.shares(batch)
        norm = self.descend(name, vjp, share, learning_rate)
        diagnostics = {
            "loss/q": self.mean(errors, batch),
            "value/q_mean": self.mean(values, batch),
            "value/grad_norm": norm,
            "value/target_mean": self.mean(targets, batch),
        }
        return diagnostics, differences

    def descend(self, name: str, vjp: Callable[..., Any], gradients: Any, learning_rate: float) -> torch.Tensor:
        """Let a learner take one step down a loss, given its gradients with respect to what `vjp` takes; return their norm."""
        learner = self.learners[name]
        learner.parameters.clear_gradients()
        vjp(gradients)
        return learner.step(learning_rate, self.cfg.grad_norm_clip)

    def _fold_observations(self) -> None:
        """Fold the observations since the last update into the statistics: acting and learning share them until the next."""
        if self.inputs.normalize:
            rows, weights = self.memory.newest(min(self.unfolded, self.memory.filled))
            as_tensor = self.backend.asarray
            rows = {name: as_tensor(array) for name, array in rows.items()} if isinstance(rows, dict) else as_tensor(rows)
            with torch.no_grad():
                self.inputs.fold(rows, None if weights is None else as_tensor(weights))
        self.unfolded = 0

    def _targets_are_due(self, progress: Progress) -> bool:
        """Tell whether a multiple of `target_update_interval` was reached since the update before this one."""
        interval, reached = self.cfg.target_update_interval, progress.timestep + 1
        return reached // interval > (reached - self.cfg.update_interval) // interval

    def _step_moves_targets(self) -> bool:
        """Tell whether the targets move after this gradient step."""
        return True

    def _move_targets_if_due(self, progress: Progress, is_last: bool) -> None:
        """Move the targets after a gradient step, or copy them after the last one."""
        if self._targets_are_due(progress) and (is_last if self.cfg.polyak == 1 else self._step_moves_targets()):
            self._move_targets()

    def _noise(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Draw standard normal noise for a gradient step."""
        return torch.empty(shape, device=self.backend.device).normal_(generator=self.generator)

    def _move_targets(self) -> None:
        for learner in self.learners.values():
            learner.move_target(self.cfg.polyak)

    def report(self, progress: Progress, replay_ratio: float) -> dict[str, float]:
        """Return the metrics that don't belong to single gradient steps."""
        return {
            "policy/learning_rate": self.now("learning_rate", progress),
            "replay/ratio": replay_ratio,
            "replay/size": float(self.memory.count),
        }

    # -- snapshots -----------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Return everything as arrays and plain data; "policy" is what acting needs, and the critics to go on from."""
        snapshot = super().snapshot()
        snapshot["training"] |= {
            "memory": self.memory.snapshot() if self.keeps_memory else None,
            "generator": self.generator.get_state().cpu().numpy(),
            "env_steps": self.env_steps,
            "unfolded": self.unfolded,
            "gradient_steps": self.gradient_steps,
        }
        return snapshot

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put everything back; a snapshot that holds only "policy" restores only that, and targets are copies of it."""
        super().restore(snapshot)
        if "training" not in snapshot:
            return
        training = snapshot["training"]
        self.memory.restore(training["memory"])
        self.generator.set_state(torch.from_numpy(np.array(training["generator"])))
        self.env_steps, self.unfolded = int(training["env_steps"]), int(training["unfolded"])
        self.gradient_steps = int(training["gradient_steps"])

    def _count_rows(self) -> int:
        return self.memory.capacity

    def _count_gradient_steps(self) -> int:
        cfg = self.cfg
        return cfg.update_interval * self.num_envs if cfg.gradient_steps == "auto" else int(cfg.gradient_steps)


def _rows(array: torch.Tensor) -> torch.Tensor:
    """Return windows (S, T, ...) as rows, timestep by timestep, (T x S, ...)."""
    return array.transpose(0, 1).flatten(0, 1)


def choose_uniform(count: int, size: int, masks: torch.Tensor | None, generator: torch.Generator) -> torch.Tensor:
    """Return `count` of `size` choices, (B,), each allowed one equally likely."""
    if masks is None:
        return torch.randint(size, (count,), generator=generator, device=generator.device)
    return torch.rand(masks.shape, generator=generator, device=generator.device).add_(1).mul_(masks).argmax(1)


def draw_in_range(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return actions (N, A) that are uniform in [-1, 1]."""
    return torch.rand(shape, generator=generator, device=generator.device).mul_(2).sub_(1)
