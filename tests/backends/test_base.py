"""What every backend sets when it is made."""

import importlib
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits


def threads_of_products() -> set[int]:
    """Return the threads of every BLAS in this process, NumPy's among them."""
    np.ones((2, 2)) @ np.ones((2, 2))
    found = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    assert found
    return found


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_numpy_has_as_many_threads_as_the_backend(name):
    pytest.importorskip(name)
    module = importlib.import_module(f"rltrain.backends.{name}")
    make = {"torch": "TorchBackend", "jax": "JaxBackend"}[name]
    with threadpool_limits(4, user_api="blas"):
        getattr(module, make)({"threads": 2, "name": name})
        assert threads_of_products() == {2}
        getattr(module, make)({"threads": 1, "name": name})
        assert threads_of_products() == {1}
    getattr(module, make)({"threads": 1, "name": name})


def test_jax_tells_that_it_compiles():
    """From when a program was traced until it is compiled; `listen` is called in between."""
    jax = pytest.importorskip("jax")
    from rltrain.backends.jax import JaxBackend

    backend, told = JaxBackend({"device": "cpu"}), {}

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        told[event.rpartition("/")[2]] = backend.is_compiling

    jax.monitoring.register_event_duration_secs_listener(listen)
    jax.jit(lambda x: jax.numpy.sin(x) * 1.2345)(jax.numpy.ones(3)).block_until_ready()
    assert told["jaxpr_trace_duration"] and told["jaxpr_to_mlir_module_duration"]
    assert not told["backend_compile_duration"] and not backend.is_compiling
