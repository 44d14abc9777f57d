"""Videos of an evaluation's episodes: which ones, their pictures as the copies play, and what the files are called.

A picture is taken of every start and after every step, also of the last one, before the copy is reset. The returns in the names
are those that were counted while the pictures were taken.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rltrain.errors import said
from rltrain.evaluation import EpisodeCounter, TeamCounter, episode_quota
from rltrain.runs import as_name
from rltrain.signals import comes_from_signal
from rltrain.structures import Array, Arrays, Step, ended
from rltrain.video import Video, VideoError, frames_per_second

if TYPE_CHECKING:
    from rltrain.envs.base import EnvWrapper
    from rltrain.trainers.base import Trainer


@dataclass
class Clip:
    """An episode to film."""

    agent: str
    copy: int  # of all copies
    nth: int  # of the copy's episodes
    episode: int  # its place in the agent's results
    which: str = ""  # "best"
    length: int | None = None  # in steps, where it was played before
    timestep: int | None = None  # that the policy was trained for, where it isn't the trainer's
    video: Video | None = None  # once it has begun
    is_over: bool = False


class Filming:
    """Films the clips in the next evaluation of a trainer that it is handed to, and is then through."""

    def __init__(self, clips: Sequence[Clip], directory: Path, form: str, *, only: bool = False) -> None:
        """`form` is mp4 or gif; `only`: the evaluation may end with the last clip, it is for the pictures alone."""
        self.clips = {(clip.copy, clip.nth): clip for clip in clips}
        self.directory, self.form, self.only = directory, form, only
        self.problem = ""  # why there are no videos
        self.videos: dict[str, list[dict[str, Any]]] = {}  # by agent, once it is through

    @property
    def is_over(self) -> bool:
        """Tell whether there is nothing left to play for."""
        return self.only and (bool(self.problem) or all(clip.is_over for clip in self.clips.values()))

    def begin(self, clip: Clip, fps: float) -> None:
        """Open a clip's file, in place of one that was begun before."""
        self.drop(clip)
        self.directory.mkdir(parents=True, exist_ok=True)
        name = f".{os.getpid()}-{clip.agent}-{clip.copy}-{clip.nth}.{self.form}"
        clip.video = Video(self.directory / as_name(name), fps, length=None if clip.length is None else clip.length + 1)

    def drop(self, clip: Clip) -> None:
        """Leave nothing of a clip behind."""
        if clip.video is not None:
            clip.video.discard()
            clip.video = None

    def fail(self, why: str) -> None:
        """Film no more, and say why."""
        self.problem = self.problem or why
        self.end()

    def end(self) -> None:
        """Leave nothing behind of what didn't come to its end."""
        for clip in self.clips.values():
            self.drop(clip)

    def develop(self, trainer: "Trainer", counters: Sequence[EpisodeCounter | TeamCounter]) -> None:
        """Give the files their names, by what was counted."""
        counted = {
            agent.name: (scope.start, counter.team if isinstance(counter, TeamCounter) else counter)
            for agent, scope, counter in zip(trainer.agents, trainer.scopes, counters, strict=True)
        }
        for clip in self.clips.values():
            start, counter = counted[clip.agent]
            if clip.video is None or not clip.is_over:
                continue
            played = float(counter.returns[clip.copy - start][clip.nth]), counter.lengths[clip.copy - start][clip.nth]
            path = self.directory / self._name(trainer, clip, played[0])
            try:
                clip.video.close(path)
            except VideoError as error:
                self.fail(str(error))
                return
            clip.video = None
            about = {"episode": clip.episode, "return": played[0], "length": played[1], "file": str(path)}
            self.videos.setdefault(clip.agent, []).append({**({"which": clip.which} if clip.which else {}), **about})

    def _name(self, trainer: "Trainer", clip: Clip, achieved: float) -> str:
        timestep = trainer.timestep if clip.timestep is None else clip.timestep
        parts = [trainer.env.name, clip.agent, f"at-{timestep}", clip.which, f"episode-{clip.episode}"]
        return "_".join(as_name(part) for part in [*parts, f"return_{achieved:.2f}"] if part) + f".{self.form}"

    def around(self, env: "EnvWrapper") -> "Camera":
        """Return the environment with a camera on it."""
        return Camera(env, self)


class Camera:
    """Stands before an environment's copies and takes the pictures; all else goes to them."""

    def __init__(self, env: "EnvWrapper", filming: Filming) -> None:
        self.env, self.filming = env, filming
        self.nth = np.zeros(env.num_envs, np.int64)  # which episode each copy plays
        self.over = np.zeros(env.num_envs, bool)  # it has ended
        self.lost = np.zeros(env.num_envs, bool)  # one was cut and plays on unseen

    def __getattr__(self, name: str) -> Any:
        """Return what the environment has under that name."""
        return getattr(self.env, name)

    def reset(self, seed: Sequence[int] | None = None) -> Arrays:
        """Start an episode in every copy."""
        observations = self.env.reset(seed=seed)
        self.over[:], self.lost[:] = False, False
        for i in range(self.env.num_envs):
            self._begin(i)
        return observations

    def step(self, actions: Array) -> Step:
        """Step all copies."""
        step = self.env.step(actions)
        rows = step.valid.values() if isinstance(step.valid, dict) else [step.valid]
        happened = [np.ones(self.env.num_envs, bool) if row is None else np.asarray(row) for row in rows]
        dummy = ~np.any(happened, axis=0)
        done = ended(step.terminated, step.truncated) & ~dummy
        for i in {copy for copy, _ in self.filming.clips}:
            if dummy[i]:  # a simulator's step that only resets
                self._begin(i)
            else:
                self._picture(i)
        self._end(done)
        return step

    def end_episodes(self, copies: Array) -> bool:
        """End the episodes of `copies` (N,) bool where they are."""
        answer = self.env.end_episodes(copies)
        self._end(copies)
        if not answer:
            self.lost |= copies
        return answer

    def reset_done(self) -> Arrays:
        """Start the next episode of the copies whose last one just ended."""
        observations = self.env.reset_done()
        for i in np.flatnonzero(self.over).tolist():
            self._begin(i)
        self.over[:] = False
        return observations

    def _end(self, copies: Array) -> None:
        ending = copies & ~self.over & ~self.lost
        for i in np.flatnonzero(ending).tolist():
            clip = self._clip(i)
            if clip is not None:
                clip.is_over = True
        self.nth[ending] += 1
        self.over |= ending

    def _clip(self, i: int) -> Clip | None:
        clip = self.filming.clips.get((i, int(self.nth[i])))
        return None if clip is None or clip.is_over or self.filming.problem or self.lost[i] else clip

    def _begin(self, i: int) -> None:
        clip = self._clip(i)
        if clip is not None:
            try:
                self.filming.begin(clip, frames_per_second(self.env.render_fps))
            except OSError as error:
                self.filming.fail(f"{error.filename}: {error.strerror}")
            self._picture(i)

    def _picture(self, i: int) -> None:
        clip = self._clip(i)
        if clip is None or clip.video is None:
            return
        try:
            clip.video.add(self.env.draw(i))
        except VideoError as error:
            self.filming.fail(str(error))
        except Exception as error:  # of the environment's own code
            if comes_from_signal(error):
                raise
            self.filming.fail(said(error).partition("\n")[0].removeprefix("EnvironmentFailure: "))


def first_episodes(trainer: "Trainer") -> list[Clip]:
    """Return each agent's first episode."""
    return [Clip(agent.name, scope.start, 0, 0) for agent, scope in zip(trainer.agents, trainer.scopes, strict=True)]


def best_median_worst(trainer: "Trainer", results: Mapping[str, Mapping[str, Any]]) -> list[Clip]:
    """Return each agent's best, median and worst episode of an evaluation, as many as there are."""
    clips = []
    for agent, scope in zip(trainer.agents, trainer.scopes, strict=True):
        returns, lengths = results[agent.name]["returns"], results[agent.name]["lengths"]
        order = np.argsort(returns, kind="stable")
        if not len(order):
            continue
        copies = np.repeat(np.arange(scope.start, scope.stop), quota := episode_quota(len(returns), scope.stop - scope.start))
        nth = np.concatenate([np.arange(count) for count in quota])
        chosen: dict[int, str] = {}
        for which, place in (("best", -1), ("worst", 0), ("median", (len(order) - 1) // 2)):
            chosen.setdefault(int(order[place]), which)
        clips += [Clip(agent.name, int(copies[i]), int(nth[i]), i, which, int(lengths[i])) for i, which in chosen.items()]
    return clips
