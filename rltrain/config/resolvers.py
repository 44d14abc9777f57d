"""Watches what resolvers give: text is confidential; numbers, booleans and declared choices are data."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from rltrain import confidential
from rltrain.config.schema import CHOICES, Config, options

# these give what stands in the configuration, or say of the machine what every log says
HARMLESS = (
    "oc.select",
    "oc.create",
    "oc.deprecated",
    "oc.dict.keys",
    "oc.dict.values",
    "hydra",
    "now",
    "python_version",
    "job_folder",
)


def watch() -> None:
    """Have what every resolver gives from now on remembered; called before anything is resolved."""
    from omegaconf.basecontainer import BaseContainer

    for name, resolver in BaseContainer._resolvers.items():
        if name not in HARMLESS and not isinstance(resolver, Watched):
            BaseContainer._resolvers[name] = Watched(name, resolver)


@dataclasses.dataclass
class Watched:
    """A resolver whose answers are remembered."""

    name: str
    resolver: Callable[..., Any]

    def __call__(self, config: Any, parent: Any, node: Any, arguments: Any, texts: Any) -> Any:
        """Return what the resolver gives."""
        given = self.resolver(config, parent, node, arguments, texts)
        if self.name != "oc.env" or arguments[0] in os.environ:  # a default stands in the configuration
            for text in _texts(given):
                if not _is_data(text):
                    confidential.remember(text)
        return given


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif hasattr(value, "items"):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif hasattr(value, "__iter__") and not isinstance(value, bytes):
        for item in value:
            yield from _texts(item)


def _is_data(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text in _declared() or any(text in options(group) for group in CHOICES)
    return True


@cache
def _declared() -> frozenset[str]:
    """Return the words that fields declare as their choices."""
    words: set[str] = set()
    waiting: list[Any] = [Config, *(choice.cfg for choices in CHOICES.values() for choice in choices.values())]
    while waiting:
        for field in dataclasses.fields(waiting.pop()):
            words |= set(field.metadata.get("choices") or ())
            if dataclasses.is_dataclass(field.default_factory):
                waiting.append(field.default_factory)
    return frozenset(words)
