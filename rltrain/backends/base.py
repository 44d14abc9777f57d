"""What a backend must offer so that everything neutral can stay neutral."""

import os
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rltrain.checks import option
from rltrain.structures import Array


@dataclass
class BackendConfig:
    """Where the numbers are computed."""

    name: str = option("torch", "the backend: it picks the twin of every agent", choices=["torch", "jax"], fixed=True)
    device: str = option("auto", "auto (a GPU if there is one, else the CPU), cpu or cuda:N")
    compilation_cache: str = option(
        "auto", "where JAX keeps compiled programs between runs: auto is the user's cache directory; none, or a directory"
    )
    threads: int = option(1, "intra-op threads; small networks are quickest with one", low=1, high=1024)


def prepare(cfg: BackendConfig) -> None:
    """Set what a library reads once, when it starts: XLA keeps its products on one thread if `threads` is 1."""
    flag = "--xla_cpu_multi_thread_eigen=false"
    flags = os.environ.get("XLA_FLAGS", "")
    if cfg.threads == 1 and flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()


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

    def own(self, algorithm: Any) -> Any:
        """Return the algorithm as one that holds its state."""

    def versions(self) -> dict[str, str]:
        """Return the versions and the device that the numbers depend on."""
