"""Snapshots that earlier versions wrote."""

from typing import Any

RENAMED = {"minibatch_generator": "generator", "minibatch_key": "key"}


def upgraded(snapshot: dict[str, Any]) -> dict[str, Any]:
    """Return a snapshot with today's names: until 0.3 there was one optimiser, with no name."""
    training = snapshot.get("training")
    if training is None or "optimizer" not in training:
        return snapshot
    training = {RENAMED.get(name, name): part for name, part in training.items()}
    optimizers = {"actor_critic": training.pop("optimizer")}
    return {**snapshot, "training": {**training, "optimizers": optimizers, "targets": {}}}
