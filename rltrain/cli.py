"""The command line: which command, its flags, and how errors are told. Heavy imports wait until they are needed."""

import os
import sys
from collections.abc import Sequence

from rltrain import __version__, confidential, modules
from rltrain.errors import ConfigError, RltrainError
from rltrain.screen import open_missing_streams, silence, write_error, write_out
from rltrain.signals import comes_from_signal, interrupts_told_apart

USAGE = """\
rltrain: train and evaluate reinforcement learning agents

  rltrain train [overrides]            train; PPO on CartPole-v1 unless told otherwise
  rltrain train -m [overrides]         a sweep: seed=1,2,3 agents.ppo.learning_rate=1e-3,3e-4
  rltrain train resume=RUN             go on where a run stopped (run.dir=RUN resume=auto: or start it)
  rltrain eval CHECKPOINT [options]    episodes=100 seed=N json=true render=human random=true fail_under=475
  rltrain checkpoint verify|show PATH  check or describe a checkpoint
  rltrain checkpoint export PATH FILE  an agent's replay memory as FILE.npz or FILE.parquet; agent=NAME of several
  rltrain list WHAT                    trainers, backends, agents, envs or experiments

overrides, written key=value ('quoted' where they hold brackets):
  env=CartPole-v1  env.num_envs=8  env=my_package:Own-v0  env.kwargs.gravity=3
  agents=ppo  agents.ppo.learning_rate=3e-4  experiment=ppo_acrobot
  total_env_steps=100000 (or trainer.timesteps=12500)  seed=1  run.dir=DIR  dry_run=true
  evaluation.interval=2000  checkpoints.interval=2000  backend.device=cpu  plugins=[my_package]
  trust=true           also import from the current directory what a saved configuration names

flags:
  --cfg job|resolved   print the configuration and stop
  -m, --multirun       a sweep
  --debug              tracebacks for every error
  --version, --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    open_missing_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    confidential.forget()
    with interrupts_told_apart():
        return _run(arguments, program=argv is None, debug=debug)


def _run(arguments: list[str], *, program: bool, debug: bool) -> int:
    """Run one command, tell what went wrong, and return the exit status."""
    try:
        status = _dispatch(modules.begin(arguments, program=program))
        try:
            sys.stdout.flush()
        except OSError:  # a pipe that nobody reads any more, a full disk: what matters was written in its place
            silence(sys.stdout)
        return status
    except RltrainError as error:
        return _tell(error, debug=debug)
    except BrokenPipeError:  # whoever read the output has left
        silence(sys.stdout)
        return 0
    except ModuleNotFoundError as error:
        return _tell(_missing(error), debug=debug)
    except MemoryError:
        write_error("error: out of memory")
        return 1
    except BaseException as error:  # an agent's, or our own
        if comes_from_signal(error):
            if not isinstance(error, KeyboardInterrupt):
                raise
            write_error("interrupted")
            return 130
        import traceback

        first = "".join(f"{note}: " for note in getattr(error, "__notes__", [])[:1]) + type(error).__name__
        first += f": {(str(error).splitlines() or [''])[0]}"
        write_error(f"error: {first}\n" + "".join(traceback.format_exception(error)).rstrip())
        return 1


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h", "help") or "--help" in arguments or "-h" in arguments:
        write_out(USAGE)
        return 0
    if "--version" in arguments:
        write_out(f"rltrain {__version__}\n")
        return 0
    _check_working_directory()
    command, *rest = arguments
    if command == "train":
        return _train(rest)
    _refuse_flags(rest)
    if command == "eval":
        from rltrain.commands.evaluate import evaluate

        return evaluate(rest)
    if command in ("list", "checkpoint"):
        from rltrain.commands import show

        return show.list_choices(rest) if command == "list" else show.checkpoint(rest)
    from rltrain.errors import ConfigError, nearest

    raise ConfigError("command", command, f"unknown; {nearest(command, ('train', 'eval', 'list', 'checkpoint'))}")


def _check_working_directory() -> None:
    try:
        os.getcwd()
    except OSError as error:
        reason = "it was deleted" if isinstance(error, FileNotFoundError) else error.strerror
        raise ConfigError("working directory", None, f"there is none ({reason}); change to one that exists") from None


def _train(arguments: list[str]) -> int:
    from rltrain.errors import ConfigError

    shown = None
    if "--cfg" in arguments:
        at = arguments.index("--cfg")
        shown = arguments[at + 1] if at + 1 < len(arguments) else ""
        if shown not in ("job", "resolved"):
            raise ConfigError("--cfg", shown, "write --cfg job or --cfg resolved")
        del arguments[at : at + 2]
    multirun = any(flag in arguments for flag in ("-m", "--multirun"))
    overrides = [argument for argument in arguments if argument not in ("-m", "--multirun")]
    _refuse_flags(overrides)
    if multirun and shown is not None:
        raise ConfigError("--cfg", shown, "shows one run; leave -m out")
    if multirun:
        from rltrain.commands.sweep import sweep

        return sweep(overrides)
    from rltrain.commands import train

    if shown is None:
        return train.train(overrides)
    train.show_config(overrides, resolved=shown == "resolved")
    return 0


def _refuse_flags(arguments: Sequence[str]) -> None:
    from rltrain.errors import ConfigError

    for argument in arguments:
        if argument.startswith("-"):
            raise ConfigError("flag", argument, "unknown; see rltrain --help")


def _missing(error: ModuleNotFoundError) -> RltrainError:
    """Say which extra brings a missing package."""
    from rltrain.errors import ConfigError

    package = (error.name or "").split(".")[0]
    extras = {"torch": "torch", "jax": "jax", "flax": "jax", "optax": "jax", "gymnasium": "classic", "safetensors": "torch"}
    remedy = f"pip install 'rltrain[{extras[package]}]'" if package in extras else f"pip install {package}"
    return ConfigError("package", package, f"is not installed; {remedy}")


def _tell(error: RltrainError, *, debug: bool) -> int:
    """Write an error: at most three lines; the traceback for a failed run, or when asked."""
    text = str(error)
    lines = text.splitlines() or [type(error).__name__]
    head = lines if error.exit_status == 1 else lines[:3]
    write_error("error: " + "\n".join(head))
    if debug or error.exit_status == 1:
        import traceback

        cause = error.__cause__
        if debug:
            write_error("".join(traceback.format_exception(error)).rstrip())
        elif cause is not None and len(lines) == 1 and error.shows_cause:
            write_error("".join(traceback.format_exception(cause)).rstrip())
    return error.exit_status
