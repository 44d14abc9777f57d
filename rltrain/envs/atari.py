"""Atari 2600 games of the Arcade Learning Environment, prepared as agents learn them from pictures: `env=atari`.

The protocol is that of Machado et al. (2018), "Revisiting the Arcade Learning Environment": sticky actions, episodes that are
whole games, a cap on their frames. The pictures are those of Mnih et al. (2015): the maximum of the last two frames, grayscale,
84 x 84, the last four stacked. Nothing clips rewards here: agents may, and returns stay those of the game.
"""

import importlib.util
from dataclasses import dataclass
from typing import Any

from rltrain import installing
from rltrain.checks import option
from rltrain.envs.gymnasium import GymnasiumConfig, GymnasiumEnv
from rltrain.envs.gymnasium_ids import find_spec
from rltrain.envs.wrapping import Entry
from rltrain.errors import ConfigError
from rltrain.seeding import TRAINING_ENVIRONMENTS

SETS = {  # what goes to gymnasium.make, by the setting that says it
    "frameskip": "frame_skip",
    "repeat_action_probability": "repeat_action_probability",  # by a wrapper: ALE's snapshots lack the action to repeat
    "full_action_space": "full_action_space",
    "max_num_frames_per_episode": "max_episode_frames",
    "obs_type": "grayscale",
}


@dataclass
class AtariConfig(GymnasiumConfig):
    """An Atari game, its pictures prepared."""

    id: str = option("ALE/Pong-v5", "a game of ALE's: ALE/NAME-v5", fixed=True)
    frame_skip: int = option(
        4, "frames that an action is held for; the picture is the maximum of the last two", low=1, fixed=True
    )
    noop_max: int = option(30, "a game begins with 1 to so many frames without an action; 0: with none", low=0, fixed=True)
    screen_size: int = option(84, "width and height of the pictures", low=1, fixed=True)
    grayscale: bool = option(True, "pictures without colours", fixed=True)
    frame_stack: int = option(4, "last pictures that are observed together; 1: the last alone, not stacked", low=1, fixed=True)
    terminal_on_life_loss: bool = option(
        False,
        "an episode of training ends with a life, the next one goes on with the game; evaluations play whole games all the same",
        fixed=True,
    )
    repeat_action_probability: float = option(
        0.25, "sticky actions: the chance in each frame that the action before is repeated", low=0, below=1, fixed=True
    )
    full_action_space: bool = option(False, "all 18 actions, also those without an effect in this game", fixed=True)
    max_episode_frames: int | None = option(108_000, "frames after which a game is cut; null: none are", low=1, fixed=True)

    def check(self, key: str) -> None:
        """Raise ConfigError for what is said twice, and for vector environments."""
        super().check(key)
        for name in SETS.keys() & self.kwargs.keys():
            raise ConfigError(f"{key}.kwargs.{name}", self.kwargs[name], f"is set by {key}.{SETS[name]}; leave it out")
        if self.vectorization == "native":
            raise ConfigError(
                f"{key}.vectorization", "native", "pictures are prepared in single copies; use sync or async, or env=ALE/Pong-v5"
            )


class AtariEnv(GymnasiumEnv):
    """N copies of an Atari game."""

    settings = AtariConfig
    cfg: AtariConfig

    def _recipe(self) -> tuple[dict[str, Any], list[Entry]]:
        """Return what goes to `gymnasium.make`, and what goes around each copy."""
        cfg, (kwargs, wrappers) = self.cfg, super()._recipe()
        self._check_game()
        kwargs |= {name: getattr(cfg, setting) for name, setting in SETS.items()}
        # ALE draws only what is looked at: the wrapper takes its pictures from the emulator, so the cheaper ones do here
        kwargs |= {"frameskip": 1, "repeat_action_probability": 0.0, "obs_type": "grayscale" if cfg.grayscale else "rgb"}
        sticky = {"repeat_action_probability": cfg.repeat_action_probability}
        pictures = {name: getattr(cfg, name) for name in ("noop_max", "frame_skip", "screen_size")}
        around = [Entry("env=atari", "StickyAction", sticky)] if cfg.repeat_action_probability else []
        around.append(Entry("env=atari", "AtariPreprocessing", {**pictures, "grayscale_obs": cfg.grayscale}))
        if self._ends_with_lives:
            around.append(Entry("env=atari", "rltrain.envs.atari:one_life", {}))
        if cfg.frame_stack > 1:
            around.append(Entry("env=atari", "FrameStackObservation", {"stack_size": cfg.frame_stack}))
        return kwargs, [*around, *wrappers]

    @property
    def _ends_with_lives(self) -> bool:
        return self.cfg.terminal_on_life_loss and self._arguments["role"] == TRAINING_ENVIRONMENTS

    def _check_game(self) -> None:
        """Raise ConfigError where a package is missing, or the id isn't that of a game."""
        missing = [name for name in ("ale_py", "cv2") if importlib.util.find_spec(name) is None]
        if missing:
            raise ConfigError("env", "atari", f"{' and '.join(missing)} missing: {installing.command_for('atari')}")
        if self._arguments["make"] is None and not str(find_spec(self.cfg.id).entry_point).startswith("ale_py."):
            raise ConfigError("env.id", self.cfg.id, f"is no game of ALE's; rltrain list envs names them, or env={self.cfg.id}")

    @property
    def episode_limit(self) -> int | None:
        """Return the steps after which the cap on frames has cut every game, or a TimeLimit before."""
        frames = self.cfg.max_episode_frames
        limits = [super().episode_limit, None if frames is None else -(-frames // self.cfg.frame_skip)]
        return min((limit for limit in limits if limit is not None), default=None)

    def notes(self) -> list[str]:
        """Say the protocol, without which returns in Atari can't be compared."""
        cfg = self.cfg
        sticky = f"sticky actions {cfg.repeat_action_probability:g}" if cfg.repeat_action_probability else "no sticky actions"
        actions = f"{'full' if cfg.full_action_space else 'minimal'} action set ({getattr(self.action_space, 'n', 'continuous')})"
        cap = "no cap on frames" if cfg.max_episode_frames is None else f"at most {cfg.max_episode_frames:,} frames a game"
        ends = "whole games; training's end with a life" if cfg.terminal_on_life_loss else "whole games"
        return [
            f"{cfg.id}: {sticky}, {actions}, {cfg.frame_skip} frames per action, {cap}, up to {cfg.noop_max} frames without an "
            f"action at the start; episodes are {ends}; returns are not clipped",
            *super().notes(),
        ]


def one_life(env: Any) -> Any:
    """Return a game whose episodes end with a life: the next one goes on from there, and only a game that is over begins anew.

    The return of the whole game is in `infos["episode"]["game_return"]` when it is over.
    """
    import gymnasium

    class OneLife(gymnasium.Wrapper):
        """Ends episodes where `infos["lives"]` falls."""

        def __init__(self) -> None:
            super().__init__(env)
            self.lives, self.goes_on, self.game_return = 0, False, 0.0
            self.last: Any = None  # the observation that the episode ended with

        def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
            if self.goes_on and seed is None:
                self.goes_on = False
                return self.last, {"lives": self.lives}
            observation, info = self.env.reset(seed=seed, options=options)
            self.lives, self.goes_on, self.game_return = info["lives"], False, 0.0
            return observation, info

        def step(self, action: Any) -> Any:
            self.last, reward, terminated, truncated, info = self.env.step(action)
            self.game_return += float(reward)
            self.goes_on = info["lives"] < self.lives and not terminated and not truncated
            self.lives = info["lives"]
            if terminated or truncated:
                info = {**info, "episode": {"game_return": self.game_return}}
            return self.last, reward, terminated or self.goes_on, truncated, info

    return OneLife()
