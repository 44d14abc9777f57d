"""The JAX backend."""

import os
from types import SimpleNamespace
from typing import Any

import numpy as np

from rltrain.backends.base import BackendConfig
from rltrain.checks import build
from rltrain.errors import ConfigError
from rltrain.spaces import map_arrays
from rltrain.structures import Array, Arrays, Progress, Transition


class JaxBackend:
    """Arrays on one JAX device."""

    name = "jax"

    def __init__(self, cfg: BackendConfig | dict | None = None) -> None:
        self.cfg = build(BackendConfig, cfg, "backend")
        _set_threads(self.cfg.threads)
        self.device = _device(self.cfg.device)

    def asarray(self, array: Any) -> Array:
        """Return the array as it is: a jitted function takes NumPy's and moves them itself."""
        return array

    def to_numpy(self, array: Array) -> np.ndarray:
        """Return a NumPy array; shares memory on the CPU."""
        return np.asarray(array)

    def own(self, pure: Any) -> "Stateful":
        """Return an algorithm that holds the state of a pure one."""
        return Stateful(pure)

    def versions(self) -> dict[str, str]:
        """Return the versions and the device that the numbers depend on."""
        import flax
        import jax
        import optax

        device = "cpu" if self.device.platform == "cpu" else self.device.device_kind
        versions = {"jax": jax.__version__, "flax": flax.__version__, "optax": optax.__version__}
        return {**versions, "device": device, "threads": str(self.cfg.threads)}


def _set_threads(threads: int) -> None:
    """Keep XLA's products on one thread where that is wanted; it reads this when it starts."""
    flag = "--xla_cpu_multi_thread_eigen=false"
    if threads == 1 and flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()


def _device(wanted: str) -> Any:
    """Return the device named; CPU only by `auto` or `cpu`.

    Raises ConfigError naming the devices that are there.
    """
    import jax

    found = {"cpu": jax.devices("cpu")[0]}
    if jax.default_backend() != "cpu":
        found |= {f"cuda:{i}": device for i, device in enumerate(jax.devices())}
    if wanted == "auto":
        return found.get("cuda:0", found["cpu"])
    device = "cuda:0" if wanted == "cuda" else wanted
    if device not in found:
        raise ConfigError("backend.device", wanted, f"not found on this machine; found: {', '.join(found)} (or auto)")
    return found[device]


def key_of(seed: int) -> Array:
    """Return the random key of a 63-bit seed, every bit of which counts."""
    import jax

    return jax.random.wrap_key_data(np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32), impl="threefry2x32")


class Stateful:
    """Owns the state of a pure algorithm and makes it look like PyTorch's: for loops over environments on the host.

    Rows are staged in NumPy and the whole rollout goes to one compiled call, which takes the state over and gives it back; acting
    is NumPy on a copy of the policy, several times as fast as a compiled call for a few rows.
    """

    def __init__(self, pure: Any) -> None:
        import jax

        self.pure = pure
        self.backend, self.schedule = pure.backend, pure.schedule
        self.num_envs, self.actor_seed = pure.num_envs, pure.actor_seed
        with jax.default_device(self.backend.device):
            self.state = jax.jit(pure.init)()
        self.memory = pure.make_memory()
        self._learn = jax.jit(self._learn_and_look, donate_argnums=0)
        self._finite = True
        self._policy = self._read_policy()

    def init_actor(self, num_envs: int, seed: int) -> np.random.Generator:
        """Return what acting carries: a random stream of its own."""
        return np.random.default_rng(seed)

    def act(
        self,
        actor: np.random.Generator,
        observations: Arrays,
        states: Arrays = None,
        action_masks: Array | None = None,
        *,
        explore: bool,
        progress: Progress,
    ) -> tuple[np.random.Generator, Array, dict[str, Array]]:
        """Return actions (N, *A) as the environment takes them; exploring, also what `record` wants back."""

        def noise(kind: str, shape: tuple[int, ...]) -> np.ndarray:
            draw = {"exponential": actor.standard_exponential, "normal": actor.standard_normal, "uniform": actor.random}
            return draw[kind](shape, np.float32)

        masks = None if action_masks is None else np.asarray(action_masks)
        actions, outputs = self.pure.act(self._policy, noise, map_arrays(np.asarray, observations), masks, explore=explore)
        return actor, actions, outputs

    def reset_actor(self, actor: np.random.Generator, done: Array) -> np.random.Generator:
        """Nothing that the actor carries belongs to an episode."""
        return actor

    def actor_snapshot(self, actor: np.random.Generator) -> dict[str, Any]:
        """Return the actor as plain data."""
        return {"generator": actor.bit_generator.state}

    def restore_actor(self, snapshot: dict[str, Any]) -> np.random.Generator:
        """Return the actor that `snapshot` was taken of."""
        actor = np.random.default_rng(0)
        actor.bit_generator.state = snapshot["generator"]
        return actor

    def record(self, transition: Transition) -> None:
        """Store one transition of all copies."""
        if self.memory.position == 0:
            self.pure.cfg.check_copies(self.num_envs, self.pure.key)
        self.memory.record(transition)

    def interrupt(self, next_observations: Arrays, next_states: Arrays = None) -> None:
        """Take the last row recorded of every copy as truncated there, unless its episode ended anyway."""
        self.memory.truncate(next_observations, next_states)
        if self.memory.position == 0:
            self.state = self.pure.interrupt(self.state)

    def discard(self) -> None:
        """Drop what was recorded since the last update."""
        self.memory.clear()
        self.state = self.pure.interrupt(self.state)

    def update(self, progress: Progress) -> dict[str, float]:
        """Learn from the full rollout; return the usual diagnostics, means over all gradient steps."""
        import jax

        rollout = self.memory.read()
        self.state, looks = self._learn(self.state, rollout, progress)
        metrics, learned, self._finite = jax.device_get(looks)
        self._policy = self._read_policy()
        return {tag: float(value) for tag, value in metrics.items()} if learned else {}

    def _learn_and_look(self, state: Any, rollout: Any, progress: Progress) -> tuple[Any, Any]:
        state, metrics, learned = self.pure.learn(state, rollout, progress)
        return state, (metrics, learned, self.pure.is_finite(state))

    def _read_policy(self) -> SimpleNamespace:
        """Return what acting needs as NumPy arrays of its own: the next update takes the state's over."""
        import jax

        policy = jax.tree.map(np.array, (self.state.parameters, self.state.observation_moments))
        return SimpleNamespace(parameters=policy[0], observation_moments=policy[1])

    def is_finite(self) -> bool:
        """Tell whether every parameter was finite after the last update."""
        return bool(self._finite)

    def snapshot(self) -> dict[str, Any]:
        """Return everything as arrays and plain data; "policy" is what acting needs."""
        snapshot = self.pure.snapshot(self.state)
        return {**snapshot, "training": {**snapshot["training"], "memory": self.memory.snapshot()}}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put everything back; a snapshot that holds only "policy" restores only that."""
        self.state = self.pure.restore(self.state, snapshot)
        self._policy = self._read_policy()
        if "training" in snapshot:
            self.memory.restore(snapshot["training"]["memory"])

    def describe(self) -> dict[str, Any]:
        """Return parameters, memory in bytes of a full rollout, gradient steps per update."""
        return self.pure.describe()
