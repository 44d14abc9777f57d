"""The command line: which command, its flags, and how errors are told. Heavy imports wait until they are needed."""

import os
import sys
from collections.abc import Sequence

from rltrain import __version__, confidential, installing, modules
from rltrain.errors import CommandError, ConfigError, RltrainError
from rltrain.screen import open_missing_streams, silence, write_error, write_out
from rltrain.signals import comes_from_signal, interrupts_told_apart

HELP = ("--help", "-h")


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
        return _tell(_as_typed(error, arguments), debug=debug)
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
    from rltrain.commands import verbs

    words = [argument for argument in arguments if argument not in HELP]
    if len(words) < len(arguments) or arguments[:1] in ([], ["help"]):
        return _help(words[1:] if words[:1] == ["help"] else words)
    if "--version" in arguments:
        write_out(f"rltrain {__version__}\n")
        return 0
    verb, rest = verbs.find_verb(arguments)
    _check_working_directory()
    return verb.run(rest)


def _help(words: list[str]) -> int:
    """Print the help of a command, or the overview; `rltrain train --help agents.sac` explains settings."""
    from rltrain.commands import verbs

    keys = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
    if words[:1] == ["train"] and keys:
        return verbs.VERBS["config"].run([word for word in words[1:] if not word.startswith("-")])
    write_out(verbs.help_text(words))
    return 0


def _check_working_directory() -> None:
    try:
        os.getcwd()
    except OSError as error:
        reason = "it was deleted" if isinstance(error, FileNotFoundError) else error.strerror
        raise CommandError(["working directory"], f"there is none ({reason}); change to one that exists") from None


def _missing(error: ModuleNotFoundError) -> RltrainError:
    """Say which extra brings a missing package."""
    package = (error.name or "").split(".")[0]
    extras = {"torch": "torch", "jax": "jax", "flax": "jax", "optax": "jax", "gymnasium": "classic", "safetensors": "torch"}
    remedy = installing.command_for(extras[package]) if package in extras else f"pip install {package}"
    return CommandError([package], f"is not installed; {remedy}")


def _as_typed(error: RltrainError, arguments: Sequence[str]) -> RltrainError:
    """Return an error that begins with what was typed, where its value was: a lone word, as in `rltrain eval RUN`."""
    if (
        type(error) is not ConfigError
        or str(error.value) not in arguments
        or any(a.startswith(f"{error.key}=") for a in arguments)
    ):
        return error
    told = CommandError([str(error.value)], error.message)
    told.__cause__ = error.__cause__
    return told.with_traceback(error.__traceback__)


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
