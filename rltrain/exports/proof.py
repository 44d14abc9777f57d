"""Whether a policy's file acts as the policy does: both see the observations of a real environment, side by side."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rltrain.exports.form import ACTIONS, LOGITS, STATE, named_inputs
from rltrain.spaces import map_arrays, named
from rltrain.structures import Progress, starts_after

TOLERANCE = 1e-5  # of numbers of size 1

Policy = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


@dataclass
class Proof:
    """What was found."""

    rows: int = 0  # observations that both saw
    largest: float = 0.0  # difference of actions that are numbers, or of logits, relative where they are beyond 1
    choices: int = 0  # of actions that are choices, each part of one
    equal: int = 0
    ties: int = 0  # of the others, those whose logits are as close as the tolerance

    @property
    def holds(self) -> bool:
        """Whether the file acts as the policy does."""
        return self.largest <= TOLERANCE and self.equal + self.ties == self.choices

    def look(self, wanted: np.ndarray, found: np.ndarray, logits: np.ndarray, wanted_logits: np.ndarray | None) -> None:
        """Compare actions (N, *A); choices with the logits that they are made of, where those are known."""
        if wanted.dtype.kind == "f":
            return self._measure(wanted, found)
        if wanted_logits is not None:
            self._measure(wanted_logits, logits)
        same = (wanted == found).reshape(len(wanted), -1)
        self.choices += same.size
        self.equal += int(same.sum())
        best = np.sort(logits, -1)[:, -2:]
        close = np.abs(best[:, -1] - best[:, 0]) <= TOLERANCE * np.maximum(1.0, np.abs(best[:, -1]))
        self.ties += int((~same & close[:, None]).sum())

    def _measure(self, wanted: np.ndarray, found: np.ndarray) -> None:
        difference = np.abs(wanted.astype(np.float64) - found) / np.maximum(1.0, np.abs(wanted))
        self.largest = max(self.largest, float(difference.max()))

    def sentence(self) -> str:
        """Say what was found."""
        text = f"{self.rows:,} observations: largest difference {self.largest:.1e}"
        return text + (f", {self.equal:,} of {self.choices:,} choices equal" if self.choices else "")


def compare(env: Any, algorithm: Any, policy: Policy, state: dict[str, np.ndarray], rows: int) -> Proof:
    """Play at least so many rows of an environment by an algorithm, deterministically; ask the file for each, too.

    `state` is what the file's policy remembers as episodes begin.
    """
    proof, observations, own = Proof(), env.reset(), {name: array.copy() for name, array in state.items()}
    actor, backend = algorithm.init_actor(env.num_envs, 0), algorithm.backend
    while proof.rows < rows:
        masks, turn = env.action_masks(), Progress(proof.rows, rows)
        found = policy(named_inputs(observations, masks, own))
        given, allowed = observations, masks
        if not env.members:  # a team joins its members' first
            given = map_arrays(backend.asarray, observations)
            allowed = None if masks is None else backend.asarray(masks)
        actor, actions, outputs = algorithm.act(actor, given, None, allowed, explore=False, progress=turn)
        logits = backend.to_numpy(outputs[LOGITS]) if LOGITS in outputs else None
        actions = map_arrays(backend.to_numpy, actions)
        for name, array in named(actions, ACTIONS).items():
            proof.look(np.asarray(array), found[name], found[name.replace(ACTIONS, LOGITS, 1)], logits)
        proof.rows += env.num_envs
        step = env.step(actions)
        begins = starts_after(step.terminated, step.truncated, step.valid)
        actor = algorithm.reset_actor(actor, begins)
        own = {name: found[f"next_{name}"].copy() for name in own}
        for name, array in own.items():
            array[np.asarray(begins[_member(name, begins)] if isinstance(begins, dict) else begins)] = 0
        observations = env.reset_done()
    return proof


def _member(name: str, members: dict[str, Any]) -> str:
    """Return whose state it is, of names such as state/pursuer_0/1."""
    return next(member for member in members if name.startswith(f"{STATE}/{member}/"))
