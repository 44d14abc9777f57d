"""rltrain: a command-line training runner for reinforcement learning, and its library.

Four lines train PPO on CartPole::

    import rltrain

    env = rltrain.make_env("CartPole-v1", num_envs=8)
    agent = rltrain.make_agent("ppo", env, learning_rate=1e-3)
    rltrain.SequentialTrainer(env, agent, total_env_steps=100_000).train()

Names are imported when they are first used.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.3.0"
__all__ = [
    "Agent",
    "CheckpointError",
    "ConfigError",
    "EnvWrapper",
    "EnvironmentFailure",
    "Loaded",
    "NonFiniteError",
    "ParallelTrainer",
    "RltrainError",
    "Run",
    "RunError",
    "SequentialTrainer",
    "StepResult",
    "StepTrainer",
    "StorageError",
    "Trainer",
    "__version__",
    "evaluate",
    "load",
    "make_agent",
    "make_env",
]

if TYPE_CHECKING:
    from rltrain.library import (
        Agent,
        CheckpointError,
        ConfigError,
        EnvironmentFailure,
        EnvWrapper,
        Loaded,
        NonFiniteError,
        ParallelTrainer,
        RltrainError,
        Run,
        RunError,
        SequentialTrainer,
        StepResult,
        StepTrainer,
        StorageError,
        Trainer,
        evaluate,
        load,
        make_agent,
        make_env,
    )
else:

    def __getattr__(name: str) -> Any:  # a type checker that saw it would let any name pass
        """Return a public name, importing what it needs."""
        if name not in __all__:
            raise AttributeError(f"module 'rltrain' has no attribute {name!r}")
        from rltrain import library

        value = globals()[name] = getattr(library, name)
        return value


def __dir__() -> list[str]:
    """Return the names that are there, and those that would be imported."""
    return sorted({*globals(), *__all__})
