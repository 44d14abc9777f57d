"""Every setting with its default, what it takes and its sentence, read from the dataclasses: for `rltrain config` and the docs.

Imports neither Hydra nor a backend nor a simulator.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, get_type_hints

from rltrain.checks import describe
from rltrain.config.check import RepeatConfig
from rltrain.config.schema import CHOICES, GROUPS, Config, conf_directory, options

GROUP_SENTENCES = {
    "trainer": "which trainer turns the loop",
    "backend": "which library computes the numbers",
    "env": "where the environment comes from; an id such as env=Acrobot-v1 is short for env=gymnasium env.id=Acrobot-v1",
    "agents": "which agents learn: one, a list, or a list of name:choice",
    "agents_scope": "how many copies each of several agents owns: even, or a list of sizes",
    "experiment": "a preset: settings that go together",
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One key of the configuration."""

    key: str  # dotted, as on the command line: `agents.ppo.learning_rate`
    default: Any
    allowed: str  # type and range or choices, in words
    sentence: str  # follows the key, as in "seed: of every random stream"
    group: str | None = None  # that it belongs to, such as "agents"; None: there in every run
    choice: str | None = None  # of the group: "ppo"
    section: str = ""  # the dataclass that declares it; what several choices share has one name
    fixed: bool = False  # belongs to a run from start to end: a resume can't change it


def entries(group: str | None = None, choice: str | None = None) -> list[Entry]:
    """Return every key: those of every run, then by group and choice; only those of one group or choice, where given."""
    found = [] if group else [*_groups(), *settings(Config)]
    for name, choices in CHOICES.items():
        if group not in (None, name):
            continue
        for one, chosen in choices.items():
            if choice in (None, one):
                found += settings(chosen.cfg, f"agents.{one}" if name == "agents" else name, group=name, choice=one)
    return found


def settings(cls: type, key: str = "", *, group: str | None = None, choice: str | None = None) -> list[Entry]:
    """Return the settings in dataclass `cls`, sections within it too; `key` is where they stand."""
    extra = list(_leaves(RepeatConfig, key, False)) if group == "agents" else []
    found = [dataclasses.replace(entry, group=group, choice=choice) for entry in (*_leaves(cls, key, False), *extra)]
    named = choice if group == "backend" else None
    return [dataclasses.replace(entry, default=named) if named and entry.key == "backend.name" else entry for entry in found]


def _groups() -> Iterator[Entry]:
    """Return the keys that choose: `trainer`, `env` ..."""
    import yaml

    text = (conf_directory() / "config.yaml").read_text(encoding="utf-8")
    defaults: dict[str, Any] = {}
    for line in yaml.safe_load(text)["defaults"]:
        defaults |= line if isinstance(line, dict) else {}
    for group in GROUPS:
        more = {"agents_scope": " or a list of whole numbers", "env": " or an environment's id"}.get(group, "")
        listed = ", ".join(options(group))
        allowed = f"one of {listed}{more}" if "," in listed else f"{listed}{more}"
        yield Entry(group, defaults.get(group), allowed, GROUP_SENTENCES[group])


def _leaves(cls: type, key: str, fixed: bool) -> Iterator[Entry]:
    hints, defaults = get_type_hints(cls), cls()
    for field in dataclasses.fields(cls):
        name, default = f"{key}.{field.name}" if key else field.name, getattr(defaults, field.name)
        if not key and field.name in CHOICES:
            continue  # its keys are its choice's
        held = fixed or bool(field.metadata.get("fixed"))
        if dataclasses.is_dataclass(default):
            yield from _leaves(type(default), name, held)
            continue
        owner = _declared_in(cls, field.name)
        yield Entry(name, default, _allowed(hints[field.name], field), field.metadata["doc"], section=owner, fixed=held)


def _allowed(hint: Any, field: dataclasses.Field) -> str:
    text = describe(hint, field).replace("text, not empty", "text").replace("a finite number", "a number")
    return text.replace("one of auto", "auto") if field.metadata["choices"] == ["auto"] else text


def _declared_in(cls: type, name: str) -> str:
    """Return the name of the class that `cls` has a field from."""
    return next(owner.__name__ for owner in cls.__mro__ if name in vars(owner).get("__annotations__", {}))
