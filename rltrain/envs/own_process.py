"""A copy of a Gymnasium environment in a process of its own, with the generators that this whole process shares."""

from typing import Any

from rltrain import generators
from rltrain.generators import Watch
from rltrain.seeding import PROCESS_GENERATORS, seed64

GENERATORS = "generators"  # beside the layers of a copy's snapshot


def seed_process(seed: int) -> None:
    """Seed them from a copy's own seed."""
    generators.seed(seed64(seed, PROCESS_GENERATORS))


def in_own_process(copy: Any, index: int) -> Any:
    """Return copy `index` with its process's generators: a seed begins them anew, snapshots hold those that moved."""
    import gymnasium

    watch, inside = Watch(owned=True), copy
    watch.begin()

    class InOwnProcess(gymnasium.Wrapper):
        """Hands on what is asked of the copy."""

        def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
            if seed is not None:
                seed_process(seed)
                watch.begin()
            return self.env.reset(seed=seed, options=options)

        def snapshot_copy(self) -> dict[str, Any] | None:
            watch.look()
            with generators.kept():
                snapshot = inside.snapshot_copy()
            moved = watch.snapshot()
            return snapshot if snapshot is None or moved is None else {**snapshot, GENERATORS: moved}

        def restore_copy(self, snapshots: list[dict[str, Any]]) -> None:
            inside.restore_copy(snapshots)
            watch.restore(snapshots[index].get(GENERATORS))
            watch.begin()

    return InOwnProcess(copy)
