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
    """
    deltas = rewards + discount_factor * next_values * ~terminated - values
    return _scan_back(deltas, (discount_factor * gae_lambda) * ~(terminated | truncated))


def running_returns(
    rewards: torch.Tensor, done: torch.Tensor, before: torch.Tensor, discount_factor: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the discounted sums of the rewards so far in each episode, (T, N), and those to go on from, (N,).

    G_t = r_t + gamma G_{t-1} within an episode; `before` (N,) are the sums that the rewards go on from, `done` (T, N) ends one.
    """
    starts = torch.cat((torch.zeros_like(done[:1]), done[:-1]))
    first = rewards[:1] + discount_factor * before
    sums = _scan_back(torch.cat((first, rewards[1:])).flip(0), (discount_factor * ~starts).flip(0)).flip(0)
    return sums, sums[-1] * ~done[-1]


def _scan_back(x: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """Return A_t = x_t + c_t A_{t+1}, (T, N); the last coefficient is not used.

    Solved in log2(T) steps over whole arrays: after a step of stride s, row t holds the sum of its next 2 s terms and c_t the
    product that leads to the term after them (Hillis and Steele 1986).
    """
    stride, length = 1, x.shape[0]
    while stride < length:
        head = x[:-stride] + coefficients[:-stride] * x[stride:]
        x = torch.cat((head, x[-stride:]))
        head = coefficients[:-stride] * coefficients[stride:]
        coefficients = torch.cat((head, torch.zeros_like(coefficients[-stride:])))
        stride *= 2
    return x
