"""What every built-in algorithm has in common in PyTorch: settings, inputs, learners, acting, schedules, snapshots."""

import functools
import math
from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from rltrain.agents.base import HasRecipe
from rltrain.agents.learners.torch import Learner
from rltrain.backends.torch import Actor, Stateful, TorchBackend
from rltrain.checks import build
from rltrain.errors import ConfigError
from rltrain.models.encoders.torch import features, make_encoder, make_inputs
from rltrain.models.freezing import find_frozen
from rltrain.models.inputs.torch import Inputs
from rltrain.ops import schedules
from rltrain.ops.trees.torch import to_arrays, to_moments
from rltrain.rewards import find_reward_function
from rltrain.seeding import AGENT_ACTOR, AGENT_PARAMETERS, seed64
from rltrain.structures import Arrays, Progress


class BaseAlgorithm(Stateful, HasRecipe):
    """Acts by networks that learn; `OnPolicy` and `OffPolicy` say from what, an algorithm in `improve` how.

    Letters: N copies, B rows of a batch, F numbers that a distribution is made of, A the flat size of an action.
    """

    config: ClassVar[type]
    reads_infos = False
    remembers = False  # whether networks remember, and acting carries that
    row_bytes: int  # that a memory takes for a row besides observations and actions
    acting: Any  # the network that acts; `_build` makes it, as what follows
    distribution: Any  # of actions as they are learned, and from these to what the environment takes

    def __init__(
        self,
        observation_space: Any,
        action_space: Any,
        *,
        state_space: Any = None,
        num_envs: int,
        cfg: Any = None,
        seed: int = 0,
        index: int = 0,
        backend: TorchBackend | None = None,
        key: str | None = None,
        encoder: nn.Module | None = None,
    ) -> None:
        self.key = key or f"agents.{type(self).__name__.lower()}"
        self.cfg: Any = build(self.config, cfg, self.key)
        self.backend = backend or TorchBackend()
        self.remembers = getattr(self.cfg.network, "cell", "none") != "none"
        self.num_envs = num_envs
        self.reward_function = find_reward_function(self.cfg.reward_function, self.key)
        self.schedule = self.cfg.schedule()
        self.actor_seed = seed64(seed, AGENT_ACTOR, index)

        self.encoder = encoder  # a ready-made one, of which each network gets a copy
        self.inputs = self._make_inputs(observation_space, "env.observation_space")
        self.critic_inputs: Inputs | None = None
        if state_space is not None and getattr(self.cfg, "use_states", False):
            if self.cfg.network.shared:
                raise ConfigError(
                    f"{self.key}.network.shared",
                    True,
                    "the environment has states, which only a critic's own network may read; set shared or use_states to false",
                )
            self.critic_inputs = self._make_inputs(state_space, "env.state_space")
        self.learners: dict[str, Learner] = {}
        self._build(action_space, torch.Generator().manual_seed(seed64(seed, AGENT_PARAMETERS, index)))
        self._freeze()
        self._start(seed, index)
        self.memory = self.make_memory()

    @abstractmethod
    def _build(self, action_space: Any, generator: torch.Generator) -> None:
        """Make the distribution and the networks, `acting` and others, and put these into `learners`.

        The generator is for fresh parameters.

        Raises ConfigError for an action space that the algorithm doesn't act in.
        """

    @abstractmethod
    def _start(self, seed: int, index: int) -> None:
        """Make what else learning carries."""

    @abstractmethod
    def make_memory(self) -> Any:
        """Return an empty memory for what is recorded."""

    def _make_inputs(self, space: Any, space_key: str) -> Inputs:
        """Return what turns observations, or states, into what an encoder or the first layer reads."""
        device, network, normalize = self.backend.device, self.cfg.network, self.cfg.normalize_observations
        key = f"{self.key}.network"
        return make_inputs(space, device, network, key, normalize=normalize, module=self.encoder, space_key=space_key)

    def _make_encoder(self, inputs: Inputs, generator: torch.Generator) -> nn.Module | None:
        """Return what makes features for one network, or None where inputs are rows of numbers."""
        key, actions = f"{self.key}.network", self.actions_read
        return make_encoder(inputs, self.cfg.network, generator, key, self.encoder, actions=actions)

    def _count_features(self, encoder: nn.Module | None, inputs: Inputs) -> int:
        """Return how many numbers a network's first layer, or its cell, reads."""
        return features(encoder, inputs, self.actions_read)

    @functools.cached_property
    def actions_read(self) -> int:
        """How many numbers of the action before networks that remember read besides observations."""
        return self.distribution.width if self.remembers and self.cfg.network.remembers_actions else 0

    def _freeze(self) -> None:
        """Let parameters stay as they are whose names have the parts that the settings say."""
        names = [name for learner in self.learners.values() for name in learner.parameters.named]
        frozen = find_frozen(names, self.cfg.network.frozen, f"{self.key}.network")
        for learner in self.learners.values():
            learner.parameters.freeze(frozen)

    @functools.cached_property
    def _inference(self) -> Any:
        """What is entered in each timestep; as a decorator it would be made anew each time."""
        return torch.inference_mode()

    def __getstate__(self) -> dict[str, Any]:
        """Travel, and be copied, without what can't."""
        return {name: value for name, value in self.__dict__.items() if name != "_inference"}

    @property
    def images(self) -> dict[str, Any]:
        """The images in an observation that networks read as such, by path."""
        return self.inputs.images

    # -- acting --------------------------------------------------------------------------------------------------------

    def init_carry(self, num_envs: int) -> Any:
        """Return what `num_envs` copies' acting carries from timestep to timestep, as episodes are to begin: `init_noise`'s.

        With networks that remember: (starts (N,) bool, what the acting one remembers, the action before (N, A) or None, noise).
        """
        noise, device = self.init_noise(num_envs), self.backend.device
        if not self.remembers:
            return noise
        actions = torch.zeros(num_envs, self.actions_read, device=device) if self.actions_read else None
        return torch.ones(num_envs, dtype=torch.bool, device=device), self.acting.init_carry(num_envs), actions, noise

    def init_noise(self, num_envs: int) -> torch.Tensor | None:
        """Return noise (N, ...) that goes on from timestep to timestep: none, unless an algorithm says so."""
        return None

    def reset_carry(self, carry: Any, done: torch.Tensor) -> Any:
        """Return it begun anew where an episode ended, `done` (N,) bool: all zeros."""
        if not self.remembers:
            return _zeroed(carry, done)
        starts, *rest = carry
        return starts | done, *(_zeroed(part, done) for part in rest)

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
        """Return the next actor, actions (N, *A) as the environment takes them; exploring, what `record` wants, else logits."""
        with self._inference:
            if not explore:
                actor, logits = self._look(actor, self.inputs(observations), action_masks)
                actions = self._best(logits)
                return self._note_actions(actor, actions), self._to_environment(actions), {"logits": logits}
            after, actions = self._explore(actor, observations, action_masks, progress)
            outputs = {"actions": actions} if action_masks is None else {"actions": actions, "action_masks": action_masks}
            if self.remembers:
                outputs |= self._remembered(actor.carry)
            return self._note_actions(after, actions), self._to_environment(actions), outputs

    def _remembered(self, carry: Any) -> dict[str, torch.Tensor]:
        """Return what learning is to know of what acting carried: it begins anew where acting did."""
        starts, _, actions, _ = carry
        return {"starts": starts} if actions is None else {"starts": starts, "actions_before": actions}

    def _note_actions(self, actor: Actor, actions: torch.Tensor) -> Actor:
        """Return the actor with what it does, where its network reads that next time."""
        if not self.actions_read:
            return actor
        starts, remembered, _, noise = actor.carry
        return replace(actor, carry=(starts, remembered, self.distribution.as_numbers(actions), noise))

    def _look(self, actor: Actor, inputs: Any, action_masks: torch.Tensor | None) -> tuple[Actor, torch.Tensor]:
        """Return the next actor and logits."""
        if not self.remembers:
            return actor, self._logits(inputs, action_masks)
        starts, remembered, actions, noise = actor.carry
        logits, remembered = self.acting.step(self.inputs.join(inputs, actions), remembered)
        carry = torch.zeros_like(starts), remembered, actions, noise
        return replace(actor, carry=carry), self._masked(logits, action_masks)

    def _logits(self, inputs: Any, action_masks: torch.Tensor | None) -> torch.Tensor:
        """Return what the network that acts gives for these inputs, (B, F), of which `_best` makes actions."""
        return self._masked(self.acting.logits(inputs), action_masks)

    @abstractmethod
    def _best(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the actions that look best, as they are learned."""

    @abstractmethod
    def _explore(
        self, actor: Actor, observations: Arrays, action_masks: torch.Tensor | None, progress: Progress
    ) -> tuple[Actor, torch.Tensor]:
        """Return the next actor and actions to learn from."""

    def _to_environment(self, actions: torch.Tensor) -> torch.Tensor:
        """Return actions as the environment takes them."""
        return self.distribution.to_environment(actions)

    def _masked(self, logits: torch.Tensor, action_masks: torch.Tensor | None) -> torch.Tensor:
        """Return logits of which only the choices that are allowed can be drawn."""
        return logits if action_masks is None else self.distribution.mask(logits, action_masks)

    # -- learning ------------------------------------------------------------------------------------------------------

    def _learning_rates(self, now: float) -> dict[str, float]:
        """Return every optimiser's learning rate, `now` that of the setting `learning_rate`; all follow the one schedule."""
        own = {name: getattr(self.cfg, f"{name}_learning_rate", None) for name in self.learners}
        return {name: now if rate is None else now * (rate / self.cfg.learning_rate) for name, rate in own.items()}

    def now(self, name: str, progress: Progress, every: int | None = None) -> float:
        """Return the value of setting `name` by its schedule, for what happens once in `every` timesteps: an update, if None."""
        cfg = self.cfg
        done = schedules.fraction(np, progress, self.schedule.every if every is None else every)
        kind, end = getattr(cfg, f"{name}_schedule"), getattr(cfg, f"{name}_end")
        return float(schedules.scheduled(np, kind, getattr(cfg, name), end, done))

    # -- snapshots -----------------------------------------------------------------------------------------------------

    def is_finite(self) -> bool:
        """Tell whether every parameter is finite; a sum is, unless a term isn't."""
        return all(math.isfinite(learner.parameters.values.sum()) for learner in self.learners.values())

    def snapshot(self) -> dict[str, Any]:
        """Return everything as arrays and plain data; "policy" is what acting needs, and the critics to go on from."""
        policy: dict[str, Any] = {"parameters": {}, "observation_moments": to_arrays(self.inputs.moments)}
        training: dict[str, Any] = {"optimizers": {}, "targets": {}}
        if self.critic_inputs is not None:
            policy["state_moments"] = to_arrays(self.critic_inputs.moments)
        for name, learner in self.learners.items():
            parameters, training["optimizers"][name], target = learner.snapshot()
            policy["parameters"] |= parameters
            training["targets"] |= {} if target is None else {name: target}
        return {"policy": policy, "training": training}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put everything back; a snapshot that holds only "policy" restores only that, and targets are copies of it."""
        policy, training = snapshot["policy"], snapshot.get("training")
        for name, learner in self.learners.items():
            optimizer = None if training is None else training["optimizers"][name]
            target = None if training is None else training["targets"].get(name)
            learner.restore(policy["parameters"], optimizer, target)
        self.inputs.moments = to_moments(policy["observation_moments"], self.backend.device)
        if self.critic_inputs is not None:
            self.critic_inputs.moments = to_moments(policy["state_moments"], self.backend.device)

    def describe(self) -> dict[str, Any]:
        """Return parameters, memory in bytes when it is full, gradient steps per update."""
        row = self.inputs.row_bytes + 8 * max(1, int(np.prod(self.distribution.action_shape))) + self.row_bytes
        row += 0 if self.critic_inputs is None else self.critic_inputs.row_bytes
        return {
            "parameters": sum(learner.parameters.values.numel() for learner in self.learners.values()),
            "memory_bytes": row * self._count_rows(),
            "gradient_steps_per_update": self._count_gradient_steps(),
        }

    @abstractmethod
    def _count_rows(self) -> int:
        """Return how many rows a full memory has."""

    @abstractmethod
    def _count_gradient_steps(self) -> int:
        """Return how many gradient steps an update takes."""


def _zeroed(carry: Any, done: torch.Tensor) -> Any:
    """Return arrays (N, ...), nested in tuples or None, with zeros where `done` (N,) bool."""
    if carry is None or isinstance(carry, tuple):
        return carry and tuple(_zeroed(part, done) for part in carry)
    return torch.where(done.view(-1, *[1] * (carry.ndim - 1)), torch.zeros_like(carry), carry)
