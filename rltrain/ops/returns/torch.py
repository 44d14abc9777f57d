"""Returns and advantages in PyTorch."""

import torch


def generalized_advantages(
    rewards: torch.Tensor,
    values: torch.Tensor,
    next_values: torch.Tensor,
    terminated: torch.Tensor,
    truncated: torch.Tensor,
    discount_factor: float,
    gae_lambda: float,
) -> torch.Tensor:
    """Return GAE's advantages, every argument (T, N) -> (T, N) (Schulman et al. 2016, equation 16).

    delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t), with s' the true successor;
    A_t = delta_t + gamma lambda (1 - (terminated_t or truncated_t)) A_{t+1}.

    The recurrence A_t = delta_t + c_t A_{t+1} is solved in log2(T) steps over whole arrays: after a step of stride s, row t holds
    the sum of its next 2 s terms and c_t the product that leads to the term after them (Hillis and Steele 1986).
    """
    advantages = rewards + discount_factor * next_values * ~terminated - values
    coefficients = (discount_factor * gae_lambda) * ~(terminated | truncated)
    stride, length = 1, rewards.shape[0]
    while stride < length:
        head = advantages[:-stride] + coefficients[:-stride] * advantages[stride:]
        advantages = torch.cat((head, advantages[-stride:]))
        head = coefficients[:-stride] * coefficients[stride:]
        coefficients = torch.cat((head, torch.zeros_like(coefficients[-stride:])))
        stride *= 2
    return advantages
