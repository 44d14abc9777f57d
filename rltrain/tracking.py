"""What a run keeps of itself: episode statistics, metrics as JSON lines and TensorBoard events."""

import io
import itertools
import json
import math
import os
import socket
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rltrain.checks import option
from rltrain.files import Appended, open_regular, replacing
from rltrain.structures import ended, mean, mean_of_those_who_played

WINDOW = 100
MAX_ROW_BYTES = 2**20


@dataclass
class TrackingConfig:
    """What is written while training."""

    interval: int = option(128, "timesteps between rows of metrics", low=1)
    tensorboard: bool = option(True, "also write TensorBoard events")
    infos: list[str] = option([], "keys of `infos` whose numbers are added to the metrics, as info/KEY; a.b is b within a")


class EpisodeStatistics:
    """Returns and lengths of the episodes of N copies: running ones, and the last 100 that ended."""

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.env_steps = 0
        self.episodes = 0
        self.returns: deque[float] = deque(maxlen=WINDOW)
        self.lengths: deque[int] = deque(maxlen=WINDOW)
        self._returns = np.zeros(num_envs, np.float64)
        self._lengths = np.zeros(num_envs, np.int64)
        self._info: dict[str, tuple[float, int]] = {}  # sum and count since the last row of metrics

    def record(
        self, rewards: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, valid: np.ndarray | None = None
    ) -> np.ndarray | None:
        """Add one step of all copies, each (N,); return which episodes ended (N,) bool, or None if none did."""
        if valid is None:
            self._returns += rewards
            self._lengths += 1
            self.env_steps += self.num_envs
        else:
            self._returns += np.where(valid, rewards, 0.0)
            self._lengths += valid
            self.env_steps += int(valid.sum())
        done = terminated | truncated
        if not np.count_nonzero(done):
            return None
        self._end(done)
        return done

    def record_rollout(self, rewards: Any, done: np.ndarray, valid: Any = None) -> None:
        """Add several steps of all copies, each (T, N), as `record` would one after the other."""
        start = 0
        for t in [*np.flatnonzero(done.any(axis=1)).tolist(), len(done) - 1]:
            if start <= t:
                self._add(rewards, slice(start, t + 1), valid)
                start = t + 1
                if done[t].any():
                    self._end_episodes(done[t])

    def _add(self, rewards: Any, steps: slice, valid: Any) -> None:
        """Add steps in none of which but the last an episode ends."""
        rows = rewards[steps] if valid is None else np.where(valid[steps], rewards[steps], 0.0)
        sums = np.concatenate((self._returns[None], rows))
        self._returns = np.add.accumulate(sums, axis=0)[-1]  # in order, as one step after the other would
        self._lengths += len(rows) if valid is None else valid[steps].sum(axis=0)
        self.env_steps += rows.size if valid is None else int(valid[steps].sum())

    def _end_episodes(self, done: np.ndarray) -> None:
        self._end(done)

    def _end(self, done: np.ndarray) -> None:
        self.returns.extend(self._returns[done].tolist())
        self.lengths.extend(self._lengths[done].tolist())
        self.episodes += int(done.sum())
        self.forget_running(done)

    def record_info(self, info: Any) -> None:
        """Add the environment's own numbers of one step, each (N,); Gymnasium marks in `_name` which copies gave one."""
        if not isinstance(info, dict):
            return
        for name, value in info.items():
            array = np.asarray(value)
            if name.startswith("_") or array.dtype.kind not in "biuf" or not array.size:
                continue
            mask = info.get(f"_{name}")
            array = array if mask is None else array[np.asarray(mask, bool)]
            if not array.size:
                continue  # only another agent's copies gave one
            total, count = self._info.get(name, (0.0, 0))
            self._info[name] = (total + float(array.sum()), count + array.size)

    def read_info(self) -> dict[str, float]:
        """Return the means of those numbers since the last call, by tag."""
        means = {f"info/{name}": total / count for name, (total, count) in self._info.items() if count}
        self._info = {}
        return means

    def forget_running(self, copies: np.ndarray) -> None:
        """Start anew in `copies` (N,) bool."""
        self._returns[copies] = 0.0
        self._lengths[copies] = 0

    def summary(self) -> dict[str, Any]:
        """Return what a closing table shows; means over the last 100 episodes, null before the first."""
        return {
            "env_steps": self.env_steps,
            "episodes": self.episodes,
            "episode_return_mean": mean(self.returns) if self.returns else None,
            "episode_length_mean": float(np.mean(self.lengths)) if self.lengths else None,
        }

    def snapshot(self) -> dict[str, Any]:
        """Return everything as arrays and plain data."""
        return {
            "env_steps": self.env_steps,
            "episodes": self.episodes,
            "returns": list(self.returns),
            "lengths": list(self.lengths),
            "running_returns": self._returns.copy(),
            "running_lengths": self._lengths.copy(),
            "info": {name: list(pair) for name, pair in self._info.items()},
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put everything back."""
        self.env_steps, self.episodes = int(snapshot["env_steps"]), int(snapshot["episodes"])
        self.returns, self.lengths = deque(snapshot["returns"], WINDOW), deque(snapshot["lengths"], WINDOW)
        self._returns, self._lengths = np.array(snapshot["running_returns"]), np.array(snapshot["running_lengths"])
        self._info = {name: (float(total), int(count)) for name, (total, count) in snapshot["info"].items()}


class TeamStatistics(EpisodeStatistics):
    """The same of a team with named members: an episode's return is the mean over its members, who have statistics of their own.

    What is given comes in dicts by member. An episode is one of a copy and ends with the last member's; those who never came
    don't count in it. An env step is one of a copy, however many act.
    """

    def __init__(self, num_envs: int, members: Sequence[str]) -> None:
        super().__init__(num_envs)
        self.members = {name: EpisodeStatistics(num_envs) for name in members}

    def record(self, rewards: Any, terminated: Any, truncated: Any, valid: Any = None) -> np.ndarray | None:
        """Add one step of all copies; return which episodes ended (N,) bool, or None if none did."""
        self.env_steps += self.num_envs
        self._lengths += 1
        for name, member in self.members.items():
            happened = None if valid is None else valid[name]
            member._returns += rewards[name] if happened is None else np.where(happened, rewards[name], 0.0)
            member._lengths += 1 if happened is None else happened
            member.env_steps += self.num_envs if happened is None else int(happened.sum())
        done = ended(terminated, truncated)
        if not done.any():
            return None
        self._end_episodes(done)
        return done

    def _add(self, rewards: Any, steps: slice, valid: Any) -> None:
        count = steps.stop - steps.start
        self.env_steps += count * self.num_envs
        self._lengths += count
        for name, member in self.members.items():
            member._add(rewards[name], steps, None if valid is None else valid[name])

    def _end_episodes(self, done: np.ndarray) -> None:
        played = {name: member._lengths > 0 for name, member in self.members.items()}
        returns = [member._returns for member in self.members.values()]
        self._returns = mean_of_those_who_played(returns, list(played.values()))
        for name, member in self.members.items():
            member._end(done & played[name])
        self._end(done)

    def forget_running(self, copies: np.ndarray) -> None:
        """Start anew in `copies` (N,) bool."""
        super().forget_running(copies)
        for member in self.members.values():
            member.forget_running(copies)

    def summary(self) -> dict[str, Any]:
        """Return what a closing table shows, of the team and of each member."""
        return {**super().summary(), "members": {name: member.summary() for name, member in self.members.items()}}

    def snapshot(self) -> dict[str, Any]:
        """Return everything as arrays and plain data."""
        return {**super().snapshot(), "members": {name: member.snapshot() for name, member in self.members.items()}}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Put everything back."""
        super().restore(snapshot)
        for name, member in self.members.items():
            member.restore(snapshot["members"][name])


class MetricsWriter:
    """Rows of metrics in `metrics.jsonl` and as TensorBoard events; one sub-run per agent where there are several."""

    def __init__(
        self, directory: Path, agents: list[str], *, tensorboard: bool, resumed_at: tuple[int, dict[str, int]] | None
    ) -> None:
        """`resumed_at` is (timestep, env steps by agent): what a killed run wrote after it is cut off, or curves would double."""
        path = directory / "metrics.jsonl"
        if resumed_at is not None and path.exists():
            _cut(path, resumed_at[0])
        self._file = Appended(path)
        self._events: dict[str, Events] = {}
        if tensorboard:
            for agent in agents:
                purge = None if resumed_at is None else resumed_at[1][agent]
                self._events[agent] = Events(directory if len(agents) == 1 else directory / agent, purge)

    def write(self, agent: str, timestep: int, env_steps: int, metrics: dict[str, float]) -> None:
        """Write one row; not finite numbers become null, which is what JSON has. Raises OSError."""
        row = {"wall_time": round(time.time(), 3), "timestep": timestep, "env_steps": env_steps, "agent": agent}
        row |= {tag: value if math.isfinite(value) else None for tag, value in metrics.items()}
        self._file.append(json.dumps(row) + "\n")
        if agent in self._events:
            self._events[agent].write(env_steps, metrics)

    def write_gif(self, agent: str, env_steps: int, tag: str, data: bytes) -> None:
        """Show a moving picture in TensorBoard, if that is on. Raises OSError."""
        if agent in self._events:
            self._events[agent].write_gif(env_steps, tag, data)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        for events in self._events.values():
            events.close()


def _cut(path: Path, timestep: int) -> None:
    """Keep the rows up to `timestep`; a half-written last line goes too."""
    with open(open_regular(path), "rb") as file:
        replace_text(
            path,
            (
                line.decode().rstrip("\n") + "\n"
                for line in iter(lambda: file.readline(MAX_ROW_BYTES), b"")
                if _is_kept(line, timestep)
            ),
        )


def _is_kept(line: bytes, timestep: int) -> bool:
    try:
        return json.loads(line)["timestep"] <= timestep
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


class Events:
    """A file of TensorBoard's: its records, each written where a full disk is noticed, in the thread that trains."""

    def __init__(self, directory: Path, purge_step: int | None) -> None:
        """From `purge_step` on TensorBoard is to drop what an earlier, killed session wrote."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        directory.mkdir(exist_ok=True)
        stem = f"events.out.tfevents.{int(time.time()):010}.{socket.gethostname()}.{os.getpid()}"
        self._file = Appended(directory / f"{stem}.{next(_numbers):06}")  # TensorBoard reads them in the order of names
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if purge_step is not None:
            session = SessionLog(status=SessionLog.START)
            self._add(Event(wall_time=time.time(), step=purge_step + 1, session_log=session))

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Write one row. Raises OSError."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in metrics.items()]
        self._add(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def write_gif(self, step: int, tag: str, data: bytes) -> None:
        """Write a moving picture, which TensorBoard shows as it is. Raises OSError."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        width, height = (int.from_bytes(data[i : i + 2], "little") for i in (6, 8))
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        self._add(Event(wall_time=time.time(), step=step, summary=Summary(value=[Summary.Value(tag=tag, image=image)])))

    def _add(self, event: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        self._file.append(record.getvalue())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


_numbers = itertools.count()


def replace_text(path: Path, text: str | Iterable[str]) -> None:
    """Write a file, at once or piece by piece, so that a reader sees the old text or the new one, never half of it."""
    with replacing(path) as file:
        file.writelines(piece.encode() for piece in ([text] if isinstance(text, str) else text))
