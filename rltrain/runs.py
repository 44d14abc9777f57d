"""A run: its directory, lock, log, metrics, checkpoints, the signals that stop it. Without a directory nothing is written."""

import errno
import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from rltrain import signals
from rltrain.checkpoints import CheckpointsConfig, CheckpointStore, storage_error
from rltrain.checks import option
from rltrain.confidential import conceal, conceal_tree, is_held
from rltrain.errors import ConfigError, StorageError
from rltrain.evaluation import EvaluationConfig
from rltrain.files import Appended, Place, open_regular
from rltrain.hangs import write_stacks_to
from rltrain.screen import EvaluationProgress, Screen, printable
from rltrain.signals import EXIT_STATUS as EXIT_STATUS
from rltrain.tracking import MetricsWriter, TrackingConfig, replace_text

LOCK = ".lock"
HELD = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)  # what a lock that another process has says


@dataclass
class RunConfig:
    """Where a run lands."""

    dir: str | None = option(None, "run directory; null: outputs/<env>/<agents>/<date>_<time>_s<seed>")


@dataclass
class Run:
    """What a trainer needs from the run it is part of; the default writes nothing and shows a bar on a terminal."""

    directory: Path | None = None
    agents: list[str] = field(default_factory=list)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    checkpoints: CheckpointsConfig = field(default_factory=CheckpointsConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    manifest: dict[str, Any] = field(default_factory=dict)  # what every checkpoint's manifest says besides its timestep
    files: dict[str, bytes] = field(default_factory=dict)  # what every checkpoint keeps besides its parts
    needed: tuple[str, ...] = ()  # files of the directory without which nobody can go on with the run
    screen: Screen | None = None
    stop_signal: signal.Signals | None = None
    at_rest: Callable[[], None] | None = None  # brings it to its end while it waits between two steps of the caller's
    unsaved: OSError | None = None  # why the last checkpoint could not be written
    _metrics: MetricsWriter | None = None
    _log: Any = None
    _place: Place | None = None  # the directory itself, once something was written there

    @property
    def store(self) -> CheckpointStore | None:
        """The run's checkpoints."""
        return None if self.directory is None else CheckpointStore(self.directory / "checkpoints", self.checkpoints.keep)

    def open(self, *, total: int, copies: int, show: bool | None, resumed_at: tuple[int, dict[str, int]] | None) -> None:
        """Start writing; `resumed_at` is (timestep, env steps by agent) of the checkpoint that the run goes on from."""
        import rich.style  # noqa: F401  draws from `random` when it is imported: before anybody looks whether that moves

        self.screen = Screen(enabled=show, total=total, copies=copies)
        if self.directory is None:
            return
        try:
            self.open_log()
            write_stacks_to(self.directory / "error.log")
            self._metrics = MetricsWriter(
                self.directory, self.agents, tensorboard=self.tracking.tensorboard, resumed_at=resumed_at
            )
        except OSError as error:
            raise storage_error(f"run.dir={self.directory}: {error.filename or 'metrics'} can't be written", error) from None

    def open_log(self) -> None:
        """Start writing `train.log`; safe to call twice."""
        if self.directory is not None and self._log is None:
            self._make_directory(self.directory)
            self._log = Appended(self.directory / "train.log")

    def _make_directory(self, directory: Path) -> None:
        """Make the directory, once: what somebody deletes or renames later isn't made again with half a run in it."""
        if self._place is None:
            directory.mkdir(parents=True, exist_ok=True)
            self._place = Place(directory)

    def lost(self) -> str:
        """Say why nothing can be written to the directory any more by its name; nothing if all is well."""
        if self._place is None:
            return ""
        if not self._place.is_there():
            return "the directory was deleted, renamed or replaced while the run went on"
        gone = ", ".join(name for name in self.needed if self._place.lacks(name))
        return f"{gone} was deleted while the run went on" if gone else ""

    def _say_lost(self) -> bool:
        """Tell whether the directory is lost, and say it once."""
        why = self.lost()
        if why:
            self._warn_once("directory", f"run.dir={self.directory}: {why}; nothing is written there, training goes on")
        return bool(why)

    def say(self, line: str) -> None:
        """Tell the screen and `train.log`."""
        if self._log is not None:
            with suppress(OSError):
                self._log.append(f"{datetime.now().isoformat(timespec='seconds')} {printable(conceal(line))}\n")
        (self.screen or Screen(total=0, copies=0)).say(line)

    def show_evaluation(self, progress: EvaluationProgress | None) -> None:
        """Show how an evaluation stands that takes long; None: it is over."""
        if self.screen is not None:
            self.screen.show_evaluation(progress)

    def write_metrics(self, agent: str, timestep: int, env_steps: int, metrics: dict[str, float]) -> None:
        """Write one row of metrics."""
        if self._metrics is None:
            return
        self._say_lost()  # the files are open: the row goes where they are now
        try:
            self._metrics.write(agent, timestep, env_steps, metrics)
        except OSError as error:
            self._warn_once("metrics", f"{storage_error('metrics', error)}; rows are lost until it has room, training goes on")

    def write_video(self, agent: str, env_steps: int, path: Path) -> None:
        """Show a video of an evaluation where its kind can be shown beside the metrics."""
        if self._metrics is not None and path.suffix == ".gif":
            try:
                self._metrics.write_gif(agent, env_steps, "evaluation/episode", path.read_bytes())
            except OSError as error:
                self._warn_once("video", f"{storage_error('TensorBoard', error)}: a video is not shown there")

    def save(self, timestep: int, parts: Mapping[str, Any], manifest: Mapping[str, Any]) -> bool:
        """Write a checkpoint; a full disk is told once and remembered, the previous one stays."""
        if self.store is None or self.directory is None:
            return False
        try:
            self._make_directory(self.directory)
            about = {**self.manifest, "timestep": timestep, **manifest}
            if is_held(parts, keys=False):  # in what an agent or the trainer keeps: masked, so no longer exact
                parts, about["exact_resume"] = conceal_tree(parts), False
            if self.lost():
                raise FileNotFoundError(errno.ENOENT, self.lost())
            self.store.save(timestep, parts, conceal_tree(about), self.files)
        except OSError as error:
            self.unsaved = error
            if not self._say_lost():
                reason = storage_error("checkpoint", error)
                self._warn_once(
                    "checkpoint", f"timestep {timestep}: {reason}; the previous checkpoint is intact, training goes on"
                )
            return False
        self.unsaved = None
        return True

    def mark_best(self, timestep: int, agents: Iterable[str]) -> None:
        """Point these agents' `best` at the checkpoint of `timestep`."""
        if self.store is not None:
            try:
                for agent in agents:
                    self.store.mark_best(timestep, agent if len(self.agents) > 1 else None)
            except OSError as error:
                self._warn_once("best", f"`best` can't be written ({error.strerror})")

    def mend_bests(self, timesteps: Mapping[str, int]) -> None:
        """Point each agent's `best` where it belongs: a process killed after a checkpoint may not have come to it."""
        for agent, timestep in timesteps.items():
            if self.store is not None and (self.store.directory / str(timestep)).is_dir():
                self.mark_best(timestep, [agent])

    def check_saved(self) -> None:
        """Raise StorageError if the final checkpoint could not be written, or is not there any more."""
        self.check_there()
        if self.unsaved is not None:
            raise storage_error(f"run.dir={self.directory}: the final checkpoint can't be written", self.unsaved)

    def check_there(self) -> None:
        """Raise StorageError if the directory is lost."""
        why = self.lost()
        if why:
            raise StorageError(f"run.dir={self.directory}: {why}; what was learned since its last checkpoint is not saved")

    def close(self) -> None:
        """Write out what is waiting; safe to call twice."""
        if self.screen is not None:
            self.screen.close()
        for output in (self._metrics, self._log):
            if output is not None:
                with suppress(OSError):
                    output.close()
        self._metrics = self._log = None

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write `summary.json`."""
        if self.directory is not None:
            self.check_there()
            try:
                replace_text(self.directory / "summary.json", json.dumps(conceal_tree(summary), indent=1) + "\n")
            except OSError as error:
                raise storage_error(f"run.dir={self.directory}: summary.json can't be written", error) from None

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Turn INT, TERM, HUP, USR1, USR2 into `stop_signal`, seen after the current timestep; INT or TERM again quits."""
        with signals.waiting(self):
            yield

    def answer_signal(self) -> None:
        """Let the signal that stopped the run act now that all is saved: as the handler that stood there before would have.

        TERM, HUP, USR1 and USR2 raise SystemExit, INT raises KeyboardInterrupt, somebody's own handler is called, once. Within
        `signals()` nothing happens: who opened it first answers.
        """
        signals.answer()

    def pass_signal_on(self) -> None:
        """Call the handler that was there before the run's own, if it was set by somebody (submitit requeues this way)."""
        signals.call_handler()

    @property
    def awaits_signals(self) -> bool:
        """Whether a signal would become `stop_signal`."""
        return signals.waits(self)

    def _warn_once(self, about: str, line: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            self.say(f"warning: {line}")

    _warned: set[str] = field(default_factory=set)


def make_run_directory(wanted: str | None, env: str, agents: list[str], seed: int, *, root: str = "outputs") -> Path:
    """Create and return a run's directory: `wanted`, or a new one under `root`.

    Raises ConfigError if `wanted` holds a run already, StorageError if it can't be made.
    """
    try:
        if wanted is not None:
            path = Path(wanted)
            if path.exists() and not path.is_dir():
                raise ConfigError("run.dir", wanted, "is a file; name a directory")
            if holds_run(path):
                raise ConfigError(
                    "run.dir", wanted, "holds a run already; add resume=auto to go on with it, or name another directory"
                )
            path.mkdir(parents=True, exist_ok=True)
            return path
        names = "+".join(as_name(agent) for agent in agents)
        if len(names) > 100:  # a file name has 255 characters at most
            names = f"{as_name(agents[0])}+{len(agents) - 1}_more"
        parent = Path(root) / as_name(conceal(env)) / names
        parent.mkdir(parents=True, exist_ok=True)
        stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_s{seed}"
        for attempt in range(1000):
            path = parent / (stem if attempt == 0 else f"{stem}_{attempt}")
            with suppress(FileExistsError):
                path.mkdir()
                return path
        raise StorageError(f"run.dir: {parent / stem} and a thousand names like it are taken")
    except OSError as error:
        raise storage_error(f"run.dir={wanted or root}", error) from None


def check_writable(wanted: str, key: str = "run.dir") -> None:
    """Raise StorageError if nothing can be written to `wanted`, which need not exist yet; creates nothing."""
    path = Path(wanted).absolute()
    while not os.path.lexists(path):
        path = path.parent
    if not path.is_dir() or not os.access(path, os.W_OK | os.X_OK):
        why = "permission denied" if path.is_dir() else "is not a directory"
        raise StorageError(f"{key}={wanted}: {path}: {why}; name another directory")


def holds_run(path: Path) -> bool:
    """Tell whether a run was started in `path`."""
    return os.path.exists(path / "config.yaml") or os.path.exists(path / "checkpoints")  # Path.exists raises without permission


def link_latest(directory: Path) -> None:
    """Point `outputs/latest` at a run under `outputs/`, by a relative link."""
    outputs = Path("outputs").resolve()
    target = directory.resolve()
    if not target.is_relative_to(outputs):
        return
    temporary = outputs / f".latest.{os.getpid()}"
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target.relative_to(outputs))
        os.replace(temporary, outputs / "latest")
    except OSError:  # a file system without links, or something else of that name, has no `latest`
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def follow_links(path: Path) -> Path:
    """Return where `outputs/latest` and the like point: another run may move the link while this one writes."""
    return Path(os.path.relpath(path.resolve())) if path.is_symlink() else path


def check_free(directory: Path) -> None:
    """Raise StorageError naming the pid and host that hold a run's directory, if one does."""
    try:
        descriptor = open_regular(directory / LOCK)
    except (FileNotFoundError, PermissionError):
        return
    except OSError as error:
        raise storage_error(f"run.dir={directory}: {LOCK}", error) from None
    with open(descriptor, encoding="utf-8", errors="replace") as file:
        _lock(file, directory, fcntl.LOCK_SH)


def is_in_use(directory: Path) -> bool:
    """Tell whether a process holds a run's directory; takes next to no time."""
    try:
        if not os.stat(directory / LOCK, follow_symlinks=False).st_size:  # whoever holds it has written there who it is
            return False
        with open(open_regular(directory / LOCK), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in HELD
    return False


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a run's directory for this process; the kernel frees it when the process dies, however it dies.

    Raises StorageError naming the pid and host that hold it.
    """
    try:
        file = open(open_regular(directory / LOCK, os.O_RDWR | os.O_CREAT), "r+", encoding="utf-8", errors="replace")  # noqa: SIM115
    except OSError as error:
        raise storage_error(f"run.dir={directory}: {LOCK}", error) from None
    try:
        _lock(file, directory, fcntl.LOCK_EX)
    except StorageError:
        file.close()
        raise
    try:
        file.seek(0)
        file.truncate()
        file.write(f"pid {os.getpid()} on host {socket.gethostname()}")
        file.flush()
        yield
    finally:
        with suppress(OSError):
            file.seek(0)
            file.truncate()
        file.close()


def _lock(file: IO[str], directory: Path, kind: int) -> None:
    for _ in range(2):
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in HELD:
                raise storage_error(f"run.dir={directory}", error) from None
            time.sleep(0.05)  # somebody only looks whether it is free, or the holder is about to write who it is
    file.seek(0)
    holder = file.read(200).strip() or "another process"
    raise StorageError(f"run.dir={directory}: in use by {holder}; wait for it or name another directory")


def as_name(text: str) -> str:
    """Return a text as part of a file's name: letters, digits and -_. stay."""
    return "".join(character if character.isalnum() or character in "-_." else "_" for character in text)
