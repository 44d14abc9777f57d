"""Whether the agents' reward functions can be used with this environment, known before training."""

from typing import TYPE_CHECKING

from rltrain.errors import ConfigError

if TYPE_CHECKING:
    from rltrain.trainers.base import Trainer


def check_rewards(trainer: "Trainer") -> None:
    """Try every agent's reward function out.

    Raises ConfigError for one that fails, can't be compiled where it has to be, or takes infos where there are none.
    """
    for agent, scope in zip(trainer.agents, trainer.scopes, strict=True):
        function = getattr(agent, "reward_function", None)
        if function is None:
            continue
        if function.reads_infos and trainer.cfg.fused != "false" and not trainer._why_not_fused():
            raise ConfigError(
                f"agents.{agent.name}.reward_function",
                function.name,
                "takes infos, which the fused loop doesn't have; leave infos out, or set trainer.fused=false",
            )
        on_device = hasattr(trainer.env, "pure") and hasattr(agent.algorithm, "pure")
        function.try_out(scope.stop - scope.start, on_device=on_device)
