"""Saved configurations as plain data, of whatever origin: what would grow beyond reason is refused before it grows."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rltrain.errors import CheckpointError

MAX_VALUES, MAX_DEPTH = 30_000, 64
MAX_REFERENCES, MAX_NESTED = 1000, 8  # the latter where one is put together by others
MAX_NUMBER = 1000  # characters of a value without quotes that YAML may take for a number
MAX_RESOLVED = 2**22  # characters, once all references are followed
_REFERENCE = re.compile(r"\$\{(\.*)([\w-]+(?:\.[\w-]+|\[[\w-]+\])*)\}")


def load_plain(text: str, where: str) -> Any:
    """Return what a YAML text holds.

    Raises CheckpointError for what isn't YAML, or has more or deeper values than a configuration, its aliases followed.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        wrong = _find_excess(yaml.parse(text, Loader=loader))
        if wrong is None:
            return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date or number that is none
        raise CheckpointError(f"{where}: not YAML ({str(error).splitlines()[0]})") from None
    raise CheckpointError(f"{where}: {wrong}: not a configuration of rltrain")


def _find_excess(events: Any) -> str | None:
    """Say what is beyond reason in a text that is only read so far, or None."""
    import yaml

    sizes: dict[str, tuple[int, int]] = {}  # by anchor: values, depth
    waiting: list[tuple[str | None, list[int]]] = []  # collections that aren't at their end: anchor, [values, depth]
    for event in events:
        anchor, size = getattr(event, "anchor", None), (1, 1)
        if isinstance(event, yaml.CollectionStartEvent):
            waiting.append((anchor, [1, 1]))
            if len(waiting) > MAX_DEPTH:
                return f"more than {MAX_DEPTH} levels deep"
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, (values, depth) = waiting.pop()
            size = values, depth + 1
        elif isinstance(event, yaml.AliasEvent):
            if anchor not in sizes:
                return f"the alias *{str(anchor)[:40]} refers to what it stands in, or to nothing"
            size, anchor = sizes[anchor], None
        elif not isinstance(event, yaml.ScalarEvent):
            continue
        elif event.implicit[0] and len(event.value) > MAX_NUMBER and re.match(r"[-+\d.]", event.value):
            return f"a number of {len(event.value):,} characters"
        if anchor is not None:
            sizes[anchor] = size
        if waiting:
            total = waiting[-1][1]
            total[:] = total[0] + size[0], max(total[1], size[1])
            if total[0] > MAX_VALUES:
                return f"more than {MAX_VALUES:,} values, its aliases followed"
            if total[1] + len(waiting) > MAX_DEPTH + 1:
                return f"more than {MAX_DEPTH} levels deep, its aliases followed"
    return None


def check_references(plain: Mapping[Any, Any], where: str, *, resolvers: Sequence[str]) -> None:
    """Check the `${...}` in a saved configuration.

    Raises CheckpointError for a resolver call other than `resolvers`, for references that refer to themselves or grow too large.
    """
    texts = list(_texts(plain))
    for name in (name for text in texts for name in _calls(text)):
        if name not in resolvers:
            raise CheckpointError(f"{where}: calls the resolver {name!r}; a saved configuration may only refer to its own keys")
    count = sum(text.count("${") for text in texts)
    nested = count - sum(len(_REFERENCE.findall(text)) + len(_calls(text)) for text in texts)
    if nested > 0 and count > MAX_NESTED:
        raise CheckpointError(
            f"{where}: {count:,} references, not all of the form ${{a.b}}; {MAX_NESTED} at most where one isn't"
        )
    if count > MAX_REFERENCES:
        raise CheckpointError(f"{where}: {count:,} references; {MAX_REFERENCES:,} at most")
    try:
        size = _Resolved(plain).size(())
    except RecursionError:
        raise CheckpointError(f"{where}: a value of it refers to itself, or through too many others") from None
    if size > MAX_RESOLVED:
        raise CheckpointError(f"{where}: more than {MAX_RESOLVED:,} characters, its references followed")


class _Resolved:
    """How large a configuration is at most once its references are followed: counted, without following any."""

    def __init__(self, plain: Any) -> None:
        self._root = _as_folders(plain)
        self._sizes: dict[tuple[str, ...], int | None] = {}  # by path; None: being counted

    def size(self, path: tuple[str, ...]) -> int:
        """Return the characters and values under a path; raises RecursionError if it refers to itself."""
        if path not in self._sizes:
            self._sizes[path] = None
            node = self._root
            for name in path:
                node = node[name]
            if isinstance(node, dict):
                size = 1 + sum(len(name) + self.size((*path, name)) for name in node)
            else:
                size = 1 + len(node) + sum(self.size(target) for target in self._targets(path, node))
            self._sizes[path] = min(size, MAX_RESOLVED + 1)
        known = self._sizes[path]
        if known is None:
            raise RecursionError
        return known

    def _targets(self, path: tuple[str, ...], text: str) -> list[tuple[str, ...]]:
        """Return where the references in a text lead."""
        targets = []
        for dots, names in _REFERENCE.findall(text):
            base = path[: max(0, len(path) - len(dots))] if dots else ()
            target: tuple[str, ...] = ()
            node: Any = self._root
            for name in (*base, *re.findall(r"[\w-]+", names)):
                if not isinstance(node, dict):
                    break  # through another reference: at most as large as all of that
                target, node = (*target, name), node.get(name)
            if node is not None:  # else there is nothing
                targets.append(target)
        return targets


def _as_folders(node: Any) -> Any:
    """Return a tree of dicts by text, and of texts."""
    if isinstance(node, dict | list):
        return {str(name): _as_folders(part) for name, part in (node.items() if isinstance(node, dict) else enumerate(node))}
    return node if isinstance(node, str) else ""


def _texts(node: Any) -> Iterator[str]:
    """Return every text in a tree, keys too."""
    if isinstance(node, dict):
        for pair in node.items():
            for item in pair:
                yield from _texts(item)
    elif isinstance(node, list):
        for item in node:
            yield from _texts(item)
    elif isinstance(node, str):
        yield node


def _calls(text: str) -> list[str]:
    """Return the names of the resolvers that a text calls; one that is itself put together by `${...}` is named as it stands."""
    names = []
    waiting: list[int | None] = []  # where the name after an open `${` begins; None: it has been read, or it is another bracket
    for found in re.finditer(r"\$\{|[{}:]", text):
        sign = found.group()
        if sign == "}":
            del waiting[-1:]
        elif sign != ":":
            waiting.append(found.end() if sign == "${" else None)
        elif waiting and waiting[-1] is not None:
            names.append(text[waiting[-1] : found.start()].strip())
            waiting[-1] = None
    return names
