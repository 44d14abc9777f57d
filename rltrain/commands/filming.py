"""Videos of what `rltrain eval` has played: the best, the median and the worst episode, played again with a camera on them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rltrain import assemble
from rltrain.config import Config
from rltrain.errors import StorageError
from rltrain.runs import check_writable, holds_run
from rltrain.screen import write_error
from rltrain.trainers.base import Trainer
from rltrain.trainers.filming import Filming, best_median_worst
from rltrain.video import check_installed, video_format

FOLDER = "videos"


@dataclass
class Studio:
    """Where an evaluation's videos are made, if any are wanted."""

    form: str | None  # mp4 or gif; None: no videos
    directory: Path
    why_not: str = ""  # there are none
    videos: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by agent

    @contextmanager
    def open(self, config: Config) -> Iterator[None]:
        """Have environments that are made now drawn without a display."""
        if self.form is None:
            yield
            return
        with assemble.without_display(config) as self.why_not:
            yield

    def make_trainer(self, config: Config, *, render_mode: str | None, **how: Any) -> Trainer:
        """Return the trainer, its environment one that can be drawn if that is wanted and can be."""
        if self.form is None or self.why_not:
            return assemble.make_trainer(config, training=False, render_mode=render_mode, **how)
        trainer, self.why_not = assemble.drawn(
            config, lambda mode: assemble.make_trainer(config, training=False, render_mode=mode, **how)
        )
        return trainer

    def film(self, trainer: Trainer, episodes: int, results: dict[str, Any], timesteps: dict[str, int | None]) -> None:
        """Play an evaluation again as far as it takes, and keep videos of what it is remembered by.

        The same policies play from the same starts; where that doesn't come out the same, `why_not` says so.
        """
        if self.form is None or self.why_not or trainer.run.stop_signal is not None:
            return
        clips = [replace(clip, timestep=timesteps[clip.agent]) for clip in best_median_worst(trainer, results)]
        trainer.filming = filming = Filming(clips, self.directory, self.form, only=True)
        try:
            trainer.eval(episodes=episodes)
        finally:
            trainer.filming = None
            filming.end()
        self.videos, self.why_not = filming.videos, filming.problem
        for agent, videos in self.videos.items():
            counted = [results[agent][key][video["episode"]] for video in videos for key in ("returns", "lengths")]
            if counted != [video[key] for video in videos for key in ("return", "length")]:
                again = "its videos are of episodes with the returns that their names say, not of those that were counted"
                self.why_not = self.why_not or f"{trainer.env.name} doesn't play an episode twice in the same way: {again}"

    def tell(self) -> None:
        """Say what went wrong, if anything did."""
        if self.why_not:
            told = "" if self.videos else "no videos are written: "
            write_error(f"warning: video={self.form}: {told}{self.why_not}")


def find_studio(setting: str, out: str | None, checkpoint: Path, evaluation: str | None) -> Studio:
    """Return where videos are made: in `out`, in the run that the checkpoint belongs to, else beside `evaluation`.

    Raises ConfigError for a package that is missing, StorageError where nothing can be written.
    """
    form, run = video_format(setting), checkpoint.parent.parent
    is_in_run = checkpoint.parent.name == "checkpoints" and holds_run(run)
    directory = Path(out) if out is not None else (run if is_in_run else Path(evaluation or "outputs")) / FOLDER
    if form is not None:
        check_installed(form, "video")
        try:
            check_writable(str(directory), "out")
        except StorageError as error:
            raise StorageError(f"{str(error).partition('; ')[0]}; out=DIR puts the videos elsewhere") from None
    return Studio(form, directory)
