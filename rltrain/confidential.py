"""Text that a resolver gave (`password=${oc.env:PASSWORD}`): known here, and masked where text leaves a process.

What goes to the screen passes `Veil`, put over the streams when the first such text is known, what is logged `VeiledRecords`;
what goes into a file passes `conceal` or `conceal_tree`. Processes that are started are told with `known` and `learn`.
"""

import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlsplit

MASK = "***"
SHORTEST = 6  # characters: masking anything shorter would leave no text readable
LEFT_OUT = "__left_out__"  # in a snapshot: the names of attributes that hold such text

ESCAPES: tuple[Callable[[str], str], ...] = (
    lambda text: repr(text)[1:-1],
    lambda text: repr(f"\"'{text}")[4:-1],  # beside both kinds of quotes
    lambda text: ascii(text)[1:-1],
    lambda text: json.dumps(text)[1:-1],
)

_known: tuple[str, ...] = ()  # the longest first, so that none is masked in part


def remember(text: str) -> None:
    """Mask a text from now on, also as it stands in a repr, in JSON and in an address, and each of its lines."""
    forms = {text, *text.splitlines()}
    with suppress(ValueError):
        forms.add(urlsplit(text).password or "")
    forms |= {quote(form, safe="") for form in forms}
    for _ in range(2):  # errors that travelled are quoted twice
        forms |= {escape(form) for form in forms for escape in ESCAPES}
    learn(form.strip() for form in forms)


def learn(texts: Iterable[str]) -> None:
    """Mask these from now on: what `known` returned in another process."""
    global _known
    found = {*_known, *(text for text in texts if len(text) >= SHORTEST)}
    _known = tuple(sorted(found, key=lambda text: (-len(text), text)))
    if _known:
        sys.stdout, sys.stderr = (
            stream if stream is None or isinstance(stream, Veil) else Veil(stream) for stream in (sys.stdout, sys.stderr)
        )
        if not isinstance(logging.getLogRecordFactory(), VeiledRecords):  # handlers may have streams and files of their own
            logging.setLogRecordFactory(VeiledRecords(logging.getLogRecordFactory()))


def known() -> tuple[str, ...]:
    """Return what is masked."""
    return _known


def forget() -> None:
    """Begin anew, as for another command in the same process."""
    global _known
    _known = ()
    factory = logging.getLogRecordFactory()
    if isinstance(factory, VeiledRecords):
        logging.setLogRecordFactory(factory.covered)
    sys.stdout, sys.stderr = (stream.covered if isinstance(stream, Veil) else stream for stream in (sys.stdout, sys.stderr))


def conceal(text: str) -> str:
    """Return a text with what is known masked."""
    for secret in _known:
        if secret in text:
            text = text.replace(secret, MASK)
    return text


def conceal_tree(tree: Any) -> Any:
    """Return plain data with what is known masked; keys are names that somebody looks for."""
    if not _known:
        return tree
    if isinstance(tree, str):
        return conceal(tree)
    if isinstance(tree, Mapping):
        return {key: conceal_tree(value) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(conceal_tree(item) for item in tree)
    return tree


def is_held(value: Any, *, keys: bool = True) -> bool:
    """Tell whether plain data holds what is known, at any depth; without `keys`, where `conceal_tree` would mask it."""
    if not _known or value is None or isinstance(value, bool | int | float):
        return False
    if isinstance(value, str | bytes):
        text = value if isinstance(value, str) else value.decode("utf-8", "replace")
        return any(secret in text for secret in _known)
    if isinstance(value, Mapping):
        return any((keys and is_held(key)) or is_held(item, keys=keys) for key, item in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return any(is_held(item, keys=keys) for item in value)
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    return kind in ("U", "S", "O") and any(is_held(item) for item in value.ravel().tolist())


def left_out(tree: Any) -> list[str]:
    """Return the names of the attributes that a snapshot left out."""
    if isinstance(tree, Mapping):
        found = [name for key, value in tree.items() if key != LEFT_OUT for name in left_out(value)]
        return sorted({*found, *tree.get(LEFT_OUT, ())})
    return sorted({name for item in tree for name in left_out(item)}) if isinstance(tree, list | tuple) else []


class Veil:
    """A text stream that masks what is known; everything else is the covered one's."""

    def __init__(self, covered: Any) -> None:
        self.covered = covered

    def write(self, text: str) -> int:
        """Write a text, masked."""
        self.covered.write(conceal(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write lines, masked."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        """Return what the covered stream has."""
        return getattr(self.covered, name)


class VeiledRecords:
    """Makes records for `logging` with what is known masked."""

    def __init__(self, covered: Callable[..., logging.LogRecord]) -> None:
        self.covered = covered

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        """Return a record whose text is made already."""
        record = self.covered(*args, **kwargs)
        with suppress(Exception):  # of arguments that don't fit, which the handler tells
            record.msg, record.args = conceal(record.getMessage()), None
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = conceal(logging.Formatter().formatException(record.exc_info))
        return record
