"""What DQN, DDPG, SAC and what extends them have in common in PyTorch: warm-up, memory, targets, the steps of an update."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from rltrain.agents.base import Made
from rltrain.agents.off_policy.config import OffPolicyConfig
from rltrain.agents.off_policy.learners.torch import Batch, Diagnostics, Learner
from rltrain.backends.torch import TorchBackend
from rltrain.checks import build
from rltrain.memories.replay.torch import ReplayMemory
from rltrain.models.encoders.torch import make_encoder, make_inputs
from rltrain.models.freezing import find_frozen
from rltrain.ops import losses, normalizers, schedules
from rltrain.rewards import find_reward_function
from rltrain.seeding import AGENT_ACTOR, AGENT_MINIBATCHES, AGENT_PARAMETERS, seed64
from rltrain.structures import Arrays, Progress, Transition, UpdateSchedule


@dataclass
class Actor:
    """What acting carries."""

    generator: torch.Generator
    trains: bool  # an evaluation's actor, if told to explore, does so as at the end of the run
    noise: torch.Tensor | None = None  # (N, A) that drifts from timestep to timestep, where the algorithm has such


class OffPolicy(Made, ABC):
    """Collects transitions in a memory and learns from batches of them; an algorithm says in `_improve` how."""

    config: ClassVar[type[OffPolicyConfig]]
    reads_infos = False
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
        backend: TorchBackend | None = None,
        key: str | None = None,
        encoder: nn.Module | None = None,
    ) -> None:
        self.key = key or f"agents.{type(self).__name__.lower()}"
        self.cfg: Any = build(self.config, cfg, self.key)
        self.backend = backend or TorchBackend()
        self.num_envs = num_envs
        self.reward_function = find_reward_function(self.cfg.reward_function, self.key)
        self.schedule = UpdateSchedule(learning_starts=self.cfg.learning_starts, every=self.cfg.update_interval)
        self.actor_seed = seed64(seed, AGENT_ACTOR, index)
        self.keeps_memory = True  # in snapshots
        self._inference = torch.inference_mode()  # entered in each timestep; as a decorator it is made anew each time
        device, cfg = self.backend.device, self.cfg

        self.encoder = encoder  # a ready-made one, of which each network gets a copy
        settings: Any = self.cfg
        network, normalize = settings.network, settings.normalize_observations
        self.inputs = make_inputs(
            observation_space, self.backend.device, network, f"{self.key}.network", normalize=normalize, module=encoder
        )
        self.learners: dict[str, Learner] = {}
        self._build(action_space, torch.Generator().manual_seed(seed64(seed, AGENT_PARAMETERS, index)))
        names = [name for learner in self.learners.values() for name in learner.parameters.named]
        frozen = find_frozen(names, network.frozen, f"{self.key}.network")
        for learner in self.learners.values():
            learner.parameters.freeze(frozen)

        self.generator = torch.Generator(device).manual_seed(seed64(seed, AGENT_MINIBATCHES, index))  # of noise in learning
        self.memory = ReplayMemory(
            cfg.memory_size, num_envs, seed64(seed, AGENT_MINIBATCHES, index, 1), device,
            discount_factor=cfg.discount_factor, n_steps=cfg.n_steps, reward_scale=cfg.reward_scale,
            reward_clip=cfg.reward_clip, priority_exponent=cfg.priority_exponent if cfg.prioritized else None,
            mapped=cfg.memory_mapped, directory=cfg.memory_directory, key=self.key,
        )  # fmt: skip
        self.env_steps = 0  # since the last update
        self.unfolded = 0  # timesteps that the observations' statistics don't know yet
        self.gradient_steps = 0  # in all

    @abstractmethod
    def _build(self, action_space: Any, generator: torch.Generator) -> None:
        """Make the networks and put them into `learners`.

        Raises ConfigError for an action space that the algorithm doesn't act in.
        """

    def _encoder(self, generator: torch.Generator) -> nn.Module | None:
        """Return what makes features for one network, or None where inputs are rows of numbers."""
        return make_encoder(self.inputs, self.cfg.network, generator, f"{self.key}.network", self.encoder)

    @property
    def images(self) -> dict[str, Any]:
        """The images in an observation that networks read as such, by path."""
        return self.inputs.images

    # -- acting --------------------------------------------------------------------------------------------------------

    def init_actor(self, num_envs: int, seed: int) -> Actor:
        """Return a fresh actor with a random stream of its own."""
        return Actor(torch.Generator(self.backend.device).manual_seed(seed), trains=seed == self.actor_seed)

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
        with self._inference:
            if not explore:
                logits = self._logits(self.inputs(observations), action_masks)
                return actor, self._to_environment(self._best(logits)), {"logits": logits}
            if not actor.trains:
                progress = Progress(max(progress.timesteps, 1), max(progress.timesteps, 1))
            if actor.trains and progress.timestep < self.cfg.learning_starts:
                actions = self._draw_uniform(actor, count_rows(observations), action_masks)
            else:
                actions = self._explore(actor, self.inputs(observations), action_masks, progress)
            outputs = {"actions": actions} if action_masks is None else {"actions": actions, "action_masks": action_masks}
            return actor, self._to_environment(actions), outputs

    @abstractmethod
    def _logits(self, inputs: torch.Tensor, action_masks: torch.Tensor | None) -> torch.Tensor:
        """Return what the network gives for these inputs that `_best` reads an action from."""

    @abstractmethod
    def _best(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the actions that look best."""

    def _choose(self, inputs: torch.Tensor, action_masks: torch.Tensor | None) -> torch.Tensor:
        return self._best(self._logits(inputs, action_masks))

    @abstractmethod
    def _explore(self, actor: Actor, inputs: torch.Tensor, action_masks: torch.Tensor | None, progress: Progress) -> torch.Tensor:
        """Return actions to learn from."""

    @abstractmethod
    def _draw_uniform(self, actor: Actor, count: int, action_masks: torch.Tensor | None) -> torch.Tensor:
        """Return actions that are all equally likely."""

    @abstractmethod
    def _to_environment(self, actions: torch.Tensor) -> torch.Tensor:
        """Return actions as the environment takes them."""

    def reset_actor(self, actor: Actor, done: Any) -> Actor:
        """Begin the noise of episodes that ended anew."""
        if actor.noise is not None:
            actor.noise[torch.as_tensor(done, device=actor.noise.device)] = 0.0
        return actor

    def renew_actor(self, actor: Actor) -> Actor:
        """The actor's stream goes on by itself."""
        return actor

    def actor_snapshot(self, actor: Actor) -> dict[str, Any]:
        """Return the actor as plain data."""
        noise = None if actor.noise is None else actor.noise.cpu().numpy().copy()
        return {"generator": actor.generator.get_state().cpu().numpy(), "noise": noise}

    def restore_actor(self, snapshot: dict[str, Any]) -> Actor:
        """Return the actor that `snapshot` was taken of."""
        actor = self.init_actor(self.num_envs, self.actor_seed)
        actor.generator.set_state(torch.from_numpy(np.array(snapshot["generator"])))
        if actor.noise is not None:
            actor.noise.copy_(torch.from_numpy(np.array(snapshot["noise"])))
        return actor

    # -- learning ------------------------------------------------------------------------------------------------------

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
        cfg = self.cfg
        if self.memory.count < cfg.batch_size or self.memory.filled < min(cfg.learning_starts + 1, self.memory.timesteps):
            return {}
        env_steps = max(1, min(self.env_steps, cfg.update_interval * self.num_envs))  # the warm-up's don't count
        gradient_steps = env_steps if cfg.gradient_steps == "auto" else int(cfg.gradient_steps)
        self._fold_observations()
        self._set_learning_rates(progress)
        importance_exponent = min(1.0, self._now("importance_exponent", progress, cfg.update_interval))
        moves = self._targets_are_due(progress)
        diagnostics: dict[str, list[torch.Tensor]] = {}
        for _ in range(gradient_steps):
            # ---- batch
            sample = self.memory.sample(cfg.batch_size, importance_exponent)
            batch = self._prepare(sample)
            # ---- step
            self.gradient_steps += 1
            found, errors = self._improve(batch)
            for tag, value in found.items():
                diagnostics.setdefault(tag, []).append(value)
            # ---- priorities
            if cfg.prioritized:
                self.memory.update_priorities(sample.rows, errors.cpu().numpy())
            # ---- targets
            if moves and cfg.polyak < 1 and self._step_moves_targets():
                self._move_targets()
        if moves and cfg.polyak == 1:
            self._move_targets()
        self.env_steps = 0
        means = torch.stack([_mean(values) for values in diagnostics.values()]).tolist()
        return dict(zip(diagnostics, means, strict=True)) | self._report(progress, gradient_steps / env_steps)

    @abstractmethod
    def _improve(self, batch: Batch) -> tuple[Diagnostics, torch.Tensor]:
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
    def _regress(
        self, learner: Learner, values: torch.Tensor, vjp: Callable[..., Any], differences: torch.Tensor, batch: Batch
    ) -> Diagnostics:
        """Step down the loss of `differences` (C, B) of C critics' `values` (C, B), summed over critics, weighted mean over rows.

        `vjp` takes the gradient with respect to the values.
        """
        errors, gradients = losses.temporal_difference_loss(torch, differences, self.cfg.loss)
        if batch.weights is not None:
            errors, gradients = errors * batch.weights, gradients * batch.weights
        norm = learner.step(vjp, gradients / len(batch.returns), self.cfg.grad_norm_clip)
        return {"loss/q": errors.mean(), "value/q_mean": values.mean(), "value/grad_norm": norm}

    def _fold_observations(self) -> None:
        """Fold the observations since the last update into the statistics: acting and learning share them until the next."""
        if self.inputs.normalize:
            rows, weights = self.memory.newest(min(self.unfolded, self.memory.filled))
            as_tensor = self.backend.asarray
            rows = {name: as_tensor(array) for name, array in rows.items()} if isinstance(rows, dict) else as_tensor(rows)
            with torch.no_grad():
                self.inputs.fold(rows, None if weights is None else as_tensor(weights))
        self.unfolded = 0

    def _set_learning_rates(self, progress: Progress) -> None:
        """Give every optimiser its learning rate of now; all follow the one schedule."""
        now = self._now("learning_rate", progress, self.cfg.update_interval)
        for name, learner in self.learners.items():
            own = getattr(self.cfg, f"{name}_learning_rate", None)
            learner.optimizer.learning_rate = now if own is None else now * (own / self.cfg.learning_rate)

    def _now(self, name: str, progress: Progress, every: int) -> float:
        """Return the value of setting `name` according to its schedule, for what happens once in `every` timesteps."""
        cfg = self.cfg
        done = schedules.fraction(np, progress, every)
        kind, end = getattr(cfg, f"{name}_schedule"), getattr(cfg, f"{name}_end")
        return float(schedules.scheduled(np, kind, getattr(cfg, name), end, done))

    def _targets_are_due(self, progress: Progress) -> bool:
        """Tell whether a multiple of `target_update_interval` was reached since the update before this one."""
        interval, reached = self.cfg.target_update_interval, progress.timestep + 1
        return reached // interval > (reached - self.cfg.update_interval) // interval

    def _step_moves_targets(self) -> bool:
        """Tell whether the targets move after this gradient step."""
        return True

    def _move_targets(self) -> None:
        for learner in self.learners.values():
            learner.move_target(self.cfg.polyak)

    def _report(self, progress: Progress, replay_ratio: float) -> dict[str, float]:
        """Return the metrics that don't belong to single gradient steps."""
        return {
            "policy/learning_rate": self._now("learning_rate", progress, self.cfg.update_interval),
            "replay/ratio": replay_ratio,
            "replay/size": float(self.memory.count),
        }

    # -- keeping -------------------------------------------------------------------------------------------------------

    def is_finite(self) -> bool:
        """Tell whether every parameter is finite; a sum is, unless a term isn't."""
        return all(math.isfinite(learner.parameters.values.sum()) for learner in self.learners.values())

    def snapshot(self) -> dict[str, Any]:
        """Return everything as arrays and plain data; "policy" is what acting needs, and the critics to go on from."""
        parameters: dict[str, np.ndarray] = {}
        for learner in self.learners.values():
            parameters |= learner.parameters.snapshot()
        policy = {"parameters": parameters, "observation_moments": _to_arrays(self.inputs.moments)}
        training = {
            "optimizers": {name: learner.optimizer.snapshot() for name, learner in self.learners.items()},
            "targets": {
                name: learner.target_parameters.snapshot()
                for name, learner in self.learners.items()
                if learner.target_parameters is not None
            },
            "memory": self.memory.snapshot() if self.keeps_memory else None,
            "generator": self.generator.get_state().cpu().numpy(),
            "env_steps": self.env_steps,
            "unfolded": self.unfolded,
            "gradient_steps": self.gradient_steps,
        }
        return {"policy": policy, "training": training}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put everything back; a snapshot that holds only "policy" restores only that, and targets are copies of it."""
        policy = snapshot["policy"]
        for learner in self.learners.values():
            learner.parameters.restore(policy["parameters"])
            learner.move_target(1.0)
        moments = policy["observation_moments"]
        device = self.backend.device
        self.inputs.moments = normalizers.Moments(
            **{name: torch.as_tensor(np.array(array), device=device) for name, array in moments.items()}
        )
        if "training" not in snapshot:
            return
        training = snapshot["training"]
        for name, learner in self.learners.items():
            learner.optimizer.restore(training["optimizers"][name])
            if learner.target_parameters is not None:
                learner.target_parameters.restore(training["targets"][name])
        self.memory.restore(training["memory"])
        self.generator.set_state(torch.from_numpy(np.array(training["generator"])))
        self.env_steps, self.unfolded = int(training["env_steps"]), int(training["unfolded"])
        self.gradient_steps = int(training["gradient_steps"])

    def describe(self) -> dict[str, Any]:
        """Return parameters, memory in bytes when it is full, gradient steps per update."""
        cfg = self.cfg
        row = self.inputs.row_bytes + 8 * max(1, int(np.prod(self.distribution.action_shape))) + 11
        steps = cfg.update_interval * self.num_envs if cfg.gradient_steps == "auto" else cfg.gradient_steps
        return {
            "parameters": sum(learner.parameters.values.numel() for learner in self.learners.values()),
            "memory_bytes": row * self.memory.capacity,
            "gradient_steps_per_update": steps,
        }


def choose_uniform(count: int, size: int, masks: torch.Tensor | None, generator: torch.Generator) -> torch.Tensor:
    """Return `count` of `size` choices, (B,), each allowed one equally likely."""
    if masks is None:
        return torch.randint(size, (count,), generator=generator, device=generator.device)
    return torch.rand(masks.shape, generator=generator, device=generator.device).add_(1).mul_(masks).argmax(1)


def _mean(values: list[torch.Tensor]) -> torch.Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).mean()


def count_rows(observations: Arrays) -> int:
    """Return the number of rows of an array, or of each in a dict."""
    return len(next(iter(observations.values())) if isinstance(observations, dict) else observations)


def _to_arrays(moments: normalizers.Moments) -> dict[str, np.ndarray]:
    return {name: array.cpu().numpy().copy() for name, array in moments._asdict().items()}
