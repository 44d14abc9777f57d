"""The command line for tests: in this process (quick), and as a process of its own (exit status, signals, closed pipes)."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SMALL = (
    "seed=1", "env.num_envs=4", "agents.ppo.rollout_length=32", "agents.ppo.epochs=2", "agents.ppo.minibatches=2",
    "agents.ppo.network.policy_sizes=[8]", "agents.ppo.network.value_sizes=[8]",
    "tracking.interval=20", "tracking.tensorboard=false",
)  # fmt: skip
RLTRAIN = (sys.executable, "-m", "rltrain")


@dataclass
class Result:
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both streams."""
        return self.out + self.err


def call(*arguments: str) -> Result:
    """Run a command in this process."""
    from rltrain.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(list(arguments))
    text = out.getvalue() + err.getvalue()
    assert "its whole process shares" not in text or "icing" in text, text  # rltrain itself never draws from these
    return Result(status, out.getvalue(), err.getvalue())


def train(*overrides: str, status: int = 0) -> Result:
    """Train a small agent on CartPole in this process; `overrides` come last and win."""
    result = call("train", *merged(SMALL, overrides))
    assert result.status == status, result.err
    return result


def merged(base: tuple[str, ...], overrides: tuple[str, ...]) -> list[str]:
    """Return `base` without the keys that `overrides` name, then `overrides`."""
    keys = {override.partition("=")[0] for override in overrides}
    return [override for override in base if override.partition("=")[0] not in keys] + list(overrides)


def rows(run: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics without what depends on the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{tag: value for tag, value in row.items() if tag != "wall_time" and not tag.startswith("time/")} for row in lines]


def summary(run: Path) -> dict[str, Any]:
    """Return a run's summary."""
    return json.loads((run / "summary.json").read_text())


def assert_one_error(result: Result, status: int, *words: str) -> None:
    """Check the form of an error: its status, at most three lines, no traceback, `words` in it."""
    lines = result.err.strip().splitlines()
    assert (result.status, len(lines) <= 3, "Traceback" in result.err) == (status, True, False), result.err
    assert lines and lines[0].startswith("error: "), result.err
    for word in words:
        assert word in result.err, f"{word!r} is not in {result.err!r}"


# -- processes -----------------------------------------------------------------------------------------------------------

# Imports once what takes seconds, computes nothing, then forks a fresh process for every command.
ZYGOTE = """
import gc, json, os, signal, sys
import torch, gymnasium, rich.console, rich.progress, rich.table, tensorboard.summary.writer.event_file_writer
import rltrain.commands.train, rltrain.commands.evaluate, rltrain.envs.gymnasium, rltrain.agents.ppo.torch, rltrain.trainers
from gymnasium.envs.classic_control import cartpole, pendulum
import rltrain.config
from rltrain.cli import main

rltrain.config.compose([])
gc.freeze()

def serve():
    for line in sys.stdin:
        request = json.loads(line)
        if "pid" in request:
            pid, status = os.waitpid(request["pid"], os.WNOHANG)
            print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
            continue
        pid = os.fork()
        if not pid:
            return request
        print(pid, flush=True)

request = serve()
if request is None:
    os._exit(0)
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where pytest runs in the background of a script
os.chdir(request["cwd"])
os.environ.update(request["environ"])
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
for name, descriptor in (("out", 1), ("err", 2)):
    if request[name] == "closed":
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, descriptor)
    else:
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
exec(request["before"])
sys.path.remove("")
sys.exit(main(request["arguments"]))
"""


@dataclass
class Process:
    """A running command."""

    zygote: "Zygote"
    pid: int
    out: Path
    err: Path
    status: int | None = None  # as subprocess gives it: negative if a signal killed it

    def poll(self) -> int | None:
        """Return its status, or None while it runs."""
        if self.status is None:
            self.status = self.zygote.ask({"pid": self.pid})
        return self.status

    def wait(self, seconds: float = 60) -> Result:
        """Wait for its end."""
        wait_until(lambda: self.poll() is not None, seconds, lambda: f"still running after {seconds} s\n{self.err.read_text()}")
        assert self.status is not None
        return Result(self.status, *(path.read_text() if path.exists() else "" for path in (self.out, self.err)))

    def send(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)


@dataclass
class Zygote:
    """Starts commands as processes of their own, without importing torch each time."""

    outputs: Path
    _server: Any = None
    _running: list[Process] = field(default_factory=list)

    def start(
        self, *arguments: str, cwd: Path | None = None, out: str = "", err: str = "", before: str = "", **environ: str
    ) -> Process:
        """Start `rltrain *arguments`; `before` is code run first, `out="closed"` gives it a pipe that nobody reads."""
        if self._server is None:
            path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
            self._server = subprocess.Popen(
                [sys.executable, "-c", ZYGOTE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        files = [self.outputs / f"{len(self._running)}.{name}" for name in ("out", "err")]
        pid = self.ask({
            "arguments": arguments, "cwd": str(cwd or Path.cwd()), "environ": environ, "before": before,
            "out": out or str(files[0]), "err": err or str(files[1]),
        })  # fmt: skip
        self._running.append(Process(self, pid, *files))
        return self._running[-1]

    def run(self, *arguments: str, **how: Any) -> Result:
        """Start a command and wait for its end."""
        return self.start(*arguments, **how).wait()

    def ask(self, request: dict[str, Any]) -> Any:
        """Send a request and return the answer."""
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def close(self) -> None:
        """End what still runs."""
        if self._server is None:
            return
        for process in self._running:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send(signal.SIGKILL)
        self._server.stdin.close()
        self._server.wait(10)
        self._server.stdout.close()


def wait_until(condition: Any, seconds: float, message: Any = lambda: "it did not happen") -> None:
    """Wait until `condition()` holds; fail with `message()` after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, message()
        time.sleep(0.02)
