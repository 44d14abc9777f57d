"""Errors that end a command, each with its exit status.

0 done, 1 the run failed, 2 the command is wrong, 3 a checkpoint is there and unusable, 4 storage;
130, 143, 138, 140: stopped by INT, TERM or HUP, USR1, USR2 after a checkpoint was written.
"""

import difflib
import pickle
import re
from collections.abc import Iterable, Sequence
from typing import Any

from rltrain.confidential import conceal

SECRET = re.compile(r"token|secret|password|passwd|api_?key|credential", re.IGNORECASE)
PASSWORD = re.compile(r"(\b[\w+.-]+://[^\s/:@]*:)(?!\$\{)[^\s/@]+@")  # ${...} says nothing


class RltrainError(Exception):
    """An error whose message is meant for the person at the terminal."""

    exit_status = 1
    shows_cause = True  # of a failed run, with its traceback


class ConfigError(RltrainError, ValueError):
    """The command or a setting is wrong: `key=value: what is wrong; what would be right`."""

    exit_status = 2

    def __init__(self, key: str, value: Any, message: str) -> None:
        self.key, self.value, self.message = key, value, message
        super().__init__(f"{key}={shown(hidden(value) if SECRET.search(key) else masked(value))}: {message}")

    def __reduce__(self) -> tuple:
        return type(self), (self.key, self.value, self.message)


class CommandError(ConfigError):
    """A command line is wrong in words that are no `key=value`: begins with the words that were typed."""

    def __init__(self, words: Sequence[str], message: str) -> None:
        self.words, self.key, self.value, self.message = list(words), " ".join(words).strip(), None, message
        RltrainError.__init__(self, f"{shown(' '.join(map(masked_argument, words)))}: {message}")

    def __reduce__(self) -> tuple:
        return type(self), (self.words, self.message)


class CheckpointError(RltrainError):
    """A checkpoint is there and cannot be used."""

    exit_status = 3


class StorageError(RltrainError):
    """The disk is full, a permission is missing, or the run directory is in use."""

    exit_status = 4


class RunError(RltrainError):
    """The run failed: environment, agent, or a number that is not finite."""


class EnvironmentFailure(RunError):
    """A copy of the environment raised, or answered with something unusable."""


class NonFiniteError(RunError):
    """NaN or infinity where a finite number is needed."""


class Quit(KeyboardInterrupt):
    """The person at the terminal wants out at once: raised by rltrain's own handlers of INT, never by anybody's code."""


def portable(error: BaseException) -> RltrainError | None:
    """Return an error that is one of ours and can travel to another process, or None."""
    try:
        return pickle.loads(pickle.dumps(error)) if isinstance(error, RltrainError) else None
    except Exception:  # somebody's own kind of it, made in a way of its own
        return None


def said(error: BaseException) -> str:
    """Return an error's kind and what it says: `SystemExit: 0`."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def closest(word: str, options: Iterable[str], *, cutoff: float = 0.5) -> str | None:
    """Return the option that a word most likely means, or None: one that it begins or ends with comes before one like it."""
    options = sorted(options)
    within = [option for option in options if len(word) > 1 and (option.startswith(f"{word}-") or option.endswith(f".{word}"))]
    return within[-1] if within else next(iter(difflib.get_close_matches(str(word), options, n=1, cutoff=cutoff)), None)


def nearest(word: str, options: Iterable[str], *, limit: int = 12) -> str:
    """Say which options there are, the nearest match first: `did you mean 'x'? options: x, y, z`."""
    options = sorted(options)
    matches = difflib.get_close_matches(str(word), options, n=1, cutoff=0.5)
    listed = matches + [option for option in options if option not in matches]
    hint = f"did you mean {matches[0]!r}? " if matches else ""
    more = f", ... ({len(listed)} in all)" if len(listed) > limit else ""
    return f"{hint}options: {', '.join(listed[:limit])}{more}"


def masked(tree: Any) -> Any:
    """Return plain data with *** where a key sounds like a secret, for confidential text and for the password in an address."""
    if isinstance(tree, dict):
        return {key: hidden(value) if SECRET.search(str(key)) else masked(value) for key, value in tree.items()}
    if isinstance(tree, str):
        return PASSWORD.sub(r"\1***@", conceal(tree))
    return [masked(item) for item in tree] if isinstance(tree, list) else tree


def masked_argument(argument: str) -> str:
    """Return a word of a command line with *** for a secret."""
    key, equals, value = argument.partition("=")
    return f"{key}{equals}{masked({key: value})[key]}" if equals else masked(argument)


def hidden(value: Any) -> Any:
    """Return *** for a secret; null, flags and references such as ${oc.env:TOKEN} say nothing."""
    is_reference = isinstance(value, str) and re.fullmatch(r"\$\{[^{}]*\}", value)
    return value if value is None or isinstance(value, bool) or is_reference else "***"


def shown(value: Any) -> str:
    """Return a value as a person would write it, at most 80 characters of it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = " ".join(conceal(str(value)).split())  # one line
    return text if len(text) <= 80 else text[:77] + "..."
