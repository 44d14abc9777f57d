"""One stream of random numbers per purpose, derived from the run's seed; never a global generator.

Every stream comes from `numpy.random.SeedSequence([seed, role, index])`. Roles are integer constants, so a stream depends
on the seed, its purpose and its own index only: adding a copy or an agent changes no other stream.
"""

import secrets

import numpy as np

TRAINING_ENVIRONMENTS = 0
EVALUATION_ENVIRONMENTS = 1  # evaluations during training, which choose `best`
FINAL_EVALUATION_ENVIRONMENTS = 2  # `rltrain eval`, whose figures are cited
AGENT_PARAMETERS = 3
AGENT_ACTOR = 4
AGENT_MINIBATCHES = 5
EVALUATION_ACTOR = 6
STATISTICS = 7
RESUMED_ENVIRONMENTS = 8
EPISODES = 9  # later ones of a copy whose every episode has a seed of its own
PROCESS_GENERATORS = 10  # those that a whole process shares, for environments that draw from them

MAX_SEED = 2**32 - 1


def draw_seed() -> int:
    """Draw a seed for a run that names none."""
    return secrets.randbits(31)


def seed32(seed: int, role: int, *index: int) -> int:
    """Return the 32-bit seed of stream `index` in a role."""
    return int(np.random.SeedSequence([seed, role, *index]).generate_state(1, np.uint32)[0])


def seed64(seed: int, role: int, *index: int) -> int:
    """Return the 63-bit seed of stream `index` in a role (63 bits: torch and JSON both take it as a signed integer)."""
    return int(np.random.SeedSequence([seed, role, *index]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def environment_seeds(seed: int, role: int, num_envs: int, first: int = 0) -> list[int]:
    """Return a seed per copy; copy i's depends on its global number `first + i` only."""
    return [seed32(seed, role, first + i) for i in range(num_envs)]
