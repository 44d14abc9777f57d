"""The PyTorch backend."""

import ctypes
from contextlib import suppress
from dataclasses import replace
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
    found = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if wanted == "auto":
        return torch.device(found[1] if len(found) > 1 else "cpu")
    device = "cuda:0" if wanted == "cuda" else wanted
    if device not in found:
        raise ConfigError("backend.device", wanted, f"not found on this machine; found: {', '.join(found)} (or auto)")
    return torch.device(device)
