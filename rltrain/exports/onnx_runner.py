"""Acts by a policy that `rltrain export` wrote. Needs onnxruntime and NumPy, nothing of rltrain.

policy = Policy("policy.onnx", copies=1)
actions = policy(observations)  # (copies, ...), or a dict of such by path
policy.begin(done)              # after a step: which copies' episodes ended, (copies,) bool
"""

import numpy as np
import onnxruntime


class Policy:
    """A policy that acts deterministically, and remembers if it was trained to."""

    def __init__(self, path: str, copies: int = 1) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.inputs = {one.name: one for one in self.session.get_inputs()}
        state = {name: one.shape[1:] for name, one in self.inputs.items() if name.startswith("state/")}
        self.state = {name: np.zeros((copies, *shape), np.float32) for name, shape in state.items()}

    def __call__(self, observations: object, action_masks: object = None) -> object:
        """Return actions (copies, ...), as the environment takes them; of a team a dict by member."""
        given = _named("observations", observations) | ({} if action_masks is None else _named("action_masks", action_masks))
        names = [one.name for one in self.session.get_outputs()]
        found = dict(zip(names, self.session.run(names, {**given, **self.state}), strict=True))
        self.state = {name: found[f"next_{name}"] for name in self.state}
        actions = {name.partition("/")[2]: array for name, array in found.items() if name.split("/")[0] == "actions"}
        return actions.get("", actions)

    def begin(self, done: np.ndarray) -> None:
        """Forget what belongs to episodes that ended, `done` (copies,) bool."""
        for array in self.state.values():
            array[np.asarray(done)] = 0


def _named(name: str, arrays: object) -> dict:
    """Return arrays by the names of the model's inputs."""
    if isinstance(arrays, dict):
        return {key: array for path, own in arrays.items() for key, array in _named(f"{name}/{path}", own).items()}
    return {name: np.asarray(arrays)}
