"""Policies' distributions in PyTorch: distributions over actions, given by a network's outputs.

Shapes: B rows, A the flat size of an action. `logits` (B, size) are a network's outputs; `actions` are what `sample` gave,
which `to_environment` turns into what an environment takes. `statistics` (B, K) describe a distribution for `kl`.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import softplus

from rltrain import spaces
from rltrain.errors import ConfigError
from rltrain.models.config import NetworkConfig

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
LOG_STD_BOUNDS = (-20.0, 2.0)  # of a standard deviation that a network gives
MASKED = -1e8  # logit of a choice that is not allowed: finite, so that 0 x log 0 is 0
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(32)


class Categorical:
    """A distribution over `n` choices, given by logits (B, n)."""

    def __init__(self, space: Any) -> None:
        self.size = self.width = int(space.n)
        self.start = int(space.start)
        self.parameters: dict[str, nn.Parameter] = {}
        self.action_shape: tuple[int, ...] = ()

    def mask(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Return logits of which only those in `masks` (B, n) bool can be chosen."""
        return logits.masked_fill(~masks, MASKED)

    def sample(self, logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draw choices (B,) by the Gumbel-max trick: argmax(logits - log E), E exponential."""
        noise = torch.empty_like(logits).exponential_(generator=generator)
        return (logits - noise.log_()).argmax(-1)

    def mode(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the likeliest choices (B,)."""
        return logits.argmax(-1)

    def log_prob(self, logits: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return log p(a), (B,)."""
        return torch.log_softmax(logits, -1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def log_prob_and_entropy(self, logits: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log p(a) and -sum p log p, each (B,)."""
        log_probs = torch.log_softmax(logits, -1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        return log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1), entropy

    def statistics(self, logits: torch.Tensor) -> torch.Tensor:
        """Return log p of every choice, (B, n)."""
        return torch.log_softmax(logits, -1)

    def kl(self, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Return KL(old, new) = sum p_old (log p_old - log p_new), (B,)."""
        return (old.exp() * (old - new)).sum(-1)

    def as_numbers(self, actions: torch.Tensor) -> torch.Tensor:
        """Return choices one-hot, (B, width), for a network to read."""
        return nn.functional.one_hot(actions.long(), self.size).float()

    def to_environment(self, actions: torch.Tensor) -> torch.Tensor:
        """Return choices as the environment counts them, from `space.start`."""
        return actions + self.start if self.start else actions


class MultiCategorical:
    """Independent choices, D of them with n_1 ... n_D values each, given by their logits side by side (B, n_1 + ... + n_D)."""

    def __init__(self, space: Any, device: torch.device) -> None:
        counts = spaces.choices(space) or []
        self.size, self.width, self.action_shape = sum(counts), sum(counts), tuple(space.shape)
        self.start = torch.as_tensor(np.ravel(space.start), device=device)
        self.parameters: dict[str, nn.Parameter] = {}
        # (D, max n): where each choice's logits are; the column after the last stands for values that a choice doesn't have
        index = np.full((len(counts), max(counts)), self.size)
        for row, (first, n) in enumerate(zip(np.cumsum([0, *counts[:-1]]), counts, strict=True)):
            index[row, :n] = np.arange(first, first + n)
        self.index = torch.as_tensor(index, device=device)

    def mask(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Return logits of which only those in `masks` (B, n_1 + ... + n_D) bool can be chosen."""
        return logits.masked_fill(~masks, MASKED)

    def _by_choice(self, logits: torch.Tensor) -> torch.Tensor:
        """Return logits (B, D, max n)."""
        return nn.functional.pad(logits, (0, 1), value=MASKED)[:, self.index]

    def sample(self, logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draw choices (B, D) by the Gumbel-max trick."""
        logits = self._by_choice(logits)
        noise = torch.empty_like(logits).exponential_(generator=generator)
        return (logits - noise.log_()).argmax(-1)

    def mode(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the likeliest choices (B, D)."""
        return self._by_choice(logits).argmax(-1)

    def log_prob(self, logits: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return log p(a), the sum over choices, (B,)."""
        return torch.log_softmax(self._by_choice(logits), -1).gather(-1, actions.unsqueeze(-1)).sum((-2, -1))

    def log_prob_and_entropy(self, logits: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log p(a) and the entropy, sums over choices, each (B,)."""
        log_probs = torch.log_softmax(self._by_choice(logits), -1)
        entropy = -(log_probs.exp() * log_probs).sum((-2, -1))
        return log_probs.gather(-1, actions.unsqueeze(-1)).sum((-2, -1)), entropy

    def statistics(self, logits: torch.Tensor) -> torch.Tensor:
        """Return log p of every value of every choice, (B, D x max n)."""
        return torch.log_softmax(self._by_choice(logits), -1).flatten(1)

    def kl(self, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Return KL(old, new), the sum over choices, (B,)."""
        return (old.exp() * (old - new)).sum(-1)

    def as_numbers(self, actions: torch.Tensor) -> torch.Tensor:
        """Return the choices one-hot side by side, (B, width), for a network to read."""
        return torch.zeros(actions.shape[0], self.size, device=actions.device).scatter_(1, self.index[:, 0] + actions, 1.0)

    def to_environment(self, actions: torch.Tensor) -> torch.Tensor:
        """Return choices (B, *A) as the environment counts them, from `space.start`."""
        return (actions + self.start).reshape(-1, *self.action_shape)


class Bernoulli:
    """Independent bits, given by the logits of their being 1, (B, A)."""

    def __init__(self, space: Any) -> None:
        self.size, self.action_shape = int(np.prod(space.shape)), tuple(space.shape)
        self.width = self.size
        self.parameters: dict[str, nn.Parameter] = {}

    def sample(self, logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draw bits (B, A), as 0.0 and 1.0."""
        uniform = torch.rand(logits.shape, generator=generator, device=logits.device)
        return (uniform < torch.sigmoid(logits)).float()

    def mode(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the likelier bits (B, A)."""
        return (logits > 0).float()

    def log_prob(self, logits: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return log p(a) = sum_i (a_i l_i - log(1 + e^l_i)), (B,)."""
        return (actions * logits - softplus(logits)).sum(-1)

    def log_prob_and_entropy(self, logits: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log p(a) and the entropy sum_i (log(1 + e^l_i) - l_i p_i), each (B,)."""
        entropy = (softplus(logits) - logits * torch.sigmoid(logits)).sum(-1)
        return self.log_prob(logits, actions), entropy

    def statistics(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, A)."""
        return logits

    def kl(self, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Return KL(old, new) = sum_i (p_i (l_old - l_new) - log(1 + e^l_old) + log(1 + e^l_new)), (B,)."""
        return (torch.sigmoid(old) * (old - new) - softplus(old) + softplus(new)).sum(-1)

    def as_numbers(self, actions: torch.Tensor) -> torch.Tensor:
        """Return bits (B, width), for a network to read."""
        return actions

    def to_environment(self, actions: torch.Tensor) -> torch.Tensor:
        """Return bits (B, *A)."""
        return actions.to(torch.int8).reshape(-1, *self.action_shape)


class Gaussian:
    """A diagonal Gaussian; logits are its means (B, A), or means and logarithms of standard deviations (B, 2 A).

    A bounded dimension is acted on in units of half its range, so that one initial standard deviation fits every space:
    environment action = clip(middle + half range x sample); the density is the unclipped sample's.
    """

    def __init__(self, space: Any, cfg: NetworkConfig, device: torch.device) -> None:
        self.actions = self.width = int(np.prod(space.shape))
        self.action_shape = tuple(space.shape)
        self.environment_dtype = torch.float64 if space.dtype == np.float64 else torch.float32
        low, high = spaces.limits(space)
        bounded = np.isfinite(low) & np.isfinite(high)
        with np.errstate(invalid="ignore", over="ignore"):
            middle, half = np.where(bounded, (low + high) / 2, 0.0), np.where(bounded, (high - low) / 2, 1.0)
        dtype = self.environment_dtype
        self.middle, self.half = (torch.as_tensor(array, dtype=dtype, device=device) for array in (middle, half))
        self.low, self.high = (torch.as_tensor(array, dtype=dtype, device=device) for array in (low, high))
        self.initial_log_std = cfg.initial_log_std
        self.state_dependent_std = cfg.state_dependent_std
        self.size = self.actions * (2 if cfg.state_dependent_std else 1)
        self.parameters: dict[str, nn.Parameter] = {}
        if not cfg.state_dependent_std:
            self.log_std = nn.Parameter(torch.full((self.actions,), float(cfg.initial_log_std), device=device))
            self.parameters["log_std"] = self.log_std

    def moments(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return means (B, A) and logarithms of standard deviations, (A,) or (B, A)."""
        if not self.state_dependent_std:
            return logits, self.log_std
        means, log_stds = logits.split(self.actions, -1)
        return means, torch.clamp(self.initial_log_std + log_stds, *LOG_STD_BOUNDS)

    def sample(self, logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draw samples (B, A)."""
        means, log_std = self.moments(logits)
        noise = torch.empty_like(means).normal_(generator=generator)
        return torch.addcmul(means, noise, log_std.exp())

    def mode(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the means (B, A)."""
        return self.moments(logits)[0]

    def log_prob(self, logits: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return log p(a) = -sum_i ((a_i - m_i)^2 / (2 s_i^2) + log s_i + log sqrt(2 pi)), (B,)."""
        means, log_std = self.moments(logits)
        z = (actions - means) * torch.exp(-log_std)
        return -0.5 * (z * z).sum(-1) - (log_std.sum(-1) + self.actions * LOG_SQRT_2PI)

    def log_prob_and_entropy(self, logits: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log p(a) (B,) and the entropy sum_i (1/2 + log sqrt(2 pi) + log s_i), (B,) or a scalar for all rows."""
        _, log_std = self.moments(logits)
        return self.log_prob(logits, actions), log_std.sum(-1) + self.actions * (0.5 + LOG_SQRT_2PI)

    def statistics(self, logits: torch.Tensor) -> torch.Tensor:
        """Return means and logarithms of standard deviations side by side, (B, 2 A)."""
        means, log_std = self.moments(logits)
        return torch.cat((means, log_std.expand_as(means)), -1)

    def kl(self, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Return KL(old, new) = sum_i (log(s_new / s_old) + (s_old^2 + (m_old - m_new)^2) / (2 s_new^2) - 1/2), (B,)."""
        (m, log_s), (m_new, log_s_new) = old.chunk(2, -1), new.chunk(2, -1)
        squares = torch.exp(2 * (log_s - log_s_new)) + ((m - m_new) * torch.exp(-log_s_new)) ** 2
        return (log_s_new - log_s + 0.5 * (squares - 1)).sum(-1)

    def as_numbers(self, actions: torch.Tensor) -> torch.Tensor:
        """Return samples (B, width), for a network to read."""
        return actions

    def to_environment(self, actions: torch.Tensor) -> torch.Tensor:
        """Return actions (B, *A) in the environment's units, inside its bounds."""
        return self.scale(actions)

    def scale(self, actions: torch.Tensor) -> torch.Tensor:
        """Return middle + half range x action (B, *A), inside the bounds."""
        scaled = torch.addcmul(self.middle, self.half, actions.to(self.environment_dtype))
        return torch.clamp(scaled, self.low, self.high).reshape(-1, *self.action_shape)


class SquashedGaussian(Gaussian):
    """A Gaussian sample u ends in tanh(u) (Haarnoja et al. 2018, appendix C); `actions` are the u.

    environment action = middle + half range x tanh(u); the density is that of tanh(u), so half ranges don't enter.
    """

    def __init__(self, space: Any, cfg: NetworkConfig, device: torch.device) -> None:
        super().__init__(space, cfg, device)
        self.nodes, self.weights = (
            torch.as_tensor(array, dtype=torch.float32, device=device) for array in (NODES, WEIGHTS / WEIGHTS.sum())
        )

    def log_prob(self, logits: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return log p(tanh u) = log p(u) - sum_i log(1 - tanh^2 u_i), (B,)."""
        return super().log_prob(logits, actions) - _log_derivative(actions).sum(-1)

    def log_prob_and_entropy(self, logits: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log p(tanh u) and the entropy, the Gaussian's + E log(1 - tanh^2 u), each (B,).

        The expectation has no closed form; Gauss-Hermite quadrature with 32 nodes per dimension needs no random numbers;
        up to a standard deviation of 2.7 it is within 0.002, its gradient within 0.01.
        """
        means, log_std = self.moments(logits)
        at = means.unsqueeze(-1) + log_std.exp().unsqueeze(-1) * self.nodes
        correction = (_log_derivative(at) @ self.weights).sum(-1)
        return self.log_prob(logits, actions), log_std.sum(-1) + self.actions * (0.5 + LOG_SQRT_2PI) + correction

    def draw(self, logits: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a = tanh(u) (B, A), u = mean + deviation x noise, and log p(a) (B,), both differentiable in the logits.

        Of log p = -sum_i (noise_i^2 / 2 + log s_i + log sqrt(2 pi) + log(1 - tanh^2 u_i)) the noise is given, not (u - m) / s.
        """
        means, log_std = self.moments(logits)
        samples = torch.addcmul(means, noise, log_std.exp())
        log_probs = (-0.5 * noise * noise - log_std - LOG_SQRT_2PI - _log_derivative(samples)).sum(-1)
        return torch.tanh(samples), log_probs

    def to_environment(self, actions: torch.Tensor) -> torch.Tensor:
        """Return actions (B, *A) in the environment's units."""
        return self.scale(torch.tanh(actions))


def _log_derivative(u: torch.Tensor) -> torch.Tensor:
    """Return log(1 - tanh^2 u) = 2 (log 2 - u - log(1 + e^(-2 u)))."""
    return 2 * (math.log(2) - u - softplus(-2 * u))


Distribution = Categorical | MultiCategorical | Bernoulli | Gaussian


def make_distribution(space: Any, cfg: NetworkConfig, device: torch.device, key: str) -> Distribution:
    """Return the policy's distribution for an action space; `key` is the dotted name of the network's settings, for errors.

    Raises ConfigError for a space that no distribution serves.
    """
    import gymnasium

    if isinstance(space, gymnasium.spaces.Discrete):
        return Categorical(space)
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return MultiCategorical(space, device)
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return Bernoulli(space)
    if isinstance(space, gymnasium.spaces.Box) and np.issubdtype(space.dtype, np.floating):
        if cfg.squashed and not spaces.is_bounded(space):
            raise ConfigError(f"{key}.squashed", True, f"the actions {space} are not bounded on all sides; use squashed=false")
        return (SquashedGaussian if cfg.squashed else Gaussian)(space, cfg, device)
    raise ConfigError(
        "env.action_space", space, "this agent acts in Discrete, MultiDiscrete, MultiBinary, and in Box spaces of floats"
    )
