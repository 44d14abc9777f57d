"""Updates in JAX from a memory on the host: batches go to the device, several at once where they may."""

from typing import Any, NamedTuple

import jax
import numpy as np

from rltrain.memories.replay.host import Replay, Sample
from rltrain.structures import Array, Arrays, Progress

State = Any  # of `OffPolicy`


class Tally(NamedTuple):
    """Diagnostics of gradient steps, added up."""

    every: dict[str, Array]  # those that every step has, () each
    some: dict[str, Array]  # those of the policy where it moves more rarely
    count: Array  # () steps that had these


class UpdateFromHost:
    """Takes an agent's gradient steps on batches from the host, at most the agent's `at_once` in a compiled call."""

    def __init__(self, agent: Any) -> None:
        self.agent = agent
        self._improve = jax.jit(self._improve_and_look, donate_argnums=0)
        self._fold = jax.jit(self._fold_rows, donate_argnums=0)

    def __call__(
        self, state: State, host: Replay, env_steps: int, unfolded: int, progress: Progress
    ) -> tuple[State, dict[str, float], bool]:
        """Take the gradient steps that are due after `env_steps`; see `OffPolicy.update`.

        The observations of the last `unfolded` timesteps go into the statistics first.
        """
        agent, cfg = self.agent, self.agent.cfg
        env_steps = max(1, min(env_steps, cfg.update_interval * agent.num_envs))  # the warm-up's don't count
        steps = min(env_steps, agent.gradient_steps) if cfg.gradient_steps == "auto" else agent.gradient_steps
        if cfg.normalize_observations:
            state = self._fold(state, *host.newest(min(unfolded, host.filled)))
        importance_exponent = min(1.0, float(agent.now("importance_exponent", progress)))
        outcomes = []
        for start in range(0, steps, agent.at_once):
            # ---- batches
            count = min(agent.at_once, steps - start)
            sample = host.draw(count * cfg.drawn, importance_exponent)
            batches = in_batches(sample._replace(rows=None), count, agent.at_once)
            # ---- steps
            state, outcome, errors = self._improve(state, batches, count, start + count == steps, progress)
            outcomes.append(outcome)
            # ---- priorities
            if cfg.prioritized:
                host.update_priorities(sample.rows, np.asarray(errors))
        tallies, finite = zip(*jax.device_get(outcomes), strict=True)
        tally = jax.tree.map(lambda *parts: sum(parts), *tallies)
        metrics = {tag: total / steps for tag, total in tally.every.items()}
        if tally.count:
            metrics |= {tag: total / tally.count for tag, total in tally.some.items()}
        metrics |= agent.report(progress) | {"replay/ratio": steps / env_steps, "replay/size": host.count}
        return state, {tag: float(value) for tag, value in metrics.items()}, all(finite)

    def _improve_and_look(
        self, state: State, batches: Sample, steps: Array, finishes: Array, progress: Progress
    ) -> tuple[State, tuple[Tally, Array], Array]:
        def batch(k: int | Array) -> Sample:
            return jax.tree.map(lambda array: array[k], batches)

        state, tally, errors = self.agent.improve_by_steps(state, batch, steps, finishes, progress)
        return state, (tally, self.agent.is_finite(state)), errors

    def _fold_rows(self, state: State, rows: Arrays, weights: Array | None) -> State:
        return state._replace(observation_moments=self.agent.inputs.fold(state.observation_moments, rows, weights))


def in_batches(sample: Sample, count: int, length: int) -> Sample:
    """Return count x B transitions as batches (length, B, ...), those after the first `count` of zeros."""

    def cut(array: np.ndarray) -> np.ndarray:
        batches = array.reshape(count, -1, *array.shape[1:])
        if count == length:
            return batches
        return np.concatenate((batches, np.zeros((length - count, *batches.shape[1:]), batches.dtype)))

    return jax.tree.map(cut, sample)
