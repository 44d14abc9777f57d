"""The generators that a whole process shares: `random`, NumPy's `np.random` and torch's default one. rltrain draws from none.

Environments may. So the processes that rltrain owns (the command line's, workers, copies of async environments) seed them from
the run's seed; a trainer notices when they move and keeps them in checkpoints. Those of somebody's script are looked at only.

What else differs from process to process is not covered: the time, `os.urandom`, the order of sets of strings (PYTHONHASHSEED).
"""

import importlib.util
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from typing import Any

import numpy as np

States = dict[str, Any]  # arrays and plain data, by the generator's name


def read() -> States:
    """Return the states of all generators; torch's where it was imported."""
    version, words, gauss = random.getstate()
    states: States = {
        "random": {"version": version, "words": np.array(words, np.uint32), "gauss": gauss},
        "np.random": np.random.get_state(legacy=False),
    }
    torch = _torch()
    if torch is not None:
        states["torch"] = {"cpu": torch.get_rng_state().numpy(), "cuda": []}
        if torch.cuda.is_initialized():
            states["torch"]["cuda"] = [state.numpy() for state in torch.cuda.get_rng_state_all()]
    return states


def put(states: Mapping[str, Any]) -> None:
    """Put generators back into the states of `read`; those that it doesn't name stay as they are."""
    if "random" in states:
        kept = states["random"]
        random.setstate((kept["version"], tuple(int(word) for word in kept["words"]), kept["gauss"]))
    if "np.random" in states:
        np.random.set_state(states["np.random"])
    if "torch" in states:
        _with_torch(lambda torch: _put_torch(torch, states["torch"]))


def seed(number: int) -> None:
    """Seed all generators of this process, which must be one of ours; torch's as soon as something imports it."""
    random.seed(number)
    np.random.seed(list(np.random.SeedSequence(number).generate_state(4)))
    _with_torch(lambda torch: torch.manual_seed(number))


@contextmanager
def kept() -> Iterator[None]:
    """Leave the generators afterwards as they were before."""
    states, waiting = read(), _waiting()
    try:
        yield
    finally:
        _wait(waiting)
        put(states)


@contextmanager
def seeded(number: int) -> Iterator[None]:
    """Seed this process's generators for the time of a command."""
    with kept():
        seed(number)
        yield


def moved(before: States, after: States) -> list[str]:
    """Return the names of the generators whose states differ; one of a library that came in between: from its seed's."""
    names = []
    for name, state in after.items():
        start = before.get(name) or {"cpu": _torch().Generator().manual_seed(_torch().initial_seed()).get_state().numpy()}
        if not all(_same(start[key], state[key]) for key in start):
            names.append(name)
    return names


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping):
        return all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return all(map(_same, a, b))  # of different lengths: a device came in between
    return np.array_equal(a, b)


def _put_torch(torch: Any, state: Mapping[str, Any]) -> None:
    torch.set_rng_state(torch.from_numpy(np.array(state["cpu"])))
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([torch.from_numpy(np.array(each)) for each in state["cuda"]])


# -- torch, which may be imported later or never ---------------------------------------------------------------------------


def _torch() -> Any:
    """Return torch where it was imported to its end, or None; never imports it."""
    module = sys.modules.get("torch")
    return module if hasattr(module, "get_rng_state") and hasattr(module, "cuda") else None


def _with_torch(act: Callable[[Any], Any]) -> None:
    """Call `act` with torch, now or as soon as somebody has imported it; what was to be done then is forgotten."""
    torch = _torch()
    _wait([] if torch is not None else [_WhenImported(act)])
    if torch is not None:
        act(torch)


class _WhenImported:
    """Calls `act` with torch when that has just been imported, whoever imports it."""

    def __init__(self, act: Callable[[Any], Any]) -> None:
        self.act = act

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find torch as if this were not here, to be told when its module was executed."""
        if name != "torch":
            return None
        _wait([])
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_act(module: Any) -> None:
                execute(module)
                self.act(module)

            spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]
        return spec


def _waiting() -> list[Any]:
    return [finder for finder in sys.meta_path if isinstance(finder, _WhenImported)]


def _wait(finders: list[Any]) -> None:
    sys.meta_path[:] = [*finders, *(finder for finder in sys.meta_path if not isinstance(finder, _WhenImported))]


# -- what a trainer knows of them ------------------------------------------------------------------------------------------


class Watch:
    """What a trainer, or a copy in a process of its own, knows of its process's generators.

    Where they are rltrain's own (`owned`), their states are part of checkpoints and evaluations draw from a stream beside them.
    """

    def __init__(self, *, owned: bool = False, stream: int | None = None) -> None:
        self.owned = owned
        self.moved: list[str] = []  # names, since the first look
        self.workers: list[States | None] | None = None  # of workers that each have a slice of the environment, in their order
        self._stream = stream  # the seed to begin with: what libraries drew while they were imported is not to matter
        self._restored: States = {}
        self._seen: States | None = None
        self._evaluation: States = {}

    def begin(self) -> None:
        """Begin to watch, from the stream's start or from what was restored."""
        if self._stream is not None:
            seed(self._stream)
        put(self._restored)
        self._stream, self._restored, self._seen = None, {}, read()

    def look(self) -> list[str]:
        """Return the names of those that have moved since the beginning."""
        if self._seen is not None:
            states = read()
            self.moved += [name for name in moved(self._seen, states) if name not in self.moved]
            self._seen = states
        return self.moved

    def snapshot(self) -> Any:
        """Return the states of those that moved, a list of such of workers, or None if none did or they are not ours to keep."""
        if self.workers is not None or self._restored:
            return self.workers or self._restored
        states = read() if self.owned and self.moved else {}
        return {name: states[name] for name in self.moved} if states else None

    def restore(self, snapshot: Any) -> None:
        """Begin next time from what is ours of a snapshot."""
        self.workers = snapshot if isinstance(snapshot, list) else None
        self._restored = snapshot if snapshot and self.owned and self.workers is None else {}
        self.moved = list(self._restored)

    @contextmanager
    def evaluating(self, number: int | None = None) -> Iterator[None]:
        """Let an evaluation draw from a stream of its own, begun from the seed `number` or gone on with; training's stays."""
        if not self.owned:
            yield
            return
        with kept():
            if number is None:
                put(self._evaluation)
            else:
                seed(number)
            try:
                yield
            finally:
                self._evaluation = read()
