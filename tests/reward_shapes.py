"""Reward functions for tests: good ones and others."""

import numpy as np


def twice(rewards, timestep, timesteps):
    return 2.0 * rewards


def rising(rewards, timestep, timesteps):
    """A curriculum, and sums that compilers like to fuse."""
    return 0.1 * rewards * rewards + rewards * (timestep / timesteps) - 0.3


def tenth(rewards, timestep, timesteps):
    return rewards / 10


def in_place(rewards, timestep, timesteps):
    rewards *= 3
    return rewards


def by_success(rewards, timestep, timesteps, infos):
    return np.asarray(infos["TimeLimit.truncated"], float) if "TimeLimit.truncated" in infos else rewards * 0


def bonus(rewards, timestep, timesteps, *, infos):
    return rewards + infos["bonus"]


def branches(rewards, timestep, timesteps):
    return rewards if timestep > 5 else -rewards


def converts(rewards, timestep, timesteps):
    return np.asarray(rewards) * 2


def mean(rewards, timestep, timesteps):
    return rewards.mean()


def words(rewards, timestep, timesteps):
    return np.array(["good"] * len(rewards))


def raises(rewards, timestep, timesteps):
    raise RuntimeError("no money")


def raises_later(rewards, timestep, timesteps):
    if timestep == 3:
        raise RuntimeError("no money")
    return rewards


def shrinks_later(rewards, timestep, timesteps):
    return rewards[1:] if timestep == 3 else rewards


def breaks_later(rewards, timestep, timesteps):
    return rewards / (3 - timestep)


def takes_two(rewards, timestep):
    return rewards
