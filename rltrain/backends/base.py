"""What a backend must offer so that everything neutral can stay neutral."""

import os
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rltrain.checks import option
from rltrain.errors import ConfigError
from rltrain.structures import Array

MOST_TIMESTEPS = {"jax": 2**31 - 2}  # by backend: its programs count in int32; the last number is a loop's that begins anew


@dataclass
class BackendConfig:
    """Where the numbers are computed."""

    name: str = option("torch", "the backend: it picks the twin of every agent", choices=["torch", "jax"], fixed=True)
    device: str = option("auto", "auto (a GPU if there is one, else the CPU), cpu or cuda:N")
    compilation_cache: str = option(
        "auto", "where JAX keeps compiled programs between runs: auto is the user's cache directory; none, or a directory"
    )
    threads: int = option(1, "intra-op threads; small networks are quickest with one", low=1, high=1024)


def prepare(cfg: BackendConfig, *, devices: int = 1) -> None:
    """Set what a library reads once, when it starts.

    XLA keeps its products on one thread if `threads` is 1, and takes a CPU for `devices` devices, for programs at the same time.
    """
    flags = os.environ.get("XLA_FLAGS", "").split()
    if cfg.threads == 1 and "--xla_cpu_multi_thread_eigen=false" not in flags:
        flags.append("--xla_cpu_multi_thread_eigen=false")
    if devices > 1 and not any(flag.startswith("--xla_force_host_platform_device_count=") for flag in flags):
        flags.append(f"--xla_force_host_platform_device_count={devices}")
    if flags:
        os.environ["XLA_FLAGS"] = " ".join(flags)


def check_countable(backend: str, key: str, value: int, *, copies: int = 1) -> None:
    """Raise ConfigError if `value`, in timesteps or with `copies` in env steps of as many, is more than a backend can count."""
    most = MOST_TIMESTEPS.get(backend)
    if most is not None and -(-value // copies) > most:
        limit = f"{most:,} timesteps" + (f", {most * copies:,} steps of {copies} copies" if copies > 1 else "")
        raise ConfigError(key, value, f"backend={backend} counts up to {limit}; give fewer, or use another backend")


def keep_numpy_to(threads: int) -> None:
    """Keep NumPy's products to as many threads: its BLAS takes every core, also for products that take microseconds."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads, user_api="blas")


class Backend(Protocol):
    """Arrays in, arrays out, in one place per backend."""

    name: str
    device: Any
    compile_seconds: float  # spent on compiling by this process so far

    def asarray(self, array: Any) -> Array:
        """Return a backend array on the device; shares memory where it can."""

    def on_device(self, array: Any) -> Array:
        """Return an array as an environment on the device would hand it out."""

    def to_numpy(self, array: Array) -> np.ndarray:
        """Return a NumPy array; shares memory where it can."""

    def devices(self, count: int) -> list[Any] | None:
        """Return as many devices to run compiled programs on at the same time, or None if there are fewer."""

    def own(self, algorithm: Any) -> Any:
        """Return the algorithm as one that holds its state."""

    def versions(self) -> dict[str, str]:
        """Return the versions and the device that the numbers depend on."""
