"""What every backend sets when it is made."""

import importlib

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
