"""Pictures of episodes as files: mp4 by the ffmpeg that imageio-ffmpeg brings, gif by Pillow; and drawing without a display.

A file appears whole, under its name, when its last picture was added. Nothing heavy is imported before the first.
"""

import ctypes.util
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from rltrain import installing
from rltrain.errors import ConfigError

FORMATS = ("mp4", "gif")
DEFAULT_FPS, MOST_FPS = 30.0, 1000.0  # where an environment doesn't say
GIF_FPS, GIF_FRAMES, GIF_PIXELS = 25.0, 1000, 320  # at most: browsers show no more, Pillow holds all, and the longer side
PACKAGES = {"mp4": "imageio_ffmpeg", "gif": "PIL"}


class VideoError(Exception):
    """An episode can't be drawn or its video can't be written, which is no reason to end what it is a video of."""


def video_format(setting: str) -> str | None:
    """Return the format that a setting of true, false, mp4 or gif asks for."""
    return {"false": None, "true": "mp4"}.get(setting, setting)


def frames_per_second(told: Any) -> float:
    """Return what an environment says of it where that makes sense, else the default."""
    makes_sense = isinstance(told, int | float) and 0 < told <= MOST_FPS
    return float(told) if makes_sense else DEFAULT_FPS


def check_installed(form: str, key: str) -> None:
    """Raise ConfigError if what writes videos of a form isn't there."""
    package = PACKAGES[form]
    if find_spec(package) is None:
        raise ConfigError(key, form, f"its package {package} is not installed; {installing.command_for('video')}")


def as_frame(picture: Any) -> np.ndarray:
    """Return a picture as (H, W, 3) uint8; raises VideoError if it is none."""
    frame = np.asarray(picture) if picture is not None else np.zeros(0)
    if frame.dtype != np.uint8 or frame.ndim not in (2, 3) or not frame.size:
        what = "nothing" if picture is None else f"{frame.dtype} {frame.shape}"
        raise VideoError(f"its render() returns {what}, not a picture: an array (H, W, 3) of uint8")
    if frame.ndim == 2:
        frame = np.repeat(frame[:, :, None], 3, axis=2)
    if frame.shape[2] not in (3, 4):
        raise VideoError(f"its render() returns {frame.shape}, not a picture: an array (H, W, 3) of uint8")
    return np.ascontiguousarray(frame[:, :, :3])


class Video:
    """A video that is being written: pictures go in one by one, and no more of them is held than the form needs."""

    def __init__(self, path: Path, fps: float, *, length: int | None = None) -> None:
        """`path` ends in .mp4 or .gif. `length` says how many pictures there will be, where that is known."""
        self.path, self.fps = path, fps
        self.shape: tuple[int, ...] | None = None
        self._writer: Any = None
        self._length = length

    def add(self, picture: Any) -> None:
        """Add a picture; raises VideoError if it is none, is of another size than the first, or can't be written."""
        frame = as_frame(picture)
        if self.shape is None:
            self.shape = frame.shape
            self._writer = (_Gif if self.path.suffix == ".gif" else _Mp4)(self.path, self.fps, frame.shape, self._length)
        if frame.shape != self.shape:
            raise VideoError(f"its pictures change in size, from {self.shape} to {frame.shape}")
        self._writer.add(frame)

    def close(self, path: Path) -> None:
        """Write the file and give it its name; raises VideoError if that can't be."""
        if self._writer is None:
            raise VideoError("there is no picture of it")
        try:
            self._writer.close()
            os.replace(self.path, path)
        except OSError as error:
            raise VideoError(f"{path}: can't be written: {error.strerror or error}") from None

    def discard(self) -> None:
        """Leave nothing behind."""
        if self._writer is not None:
            self._writer.end()
        self.path.unlink(missing_ok=True)


class _Mp4:
    """Pictures through a pipe into a process of ffmpeg's, which no signal of the terminal reaches."""

    def __init__(self, path: Path, fps: float, shape: tuple[int, ...], _: int | None) -> None:
        from imageio_ffmpeg import get_ffmpeg_exe

        height, width, _depth = shape
        command = [get_ffmpeg_exe(), "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
        command += ["-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "-", "-an", "-c:v", "libx264", "-threads", "2"]
        command += ["-vf", "pad=max(32\\,ceil(iw/2)*2):max(32\\,ceil(ih/2)*2)", "-pix_fmt", "yuv420p"]  # what players take
        command += ["-movflags", "+faststart", "-fflags", "+bitexact", "-f", "mp4", str(path)]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (a pipe that nobody reads would fill)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._errors, process_group=0
        )

    def add(self, frame: np.ndarray) -> None:
        try:
            self._process.stdin.write(frame.data)  # type: ignore[union-attr]
        except OSError:
            raise VideoError(self._why()) from None

    def close(self) -> None:
        with suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        if self._process.wait():
            raise VideoError(self._why())
        self._errors.close()

    def end(self) -> None:
        self._process.kill()
        with suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()
        self._errors.close()

    def _why(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return f"ffmpeg can't write it ({lines[-1] if lines else f'status {self._process.returncode}'})"


class _Gif:
    """Pictures in a palette of 256 colours each, no larger and no more than a page can show; time runs as in the episode."""

    def __init__(self, path: Path, fps: float, shape: tuple[int, ...], length: int | None) -> None:
        self._path = path
        self._every = max(1, math.ceil(fps / GIF_FPS), math.ceil((length or 0) / GIF_FRAMES))  # one of so many is shown
        self._milliseconds = 1000 * self._every / fps
        self._shrink = max(1.0, max(shape[:2]) / GIF_PIXELS)
        self._count = 0
        self._last: np.ndarray | None = None
        self._images: list[Any] = []

    def add(self, frame: np.ndarray) -> None:
        if self._count % self._every == 0 and len(self._images) < 2 * GIF_FRAMES:
            self._images.append(self._as_image(frame))
            self._last = None
        else:
            self._last = frame
        self._count += 1

    def _as_image(self, frame: np.ndarray) -> Any:
        from PIL import Image

        image = Image.fromarray(frame)
        if self._shrink > 1:
            size = (round(image.width / self._shrink), round(image.height / self._shrink))
            image = image.resize(size, Image.Resampling.BILINEAR)
        return image.quantize(256, dither=Image.Dither.NONE)

    def close(self) -> None:
        if self._last is not None:
            self._images.append(self._as_image(self._last))  # how it ends is seen in any case
        first, *rest = self._images
        durations = [round(self._milliseconds / 10) * 10 or 10] * len(self._images)
        durations[-1] = 1000  # before it begins again
        first.save(self._path, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0, optimize=False)

    def end(self) -> None:
        self._images = []


# -- without a display ---------------------------------------------------------------------------------------------------


@contextmanager
def without_display(*, mujoco: bool) -> Iterator[str]:
    """Have simulators draw into memory: pygame by its dummy, MuJoCo by EGL or OSMesa, unless environment variables say otherwise.

    Yields why MuJoCo can't, where one of its environments is to be drawn, or nothing.
    """
    wanted = {"SDL_VIDEODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
    why = ""
    if sys.platform.startswith("linux"):
        drawer, why = _find_drawer() if mujoco and "MUJOCO_GL" not in os.environ else ("egl", "")
        wanted["MUJOCO_GL"] = drawer
    given = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(given)
    try:
        yield why
    finally:
        for name in given:
            os.environ.pop(name, None)


def _find_drawer() -> tuple[str, str]:
    """Return what MuJoCo can draw by here, egl or osmesa, tried in a process of its own; and why not, if it can't."""
    for name, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
        if ctypes.util.find_library(library) and _draws(name):
            return name, ""
    remedy = "apt install libegl1 libgl1-mesa-dri, or libosmesa6; MUJOCO_GL names one of one's own"
    return "egl", f"MuJoCo can't draw without a display here, neither by EGL nor by OSMesa; {remedy}"


def _draws(name: str) -> bool:
    if find_spec("mujoco") is None:
        return False
    code = f"from mujoco.{name} import GLContext as C\nc = C(16, 16)\nc.make_current()\nimport mujoco\n"
    code += "mujoco.MjrContext(mujoco.MjModel.from_xml_string('<mujoco/>'), mujoco.mjtFontScale.mjFONTSCALE_100)"
    environ = {**os.environ, "MUJOCO_GL": name, "PYOPENGL_PLATFORM": name}
    try:
        return subprocess.run([sys.executable, "-P", "-c", code], env=environ, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
