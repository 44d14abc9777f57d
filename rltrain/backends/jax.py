"""The JAX backend."""

import math
import os
import time
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from rltrain.backends.base import BackendConfig, keep_numpy_to, prepare
from rltrain.checks import build
from rltrain.errors import ConfigError
from rltrain.structures import Acting, Array, Arrays, Progress, Transition

RANDOM = "threefry2x32"
DRAW = {"exponential": "standard_exponential", "normal": "standard_normal", "uniform": "random"}  # in NumPy


class JaxBackend:
    """Arrays on one JAX device."""

    name = "jax"

    def __init__(self, cfg: BackendConfig | dict | None = None) -> None:
        self.cfg = build(BackendConfig, cfg, "backend")
        prepare(self.cfg)
        import jax

        self._name, self.device = _device(self.cfg.device)
        jax.config.update("jax_default_device", self.device)  # of the environment's programs too
        keep_numpy_to(self.cfg.threads)
        _keep_programs(self.cfg.compilation_cache)
        _watch_compiling()

    def asarray(self, array: Any) -> Array:
        """Return the array as it is: a jitted function takes NumPy's and moves them itself."""
        return array

    def on_device(self, array: Any) -> Array:
        """Return an array as an environment on the device would hand it out: such are acted on in compiled programs."""
        import jax

        return jax.device_put(array, self.device)

    def to_numpy(self, array: Array) -> np.ndarray:
        """Return a NumPy array; shares memory on the CPU."""
        return np.asarray(array)

    def devices(self, count: int) -> list[Any] | None:
        """Return as many devices of the kind of this backend's, its own first, or None if JAX started with fewer."""
        import jax

        devices = jax.devices(self.device.platform)
        devices = [self.device, *(device for device in devices if device != self.device)]
        return devices[:count] if len(devices) >= count else None

    @property
    def compile_seconds(self) -> float:
        """Seconds that this process has spent on compiling."""
        return _compiling["seconds"]

    @property
    def is_compiling(self) -> bool:
        """Whether this process compiles, as far as JAX tells: each part of it when it is over."""
        return bool(_compiling["lowered"]) or time.monotonic() - _compiling["traced"] < TRACED

    def own(self, pure: Any) -> "Stateful":
        """Return an algorithm that holds the state of a pure one."""
        return Stateful(pure)

    def __reduce__(self) -> Any:
        """Travel to another process as what makes one alike: on the same device."""
        return type(self), (replace(self.cfg, device=self._name),)

    def versions(self) -> dict[str, str]:
        """Return the versions and the device that the numbers depend on."""
        import flax
        import jax
        import optax

        device = "cpu" if self.device.platform == "cpu" else self.device.device_kind
        versions = {"jax": jax.__version__, "flax": flax.__version__, "optax": optax.__version__}
        return {**versions, "device": device, "threads": str(self.cfg.threads)}


_compiling = {"seconds": 0.0, "programs": 0, "traced": -math.inf, "lowered": 0}
TRACED = 5.0  # seconds for which what was traced is taken to be compiled soon


def _watch_compiling() -> None:
    """Count what is compiled in this process."""
    import jax

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            _compiling["seconds"] += duration_secs
            is_over = event.endswith("/backend_compile_duration")
            _compiling["traced"] = -math.inf if is_over else time.monotonic()
            _compiling["lowered"] = event.endswith("/jaxpr_to_mlir_module_duration")
        _compiling["programs"] += event == "/jax/core/compile/backend_compile_duration"

    if "listener" not in _compiling:
        _compiling["listener"] = 1
        jax.monitoring.register_event_duration_secs_listener(listen)


def compilations() -> int:
    """Return how many programs this process has compiled since its first backend was made."""
    return int(_compiling["programs"])


def _keep_programs(where: str) -> None:
    """Keep compiled programs between runs, in the user's cache directory unless told otherwise."""
    import jax

    directory: str | None = None if where == "none" else where
    if where == "auto":
        given, users = os.environ.get("JAX_COMPILATION_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        directory = given or f"{users}/rltrain/jax"
    jax.config.update("jax_compilation_cache_dir", directory and os.path.expanduser(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _device(wanted: str) -> tuple[str, Any]:
    """Return the device wanted and its name; CPU only by `auto` or `cpu`.

    Raises ConfigError naming the devices that are there.
    """
    import jax

    devices = {"cpu": jax.devices("cpu")[0]}
    if jax.default_backend() != "cpu":
        devices |= {f"cuda:{i}": device for i, device in enumerate(jax.devices())}
    device = {"auto": "cuda:0" if "cuda:0" in devices else "cpu", "cuda": "cuda:0"}.get(wanted, wanted)
    if device not in devices:
        raise ConfigError("backend.device", wanted, f"not found on this machine; found: {', '.join(devices)} (or auto)")
    return device, devices[device]


def key_of(seed: int) -> Array:
    """Return the random key of a 63-bit seed, every bit of which counts."""
    import jax

    return jax.random.wrap_key_data(jax.numpy.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32), impl=RANDOM)


def draw(key: Array, timestep: Array, kind: str, shape: tuple[int, ...]) -> Array:
    """Return the random numbers of one timestep: those of the stream and the timestep, however many are drawn at once."""
    import jax

    return getattr(jax.random, kind)(jax.random.fold_in(key, timestep), shape)


class Actor(NamedTuple):
    """What acting carries: a random stream for acting in NumPy and one for compiled acting, and what goes on."""

    generator: np.random.Generator
    key: Array
    carry: Any  # see `Acting`
    trains: bool  # an evaluation's actor, if told to explore, does so as at the end of the run


class Stateful:
    """Owns the state of a pure algorithm and makes it look like PyTorch's: for loops over environments on the host.

    Rows are kept in NumPy, and what is learned from goes to compiled calls that take the state over and give it back.
    Observations that are NumPy arrays are acted on in NumPy with a copy of the policy, several times as fast as a compiled call
    for a few rows; JAX arrays, which an environment written in JAX hands out, by the very functions of the fused loop.
    What it asks of the algorithm is written in `rltrain.agents.pure.protocol.PureAlgorithm`.
    """

    def __init__(self, pure: Any) -> None:
        import jax

        self.pure = pure
        self.backend, self.schedule = pure.backend, pure.schedule
        self.num_envs, self.actor_seed = pure.num_envs, pure.actor_seed
        self.reads_infos = getattr(pure, "reads_infos", True)
        self.remembers = getattr(pure, "remembers", False)
        self.reward_function = getattr(pure, "reward_function", None)
        self.keeps_memory = True  # in snapshots, where it may be left out
        self.state = jax.jit(pure.init)()
        self.memory = pure.make_memory()
        self._act = jax.jit(pure.act, static_argnames="explore")
        self._draw = jax.jit(draw, static_argnums=(2, 3))
        self._finite = True
        self._policy: Any = None  # in NumPy, once it is needed

    @property
    def images(self) -> dict[str, Any]:
        """The images in an observation that networks read as such, by path."""
        return getattr(self.pure, "images", {})

    def init_actor(self, num_envs: int, seed: int) -> "Actor":
        """Return what acting carries: random streams of its own."""
        carry = self.pure.init_carry(num_envs)
        return Actor(np.random.default_rng(seed), key_of(seed), carry, trains=seed == self.actor_seed)

    def act(
        self,
        actor: "Actor",
        observations: Arrays,
        states: Arrays = None,
        action_masks: Array | None = None,
        *,
        explore: bool,
        progress: Progress,
    ) -> tuple["Actor", Array, dict[str, Array]]:
        """Return actions (N, *A) as the environment takes them; exploring, also what `record` wants back."""
        first = next(iter(observations.values())) if isinstance(observations, dict) else observations
        turn = progress.timestep
        if not actor.trains:
            horizon = max(progress.timesteps, 1)
            progress = Progress(max(horizon, self.schedule.learning_starts), horizon)
        kind, shape = self.pure.acting_noise(len(first))
        on_host, noise = isinstance(first, np.ndarray), None
        if explore and on_host:
            noise = getattr(actor.generator, DRAW[kind])(shape, np.float32)
        elif explore:
            # drawn apart: compiled together with acting, the same sums would be rounded otherwise than in the fused loop
            noise = self._draw(actor.key, turn, kind, shape)
        in_numpy = on_host and getattr(self.pure, "acts_in_numpy", True)
        act, policy = (self.pure.act, self._read_policy()) if in_numpy else (self._act, self.pure.policy(self.state))
        after, actions, outputs = act(
            policy, Acting(actor.carry, noise), observations, None, action_masks, explore=explore, progress=progress
        )
        return actor if after.carry is None else actor._replace(carry=after.carry), actions, outputs

    def reset_actor(self, actor: "Actor", done: Array) -> "Actor":
        """Begin anew what is carried where an episode ended."""
        return actor if actor.carry is None else actor._replace(carry=self.pure.reset_carry(actor.carry, done))

    def renew_actor(self, actor: "Actor") -> "Actor":
        """Return the actor with another stream: what it draws depends on the timestep, which counts from 0 again."""
        import jax

        return actor._replace(key=jax.random.fold_in(actor.key, 2**31 - 1))

    def actor_snapshot(self, actor: "Actor") -> dict[str, Any]:
        """Return the actor as plain data."""
        import jax

        snapshot = {"generator": actor.generator.bit_generator.state, "key": np.array(jax.random.key_data(actor.key))}
        if actor.carry is None:
            return snapshot
        arrays = [np.array(array) for array in jax.tree.leaves(actor.carry)]
        return {**snapshot, "noise": arrays[0] if jax.tree_util.all_leaves([actor.carry]) else arrays}

    def restore_actor(self, snapshot: dict[str, Any]) -> "Actor":
        """Return the actor that `snapshot` was taken of."""
        import jax

        generator = np.random.default_rng(0)
        generator.bit_generator.state = snapshot["generator"]
        carry, kept = self.pure.init_carry(self.num_envs), snapshot.get("noise")
        if carry is not None and kept is not None:
            arrays = [kept] if jax.tree_util.all_leaves([carry]) else kept
            carry = jax.tree.unflatten(jax.tree.structure(carry), [np.array(array) for array in arrays])
        return Actor(generator, jax.random.wrap_key_data(snapshot["key"], impl=RANDOM), carry, trains=True)

    def record(self, transition: Transition) -> None:
        """Store one transition of all copies."""
        if self.memory.is_empty:
            self.pure.cfg.check_copies(self.memory.num_envs, self.pure.key)
        self.memory.record(transition)

    def interrupt(self, next_observations: Arrays, next_states: Arrays = None) -> None:
        """Take the last row recorded of every copy as truncated there, unless its episode ended anyway."""
        self.state = self.pure.interrupt(self.state, self.memory, next_observations, next_states)

    def discard(self) -> None:
        """Drop what can't be learned from once timesteps count from 0 again."""
        self.state = self.pure.discard(self.state, self.memory)

    def update(self, progress: Progress) -> dict[str, float]:
        """Learn from what was recorded; return the usual diagnostics, means over all gradient steps."""
        self._policy = None
        self.state, metrics, self._finite = self.pure.update_from_host(self.state, self.memory, progress)
        return metrics

    def _read_policy(self) -> Any:
        """Return what acting needs as NumPy arrays of its own: the next update takes the state's over."""
        import jax

        if self._policy is None:
            self._policy = jax.tree.map(np.array, self.pure.policy(self.state))
        return self._policy

    # -- in the fused loop ---------------------------------------------------------------------------------------------

    @property
    def why_not_lent(self) -> str:
        """What keeps a fused loop from having the algorithm; nothing if nothing does."""
        return self.memory.why_not_lent

    def lend(self, actor: "Actor", observations: Arrays, states: Arrays) -> tuple[Any, Any, Array, Any]:
        """Return (state, memory or None, key, what the actor carries) for a fused loop.

        `observations` and `states` are those to act on next: the last row's successors.
        """
        if self.memory.is_empty:
            self.pure.cfg.check_copies(self.memory.num_envs, self.pure.key)
        return self.state, self.memory.lend(observations, states), actor.key, actor.carry

    def take_back(self, actor: "Actor", state: Any, memory: Any, key: Array, carry: Any, timestep: int) -> "Actor":
        """Go on from what a fused loop gives back at `timestep`; return the actor."""
        self._take_over(state)
        self.memory.take_back(memory, timestep)
        return actor._replace(key=key, carry=carry)

    def note_learned(self, metrics: dict[str, Array], present: dict[str, Array], finite: Array, k: int) -> dict[str, float]:
        """Return the metrics of a fused loop's update number `k` of a chunk; remember if every parameter was finite after it."""
        self._finite = bool(finite[k])
        return {tag: float(values[k]) for tag, values in metrics.items() if present[tag][k]}

    def _take_over(self, state: Any) -> None:
        self.state, self._policy = state, None

    # -- snapshots -----------------------------------------------------------------------------------------------------

    def is_finite(self) -> bool:
        """Tell whether every parameter was finite after the last update."""
        return bool(self._finite)

    def snapshot(self) -> dict[str, Any]:
        """Return everything as arrays and plain data; "policy" is what acting needs."""
        snapshot = self.pure.snapshot(self.state)
        left_out = self.memory.may_be_left_out and not self.keeps_memory
        return {**snapshot, "training": {**snapshot["training"], "memory": None if left_out else self.memory.snapshot()}}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put everything back; a snapshot that holds only "policy" restores only that."""
        self._take_over(self.pure.restore(self.state, snapshot))
        if "training" in snapshot:
            self.memory.restore(snapshot["training"]["memory"])

    def describe(self) -> dict[str, Any]:
        """Return parameters, memory in bytes, gradient steps per update."""
        return self.pure.describe(self.memory) if getattr(self.memory, "is_shared", False) else self.pure.describe()
