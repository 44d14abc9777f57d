"""Policies' distributions in JAX: distributions over actions, given by a network's outputs.

Shapes: B rows, A the flat size of an action. `logits` (B, size) are a network's outputs; `actions` are what `sample` gave,
which `to_environment` turns into what an environment takes. `statistics` (B, K) describe a distribution for `kl`.

What acting needs works on NumPy arrays too: small networks act several times as fast in NumPy as in a compiled call.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import log_softmax, softplus

from rltrain import spaces
from rltrain.errors import ConfigError
from rltrain.models.config import NetworkConfig
from rltrain.ops.trees.jax import xp_of
from rltrain.structures import Array

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
LOG_STD_BOUNDS = (-20.0, 2.0)  # of a standard deviation that a network gives
MASKED = -1e8  # logit of a choice that is not allowed: finite, so that 0 x log 0 is 0
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(32)

Parameters = dict[str, Array]


class Categorical:
    """A distribution over `n` choices, given by logits (B, n)."""

    noise = "exponential"

    def __init__(self, space: Any) -> None:
        self.size = self.width = int(space.n)
        self.start = int(space.start)
        self.parameters: Parameters = {}
        self.action_shape: tuple[int, ...] = ()

    def complete(self, outputs: Array, parameters: Parameters) -> Array:
        """Return the logits: a network's outputs, and of `parameters` by name the distribution's own, where it has any."""
        return outputs

    def mask(self, logits: Array, masks: Array) -> Array:
        """Return logits of which only those in `masks` (B, n) bool can be chosen."""
        return xp_of(logits).where(masks, logits, np.float32(MASKED))

    def noise_shape(self, rows: int) -> tuple[int, ...]:
        """Return the shape of the noise that `sample` takes, of the kind `noise`."""
        return (rows, self.size)

    def sample(self, logits: Array, noise: Array) -> Array:
        """Draw choices (B,) by the Gumbel-max trick: argmax(logits - log E), E exponential."""
        return (logits - _log(noise)).argmax(-1)

    def mode(self, logits: Array) -> Array:
        """Return the likeliest choices (B,)."""
        return logits.argmax(-1)

    def log_prob(self, logits: Array, actions: Array) -> Array:
        """Return log p(a), (B,)."""
        return jnp.take_along_axis(log_softmax(logits), actions[..., None], -1).squeeze(-1)

    def log_prob_and_entropy(self, logits: Array, actions: Array) -> tuple[Array, Array]:
        """Return log p(a) and -sum p log p, each (B,)."""
        log_probs = log_softmax(logits)
        entropy = -(jnp.exp(log_probs) * log_probs).sum(-1)
        return jnp.take_along_axis(log_probs, actions[..., None], -1).squeeze(-1), entropy

    def statistics(self, logits: Array) -> Array:
        """Return log p of every choice, (B, n)."""
        return log_softmax(logits)

    def kl(self, old: Array, new: Array) -> Array:
        """Return KL(old, new) = sum p_old (log p_old - log p_new), (B,)."""
        return (jnp.exp(old) * (old - new)).sum(-1)

    def as_numbers(self, actions: Array) -> Array:
        """Return choices one-hot, (B, width), for a network to read."""
        return (actions[:, None] == np.arange(self.size)).astype(np.float32)

    def to_environment(self, actions: Array) -> Array:
        """Return choices as the environment counts them, from `space.start`."""
        return actions + self.start if self.start else actions


class MultiCategorical:
    """Independent choices, D of them with n_1 ... n_D values each, given by their logits side by side (B, n_1 + ... + n_D)."""

    noise = "exponential"

    def __init__(self, space: Any) -> None:
        counts = spaces.choices(space) or []
        self.size, self.width, self.action_shape = sum(counts), sum(counts), tuple(space.shape)
        self.start = np.ravel(space.start)
        self.parameters: Parameters = {}
        # (D, max n): where each choice's logits are; the column after the last stands for values that a choice doesn't have
        index = np.full((len(counts), max(counts)), self.size)
        for row, (first, n) in enumerate(zip(np.cumsum([0, *counts[:-1]]), counts, strict=True)):
            index[row, :n] = np.arange(first, first + n)
        self.index = index

    def complete(self, outputs: Array, parameters: Parameters) -> Array:
        """Return the logits: a network's outputs, and of `parameters` by name the distribution's own, where it has any."""
        return outputs

    def mask(self, logits: Array, masks: Array) -> Array:
        """Return logits of which only those in `masks` (B, n_1 + ... + n_D) bool can be chosen."""
        return xp_of(logits).where(masks, logits, np.float32(MASKED))

    def _by_choice(self, logits: Array) -> Array:
        """Return logits (B, D, max n)."""
        return xp_of(logits).pad(logits, ((0, 0), (0, 1)), constant_values=MASKED)[:, self.index]

    def noise_shape(self, rows: int) -> tuple[int, ...]:
        """Return the shape of the noise that `sample` takes, of the kind `noise`."""
        return (rows, *self.index.shape)

    def sample(self, logits: Array, noise: Array) -> Array:
        """Draw choices (B, D) by the Gumbel-max trick."""
        return (self._by_choice(logits) - _log(noise)).argmax(-1)

    def mode(self, logits: Array) -> Array:
        """Return the likeliest choices (B, D)."""
        return self._by_choice(logits).argmax(-1)

    def log_prob(self, logits: Array, actions: Array) -> Array:
        """Return log p(a), the sum over choices, (B,)."""
        return jnp.take_along_axis(log_softmax(self._by_choice(logits)), actions[..., None], -1).sum((-2, -1))

    def log_prob_and_entropy(self, logits: Array, actions: Array) -> tuple[Array, Array]:
        """Return log p(a) and the entropy, sums over choices, each (B,)."""
        log_probs = log_softmax(self._by_choice(logits))
        entropy = -(jnp.exp(log_probs) * log_probs).sum((-2, -1))
        return jnp.take_along_axis(log_probs, actions[..., None], -1).sum((-2, -1)), entropy

    def statistics(self, logits: Array) -> Array:
        """Return log p of every value of every choice, (B, D x max n)."""
        return log_softmax(self._by_choice(logits)).reshape(len(logits), -1)

    def kl(self, old: Array, new: Array) -> Array:
        """Return KL(old, new), the sum over choices, (B,)."""
        return (jnp.exp(old) * (old - new)).sum(-1)

    def as_numbers(self, actions: Array) -> Array:
        """Return the choices one-hot side by side, (B, width), for a network to read."""
        columns = actions + self.index[:, 0]
        return (columns[:, :, None] == np.arange(self.size)).any(1).astype(np.float32)

    def to_environment(self, actions: Array) -> Array:
        """Return choices (B, *A) as the environment counts them, from `space.start`."""
        return (actions + self.start).reshape(-1, *self.action_shape)


class Bernoulli:
    """Independent bits, given by the logits of their being 1, (B, A)."""

    noise = "uniform"

    def __init__(self, space: Any) -> None:
        self.size, self.action_shape = int(np.prod(space.shape)), tuple(space.shape)
        self.width = self.size
        self.parameters: Parameters = {}

    def complete(self, outputs: Array, parameters: Parameters) -> Array:
        """Return the logits: a network's outputs, and of `parameters` by name the distribution's own, where it has any."""
        return outputs

    def noise_shape(self, rows: int) -> tuple[int, ...]:
        """Return the shape of the noise that `sample` takes, of the kind `noise`."""
        return (rows, self.size)

    def sample(self, logits: Array, noise: Array) -> Array:
        """Draw bits (B, A), as 0.0 and 1.0."""
        return (noise * (1 + xp_of(logits).exp(-logits)) < 1).astype(np.float32)

    def mode(self, logits: Array) -> Array:
        """Return the likelier bits (B, A)."""
        return (logits > 0).astype(np.float32)

    def log_prob(self, logits: Array, actions: Array) -> Array:
        """Return log p(a) = sum_i (a_i l_i - log(1 + e^l_i)), (B,)."""
        return (actions * logits - softplus(logits)).sum(-1)

    def log_prob_and_entropy(self, logits: Array, actions: Array) -> tuple[Array, Array]:
        """Return log p(a) and the entropy sum_i (log(1 + e^l_i) - l_i p_i), each (B,)."""
        entropy = (softplus(logits) - logits * jax.nn.sigmoid(logits)).sum(-1)
        return self.log_prob(logits, actions), entropy

    def statistics(self, logits: Array) -> Array:
        """Return the logits (B, A)."""
        return logits

    def kl(self, old: Array, new: Array) -> Array:
        """Return KL(old, new) = sum_i (p_i (l_old - l_new) - log(1 + e^l_old) + log(1 + e^l_new)), (B,)."""
        return (jax.nn.sigmoid(old) * (old - new) - softplus(old) + softplus(new)).sum(-1)

    def as_numbers(self, actions: Array) -> Array:
        """Return bits (B, width), for a network to read."""
        return actions

    def to_environment(self, actions: Array) -> Array:
        """Return bits (B, *A)."""
        return actions.astype(np.int8).reshape(-1, *self.action_shape)


class Gaussian:
    """A diagonal Gaussian; logits are its means and logarithms of standard deviations (B, 2 A).

    A bounded dimension is acted on in units of half its range, so that one initial standard deviation fits every space:
    environment action = clip(middle + half range x sample); the density is the unclipped sample's.
    """

    noise = "normal"

    def __init__(self, space: Any, cfg: NetworkConfig) -> None:
        self.actions = self.width = int(np.prod(space.shape))
        self.action_shape = tuple(space.shape)
        self.environment_dtype = np.float64 if space.dtype == np.float64 else np.float32
        low, high = spaces.limits(space)
        bounded = np.isfinite(low) & np.isfinite(high)
        with np.errstate(invalid="ignore", over="ignore"):
            middle, half = np.where(bounded, (low + high) / 2, 0.0), np.where(bounded, (high - low) / 2, 1.0)
        self.middle, self.half = middle.astype(self.environment_dtype), half.astype(self.environment_dtype)
        self.low, self.high = low.astype(self.environment_dtype), high.astype(self.environment_dtype)
        self.initial_log_std = cfg.initial_log_std
        self.state_dependent_std = cfg.state_dependent_std
        self.size = self.actions * (2 if cfg.state_dependent_std else 1)
        self.parameters: Parameters = {}
        if not cfg.state_dependent_std:
            self.parameters["log_std"] = np.full(self.actions, cfg.initial_log_std, np.float32)

    def complete(self, outputs: Array, parameters: Parameters) -> Array:
        """Return the logits: a network's outputs, and of `parameters` by name the distribution's own, where it has any."""
        xp = xp_of(outputs)
        if not self.state_dependent_std:
            return xp.concatenate((outputs, xp.broadcast_to(parameters["policy.log_std"], outputs.shape)), -1)
        means, log_stds = xp.split(outputs, 2, -1)
        return xp.concatenate((means, xp.clip(self.initial_log_std + log_stds, *LOG_STD_BOUNDS)), -1)

    def moments(self, logits: Array) -> tuple[Array, Array]:
        """Return means and logarithms of standard deviations, each (B, A)."""
        return logits[:, : self.actions], logits[:, self.actions :]

    def noise_shape(self, rows: int) -> tuple[int, ...]:
        """Return the shape of the noise that `sample` takes, of the kind `noise`."""
        return (rows, self.actions)

    def sample(self, logits: Array, noise: Array) -> Array:
        """Draw samples (B, A)."""
        means, log_std = self.moments(logits)
        return means + noise * xp_of(logits).exp(log_std)

    def mode(self, logits: Array) -> Array:
        """Return the means (B, A)."""
        return self.moments(logits)[0]

    def log_prob(self, logits: Array, actions: Array) -> Array:
        """Return log p(a) = -sum_i ((a_i - m_i)^2 / (2 s_i^2) + log s_i + log sqrt(2 pi)), (B,)."""
        means, log_std = self.moments(logits)
        z = (actions - means) * jnp.exp(-log_std)
        return -0.5 * (z * z).sum(-1) - (log_std.sum(-1) + self.actions * LOG_SQRT_2PI)

    def log_prob_and_entropy(self, logits: Array, actions: Array) -> tuple[Array, Array]:
        """Return log p(a) and the entropy sum_i (1/2 + log sqrt(2 pi) + log s_i), each (B,)."""
        _, log_std = self.moments(logits)
        return self.log_prob(logits, actions), log_std.sum(-1) + self.actions * (0.5 + LOG_SQRT_2PI)

    def statistics(self, logits: Array) -> Array:
        """Return means and logarithms of standard deviations side by side, (B, 2 A)."""
        return logits

    def kl(self, old: Array, new: Array) -> Array:
        """Return KL(old, new) = sum_i (log(s_new / s_old) + (s_old^2 + (m_old - m_new)^2) / (2 s_new^2) - 1/2), (B,)."""
        (m, log_s), (m_new, log_s_new) = self.moments(old), self.moments(new)
        squares = jnp.exp(2 * (log_s - log_s_new)) + ((m - m_new) * jnp.exp(-log_s_new)) ** 2
        return (log_s_new - log_s + 0.5 * (squares - 1)).sum(-1)

    def as_numbers(self, actions: Array) -> Array:
        """Return samples (B, width), for a network to read."""
        return actions

    def to_environment(self, actions: Array) -> Array:
        """Return actions (B, *A) in the environment's units, inside its bounds."""
        return self.scale(actions)

    def scale(self, actions: Array) -> Array:
        """Return middle + half range x action (B, *A), inside the bounds."""
        scaled = self.middle + self.half * actions.astype(self.environment_dtype)
        return xp_of(actions).clip(scaled, self.low, self.high).reshape(-1, *self.action_shape)


class SquashedGaussian(Gaussian):
    """A Gaussian sample u ends in tanh(u) (Haarnoja et al. 2018, appendix C); `actions` are the u.

    environment action = middle + half range x tanh(u); the density is that of tanh(u), so half ranges don't enter.
    """

    def log_prob(self, logits: Array, actions: Array) -> Array:
        """Return log p(tanh u) = log p(u) - sum_i log(1 - tanh^2 u_i), (B,)."""
        return super().log_prob(logits, actions) - _log_derivative(actions).sum(-1)

    def log_prob_and_entropy(self, logits: Array, actions: Array) -> tuple[Array, Array]:
        """Return log p(tanh u) and the entropy, the Gaussian's + E log(1 - tanh^2 u), each (B,).

        The expectation has no closed form; Gauss-Hermite quadrature with 32 nodes per dimension needs no random numbers;
        up to a standard deviation of 2.7 it is within 0.002, its gradient within 0.01.
        """
        means, log_std = self.moments(logits)
        at = means[..., None] + jnp.exp(log_std)[..., None] * NODES.astype(np.float32)
        correction = (_log_derivative(at) @ (WEIGHTS / WEIGHTS.sum()).astype(np.float32)).sum(-1)
        return self.log_prob(logits, actions), log_std.sum(-1) + self.actions * (0.5 + LOG_SQRT_2PI) + correction

    def draw(self, logits: Array, noise: Array) -> tuple[Array, Array]:
        """Return a = tanh(u) (B, A), u = mean + deviation x noise, and log p(a) (B,), both differentiable in the logits.

        Of log p = -sum_i (noise_i^2 / 2 + log s_i + log sqrt(2 pi) + log(1 - tanh^2 u_i)) the noise is given, not (u - m) / s.
        """
        means, log_std = self.moments(logits)
        samples = means + noise * jnp.exp(log_std)
        log_probs = (-0.5 * noise * noise - log_std - LOG_SQRT_2PI - _log_derivative(samples)).sum(-1)
        return jnp.tanh(samples), log_probs

    def to_environment(self, actions: Array) -> Array:
        """Return actions (B, *A) in the environment's units."""
        return self.scale(xp_of(actions).tanh(actions))


def _log_derivative(u: Array) -> Array:
    """Return log(1 - tanh^2 u) = 2 (log 2 - u - log(1 + e^(-2 u)))."""
    return 2 * (math.log(2) - u - softplus(-2 * u))


def _log(noise: Array) -> Array:
    """Return log E; E is 0 once in ten million draws, and would choose even what is masked."""
    return xp_of(noise).log(xp_of(noise).maximum(noise, np.finfo(np.float32).tiny))


Distribution = Categorical | MultiCategorical | Bernoulli | Gaussian


def make_distribution(space: Any, cfg: NetworkConfig, key: str) -> Distribution:
    """Return the policy's distribution for an action space; `key` is the dotted name of the network's settings, for errors.

    Raises ConfigError for a space that no distribution serves.
    """
    import gymnasium

    if isinstance(space, gymnasium.spaces.Discrete):
        return Categorical(space)
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return MultiCategorical(space)
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return Bernoulli(space)
    if isinstance(space, gymnasium.spaces.Box) and np.issubdtype(space.dtype, np.floating):
        if cfg.squashed and not spaces.is_bounded(space):
            raise ConfigError(f"{key}.squashed", True, f"the actions {space} are not bounded on all sides; use squashed=false")
        return (SquashedGaussian if cfg.squashed else Gaussian)(space, cfg)
    raise ConfigError(
        "env.action_space", space, "this agent acts in Discrete, MultiDiscrete, MultiBinary, and in Box spaces of floats"
    )
