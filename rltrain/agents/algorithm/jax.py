"""What every built-in algorithm has in common in JAX: settings, inputs, learners, acting, schedules, snapshots.

Pure functions over a state, as `rltrain.agents.pure.protocol.PureAlgorithm` describes them.
"""

import functools
from abc import abstractmethod
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rltrain.agents.base import HasRecipe
from rltrain.agents.learners.jax import Learner
from rltrain.agents.pure.jax import Pure, State
from rltrain.agents.pure.protocol import Policy
from rltrain.backends.jax import RANDOM, JaxBackend
from rltrain.checks import build
from rltrain.errors import ConfigError
from rltrain.models.encoders.jax import Encoder, features, make_encoder, make_inputs
from rltrain.models.freezing import find_frozen
from rltrain.models.inputs.jax import Inputs
from rltrain.ops import schedules
from rltrain.ops.trees.jax import to_arrays, to_moments, xp_of
from rltrain.rewards import find_reward_function
from rltrain.seeding import AGENT_ACTOR, AGENT_MINIBATCHES, AGENT_PARAMETERS, seed64
from rltrain.structures import Acting, Array, Arrays, Progress


class BaseAlgorithm(Pure, HasRecipe):
    """Acts by networks that learn; `OnPolicy` and `OffPolicy` say from what, an algorithm in `improve` how.

    Letters: N copies, B rows of a batch, F numbers that a distribution is made of, A the flat size of an action.
    """

    config: ClassVar[type]
    reads_infos = False
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
        backend: JaxBackend | None = None,
        key: str | None = None,
        encoder: nn.Module | None = None,
    ) -> None:
        self.key = key or f"agents.{type(self).__name__.lower()}"
        self.cfg: Any = build(self.config, cfg, self.key)
        self.backend = backend or JaxBackend()
        self.remembers = getattr(self.cfg.network, "cell", "none") != "none"
        self.num_envs = num_envs
        self.reward_function = find_reward_function(self.cfg.reward_function, self.key, jax.jit)
        self.schedule = self.cfg.schedule()
        self.actor_seed = seed64(seed, AGENT_ACTOR, index)
        self.seeds = [seed64(seed, role, index) for role in (AGENT_PARAMETERS, AGENT_MINIBATCHES)]

        self.encoder = encoder  # a ready-made one, of which each network has parameters of its own
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
        self._build(action_space)
        self._freeze()
        self._start(seed, index)
        self.compile()

    @abstractmethod
    def _build(self, action_space: Any) -> None:
        """Make the distribution and the networks, `acting` and others, and put these into `learners`.

        Raises ConfigError for an action space that the algorithm doesn't act in.
        """

    def _start(self, seed: int, index: int) -> None:
        """Make what an update needs besides the state, if it needs anything."""

    @abstractmethod
    def make_memory(self) -> Any:
        """Return an empty memory on the host for what is recorded."""

    def _make_inputs(self, space: Any, space_key: str) -> Inputs:
        """Return what turns observations, or states, into what an encoder or the first layer reads."""
        network, normalize = self.cfg.network, self.cfg.normalize_observations
        key = f"{self.key}.network"
        return make_inputs(space, network, key, normalize=normalize, module=self.encoder, space_key=space_key)

    def _make_encoder(self, inputs: Inputs) -> Encoder | None:
        """Return what makes features for one network, or None where inputs are rows of numbers."""
        return make_encoder(inputs, self.cfg.network, f"{self.key}.network", self.encoder, actions=self.actions_read)

    def _count_features(self, encoder: Encoder | None, inputs: Inputs) -> int:
        """Return how many numbers a network's first layer, or its cell, reads."""
        return features(encoder, inputs, self.actions_read)

    @functools.cached_property
    def actions_read(self) -> int:
        """How many numbers of the action before networks that remember read besides observations."""
        return self.distribution.width if self.remembers and self.cfg.network.remembers_actions else 0

    def _freeze(self) -> None:
        """Let parameters stay as they are whose names have the parts that the settings say."""
        if self.cfg.network.frozen:
            frozen = find_frozen(self.shapes(), self.cfg.network.frozen, f"{self.key}.network")
            for learner in self.learners.values():
                learner.frozen = frozen

    @property
    def images(self) -> dict[str, Any]:
        """The images in an observation that networks read as such, by path."""
        return self.inputs.images

    # -- acting --------------------------------------------------------------------------------------------------------

    def acting_noise(self, num_envs: int) -> tuple[str, tuple[int, ...]]:
        """Return kind and shape of the random numbers that one step of acting takes."""
        return self.distribution.noise, self.distribution.noise_shape(num_envs)

    def init_carry(self, num_envs: int) -> Any:
        """Return what `num_envs` copies' acting carries from timestep to timestep, as episodes are to begin: `init_noise`'s.

        With networks that remember: (starts (N,) bool, what the acting one remembers, the action before (N, A) or None, noise).
        """
        noise = self.init_noise(num_envs)
        if not self.remembers:
            return noise
        actions = np.zeros((num_envs, self.actions_read), np.float32) if self.actions_read else None
        return np.ones(num_envs, bool), self.acting.init_carry(num_envs), actions, noise

    def init_noise(self, num_envs: int) -> Array | None:
        """Return noise (N, ...) that goes on from timestep to timestep: none, unless an algorithm says so."""
        return None

    def reset_carry(self, carry: Any, done: Array) -> Any:
        """Return it begun anew where an episode ended, `done` (N,) bool: all zeros."""
        if not self.remembers:
            return _zeroed(carry, done)
        starts, *rest = carry
        return starts | done, *(_zeroed(part, done) for part in rest)

    def act(
        self,
        policy: Policy,
        actor: Acting,
        observations: Arrays,
        states: Arrays = None,
        action_masks: Array | None = None,
        *,
        explore: bool,
        progress: Progress,
    ) -> tuple[Acting, Array, dict[str, Array]]:
        """Return the next actor, actions (N, *A) as the environment takes them; exploring, what `record` wants, else logits.

        With NumPy arrays everything is computed in NumPy.
        """
        if not explore:
            inputs = self.inputs(policy.observation_moments, observations)
            actor, logits = self._look(policy.parameters, actor, inputs, action_masks)
            actions = self._best(logits)
            return self._note_actions(actor, actions), self._to_environment(actions), {"logits": logits}
        after, actions = self._explore(policy, actor, observations, action_masks, progress)
        outputs = {"actions": actions} if action_masks is None else {"actions": actions, "action_masks": action_masks}
        if self.remembers:
            outputs |= self._remembered(actor.carry)
        return self._note_actions(after, actions), self._to_environment(actions), outputs

    def _remembered(self, carry: Any) -> dict[str, Array]:
        """Return what learning is to know of what acting carried: it begins anew where acting did."""
        starts, _, actions, _ = carry
        return {"starts": starts} if actions is None else {"starts": starts, "actions_before": actions}

    def _note_actions(self, actor: Acting, actions: Array) -> Acting:
        """Return the actor with what it does, where its network reads that next time."""
        if not self.actions_read:
            return actor
        starts, remembered, _, noise = actor.carry
        return actor._replace(carry=(starts, remembered, self.distribution.as_numbers(actions), noise))

    def _look(self, parameters: dict[str, Array], actor: Acting, inputs: Any, action_masks: Array | None) -> tuple[Acting, Array]:
        """Return the next actor and logits."""
        if not self.remembers:
            return actor, self._logits(parameters, inputs, action_masks)
        starts, remembered, actions, noise = actor.carry
        outputs, remembered = self.acting.step(parameters, self.inputs.join(inputs, actions), remembered)
        carry = xp_of(starts).zeros_like(starts), remembered, actions, noise
        return actor._replace(carry=carry), self._masked(self._complete(outputs, parameters), action_masks)

    def _logits(self, parameters: dict[str, Array], inputs: Any, action_masks: Array | None) -> Array:
        """Return what the network that acts gives for these inputs, (B, F), of which `_best` makes actions."""
        return self._masked(self._complete(self.acting.logits(parameters, inputs), parameters), action_masks)

    def _complete(self, outputs: Array, parameters: dict[str, Array]) -> Array:
        """Return logits: a network's outputs with what is the distribution's own."""
        return self.distribution.complete(outputs, parameters)

    @abstractmethod
    def _best(self, logits: Array) -> Array:
        """Return the actions that look best, as they are learned."""

    @abstractmethod
    def _explore(
        self, policy: Policy, actor: Acting, observations: Arrays, action_masks: Array | None, progress: Progress
    ) -> tuple[Acting, Array]:
        """Return the next actor and actions to learn from."""

    def _to_environment(self, actions: Array) -> Array:
        """Return actions as the environment takes them."""
        return self.distribution.to_environment(actions)

    def _masked(self, logits: Array, action_masks: Array | None) -> Array:
        """Return logits of which only the choices that are allowed can be drawn."""
        return logits if action_masks is None else self.distribution.mask(logits, action_masks)

    # -- learning ------------------------------------------------------------------------------------------------------

    def _learning_rates(self, now: Array) -> dict[str, Array]:
        """Return every optimiser's learning rate, `now` that of the setting `learning_rate`; all follow the one schedule."""
        own = {name: getattr(self.cfg, f"{name}_learning_rate", None) for name in self.learners}
        return {name: now if rate is None else now * (rate / self.cfg.learning_rate) for name, rate in own.items()}

    def now(self, name: str, progress: Progress, every: int | None = None) -> Any:
        """Return the value of setting `name` by its schedule, for what happens once in `every` timesteps: an update, if None."""
        cfg, xp = self.cfg, np if isinstance(progress.timestep, int) else jnp
        done = schedules.fraction(xp, progress, self.schedule.every if every is None else every)
        kind, end = getattr(cfg, f"{name}_schedule"), getattr(cfg, f"{name}_end")
        return xp.float32(schedules.scheduled(xp, kind, getattr(cfg, name), end, done))

    # -- snapshots -----------------------------------------------------------------------------------------------------

    def snapshot(self, state: State) -> dict[str, Any]:
        """Return everything as arrays and plain data; "policy" is what acting needs, and the critics to go on from."""
        policy: dict[str, Any] = {"parameters": {}, "observation_moments": to_arrays(state.observation_moments)}
        training: dict[str, Any] = {"optimizers": {}, "targets": {}, "key": np.array(jax.random.key_data(state.key))}
        for name, learner in self.learners.items():
            parameters, training["optimizers"][name], target = learner.snapshot(state.learners[name])
            policy["parameters"] |= parameters
            training["targets"] |= {} if target is None else {name: target}
        return {"policy": policy, "training": training}

    def restore(self, state: State, snapshot: dict[str, Any]) -> State:
        """Return the state with everything put back; where only "policy" is there, only that, and targets are copies of it."""
        policy, training = snapshot["policy"], snapshot.get("training")
        learners = {}
        for name, learner in self.learners.items():
            optimizer = None if training is None else training["optimizers"][name]
            target = None if training is None else training["targets"].get(name)
            learners[name] = learner.restore(state.learners[name], policy["parameters"], optimizer, target)
        state = state._replace(learners=learners, observation_moments=to_moments(policy["observation_moments"]))
        if training is None:
            return state
        return state._replace(key=jax.random.wrap_key_data(jnp.asarray(training["key"]), impl=RANDOM))

    def describe(self, memory: Any = None) -> dict[str, Any]:
        """Return parameters, memory in bytes when it is full, gradient steps per update; `memory` is one that is shared."""
        row = self.inputs.row_bytes + 8 * max(1, int(np.prod(self.distribution.action_shape))) + self.row_bytes
        row += 0 if self.critic_inputs is None else self.critic_inputs.row_bytes
        return {
            "parameters": self.count_parameters(),
            "memory_bytes": row * (self._count_rows() if memory is None else memory.capacity),
            "gradient_steps_per_update": self._count_gradient_steps(),
        }

    @abstractmethod
    def _count_rows(self) -> int:
        """Return how many rows a full memory has."""

    @abstractmethod
    def _count_gradient_steps(self) -> int:
        """Return how many gradient steps an update takes."""


def _zeroed(carry: Any, done: Array) -> Any:
    """Return arrays (N, ...) in a tree with zeros where `done` (N,) bool."""
    return jax.tree.map(
        lambda part: xp_of(part, done).where(done.reshape(-1, *[1] * (part.ndim - 1)), np.float32(0), part), carry
    )
