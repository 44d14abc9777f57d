"""The PyTorch backend."""

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from rltrain.backends.base import BackendConfig, keep_numpy_to
from rltrain.checks import build
from rltrain.errors import ConfigError


class TorchBackend:
    """Arrays on one PyTorch device."""

    name = "torch"
    compile_seconds = 0.0

    def __init__(self, cfg: BackendConfig | dict | None = None) -> None:
        self.cfg = build(BackendConfig, cfg, "backend")
        self.device = _device(self.cfg.device)
        self._on_cpu = self.device.type == "cpu"
        torch.set_num_threads(self.cfg.threads)
        keep_numpy_to(self.cfg.threads)
        if self._on_cpu:
            _keep_freed_memory()

    def asarray(self, array: Any) -> torch.Tensor:
        """Return a tensor on the device; shares memory with a NumPy array on the CPU."""
        tensor = torch.from_numpy(array) if isinstance(array, np.ndarray) else torch.as_tensor(array)
        return tensor if self._on_cpu else tensor.to(self.device, non_blocking=True)

    def on_device(self, array: Any) -> torch.Tensor:
        """Return an array as an environment on the device would hand it out."""
        return self.asarray(array)

    def to_numpy(self, array: torch.Tensor) -> np.ndarray:
        """Return a NumPy array; shares memory on the CPU."""
        return array.numpy() if self._on_cpu else array.cpu().numpy()

    def devices(self, count: int) -> list[Any] | None:
        """Return None: no trainer compiles PyTorch's loops."""
        return None

    def own(self, algorithm: Any) -> Any:
        """Return the algorithm: PyTorch's hold their state themselves."""
        return algorithm

    def __reduce__(self) -> Any:
        """Travel to another process as what makes one alike: on the same device, with as many threads as this process has."""
        return type(self), (replace(self.cfg, device=str(self.device), threads=torch.get_num_threads()),)

    def versions(self) -> dict[str, str]:
        """Return torch's version and the device."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {"torch": torch.__version__, "device": name, "threads": str(torch.get_num_threads())}


@dataclass
class Actor:
    """What acting carries: a random stream, and what goes on from timestep to timestep."""

    generator: torch.Generator
    carry: Any  # an array (N, ...) or a tuple of such, nested as it likes; None, where the algorithm has none
    trains: bool  # an evaluation's actor, if told to explore, does so as at the end of the run


class Stateful(ABC):
    """Makes and keeps actors for an algorithm, which says in `init_carry` what they carry besides a random stream."""

    backend: TorchBackend
    num_envs: int
    actor_seed: int

    @abstractmethod
    def init_carry(self, num_envs: int) -> Any:
        """Return what `num_envs` copies' acting carries from timestep to timestep, arrays (N, ...), or None."""

    @abstractmethod
    def reset_carry(self, carry: Any, done: torch.Tensor) -> Any:
        """Return it begun anew where an episode ended; `done` is (N,) bool."""

    def init_actor(self, num_envs: int, seed: int) -> Actor:
        """Return a fresh actor with a random stream of its own."""
        generator = torch.Generator(self.backend.device).manual_seed(seed)
        return Actor(generator, self.init_carry(num_envs), trains=seed == self.actor_seed)

    def reset_actor(self, actor: Actor, done: Any) -> Actor:
        """Begin anew what is carried where an episode ended."""
        if actor.carry is None:
            return actor
        return replace(actor, carry=self.reset_carry(actor.carry, torch.as_tensor(done, device=self.backend.device)))

    def renew_actor(self, actor: Actor) -> Actor:
        """The actor's stream goes on by itself."""
        return actor

    def actor_snapshot(self, actor: Actor) -> dict[str, Any]:
        """Return the actor as plain data."""
        arrays = [array.cpu().numpy().copy() for array in leaves(actor.carry)]
        noise = None if actor.carry is None else arrays if isinstance(actor.carry, tuple) else arrays[0]
        return {"generator": actor.generator.get_state().cpu().numpy(), "noise": noise}

    def restore_actor(self, snapshot: dict[str, Any]) -> Actor:
        """Return the actor that `snapshot` was taken of."""
        actor = self.init_actor(self.num_envs, self.actor_seed)
        actor.generator.set_state(torch.from_numpy(np.array(snapshot["generator"])))
        if actor.carry is not None:
            saved = snapshot["noise"] if isinstance(actor.carry, tuple) else [snapshot["noise"]]
            actor.carry = filled(actor.carry, iter(saved))
        return actor


def leaves(tree: Any) -> list[torch.Tensor]:
    """Return the tensors of nested tuples in order; of None, none."""
    if isinstance(tree, tuple):
        return [array for part in tree for array in leaves(part)]
    return [] if tree is None else [tree]


def filled(tree: Any, arrays: Iterator[Any]) -> Any:
    """Return nested tuples of this form, of these arrays in order.

    Raises ValueError if one has another shape.
    """
    if isinstance(tree, tuple):
        return tuple(filled(part, arrays) for part in tree)
    if tree is None:
        return None
    array = torch.as_tensor(np.array(next(arrays)), device=tree.device)
    if array.shape != tree.shape:
        raise ValueError(f"what acting carries has shape {tuple(array.shape)} there and {tuple(tree.shape)} here")
    return array


def _keep_freed_memory() -> None:
    """Have glibc keep up to 64 MiB of what a gradient step frees for the next one.

    By default it gives activations of 256 KiB back and takes a page fault for every 4 KiB of the next ones.
    """
    with suppress(AttributeError, OSError, TypeError):  # another C library
        mallopt, trim_threshold, mmap_threshold = ctypes.CDLL(None).mallopt, -1, -3
        mallopt(trim_threshold, 64 * 2**20)
        mallopt(mmap_threshold, 32 * 2**20)


def _device(wanted: str) -> torch.device:
    """Return the device named; CPU only by `auto` or `cpu`.

    Raises ConfigError naming the devices that are there.
    """
    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if wanted == "auto":
        return torch.device(devices[1] if len(devices) > 1 else "cpu")
    device = "cuda:0" if wanted == "cuda" else wanted
    if device not in devices:
        raise ConfigError("backend.device", wanted, f"not found on this machine; found: {', '.join(devices)} (or auto)")
    return torch.device(device)
