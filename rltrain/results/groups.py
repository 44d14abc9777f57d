"""Groups: runs that differ in nothing but the seed, or those that are alike in what `by` names; and what to call them."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rltrain.errors import ConfigError, nearest, shown
from rltrain.results.curves import OWN, Curve

# what changes nothing that is learned, or is marked where runs differ in it
NO_DIFFERENCE = (
    "total_env_steps",
    "plugins",
    "run.",
    "tracking.",
    "checkpoints.",
    "evaluation.",
    "backend.device",
    "backend.threads",
    "backend.compilation_cache",
    "trainer.",
    "env.vectorization",
    "env.timeout",
    f"{OWN}count",
    f"{OWN}_target_",
    "env.id",
)
PLAIN = re.compile(r"\.(id|name|_target_)$")  # the end of a key that says nothing beside what is before it
OPEN = ("kwargs.",)  # settings of whatever name, which a run may have or not


@dataclass(frozen=True, eq=False)
class Group:
    """Curves that are seeds of one thing."""

    name: str
    settings: dict[str, Any]  # those in which groups differ
    curves: list[Curve]

    def of(self, task: str) -> list[Curve]:
        """Return the curves of a task."""
        return [curve for curve in self.curves if curve.task == task]


def tasks_of(curves: Iterable[Curve]) -> list[str]:
    """Return the tasks, in order of names."""
    return sorted({curve.task for curve in curves})


def make_groups(curves: Sequence[Curve], by: Sequence[str] = ()) -> list[Group]:
    """Return curves in groups, in the order of their settings.

    Raises ConfigError for a key in `by` that no run has.
    """
    keys = [_find_key(key, curves) for key in by] if by else differing(curves)
    read: Callable[[Curve], tuple[Any, ...]] = lambda curve: tuple(value_of(curve, key) for key in keys)  # noqa: E731
    found: dict[Any, list[Curve]] = {}
    for curve in curves:
        kind = None if by else curve.agent.kind
        found.setdefault((kind, curve.part, tuple(map(_frozen, read(curve)))), []).append(curve)
    members = sorted(found.values(), key=lambda group: _order(group[0], keys))
    names = _unique(_by_settings(members, keys) if by else _name(members, keys))
    labels = label_keys(keys, curves)
    return [
        Group(name, dict(zip(labels, read(group[0]), strict=True)), group) for name, group in zip(names, members, strict=True)
    ]


# -- settings --------------------------------------------------------------------------------------------------------------


def value_of(curve: Curve, key: str) -> Any:
    """Return a curve's setting; None where it has none."""
    own = {"seed": curve.record.seed, "agent": curve.agent.name, "algorithm": curve.agent.kind}
    return own[key] if key in own else curve.settings.get(key)


def differing(curves: Sequence[Curve]) -> list[str]:
    """Return the settings in which curves of the same task and algorithm differ, the agents' own first."""
    alike: dict[Any, list[Curve]] = {}
    for curve in curves:
        alike.setdefault((curve.task, curve.agent.kind), []).append(curve)
    found: dict[str, None] = {}
    for group in alike.values():
        first = group[0].settings
        for key in dict.fromkeys(key for curve in group for key in curve.settings):
            if key not in found and not key.startswith(NO_DIFFERENCE):
                needed = any(part in key for part in OPEN)  # others are missing where another version had none
                values = [curve.settings.get(key) for curve in group if needed or key in curve.settings]
                if any(value != values[0] for value in values[1:]) or (needed and key not in first):
                    found[key] = None
    return sorted(found, key=lambda key: not key.startswith(OWN))


def are_alike(one: Curve, other: Curve) -> bool:
    """Tell whether two curves differ in nothing but the seed, as far as both say."""
    keys = [key for key in one.settings if key in other.settings and not key.startswith(NO_DIFFERENCE)]
    return one.task == other.task and all(one.settings[key] == other.settings[key] for key in keys)


def _find_key(key: str, curves: Sequence[Curve]) -> str:
    """Return the setting that somebody names: `agents.ppo.learning_rate`, or its end, `learning_rate`."""
    there = {"seed", "agent", "algorithm"} | {name for curve in curves for name in curve.settings}
    sections = {curve.agent.key for curve in curves}
    own = {f"{section}.{name.removeprefix(OWN)}": name for name in there if name.startswith(OWN) for section in sections}
    if key in own or key in there:
        return own.get(key, key)
    ends = sorted(name for name in there if name.endswith(f".{key}") or name in (f"{key}.id", f"{key}.name"))
    if len(ends) == 1 or f"{OWN}{key}" in ends:
        return f"{OWN}{key}" if f"{OWN}{key}" in ends else ends[0]
    known = {name for name in there if not name.startswith(OWN)} | set(own)
    raise ConfigError("by", key, f"no run has this setting; {nearest(key, known)}")


def _frozen(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _order(curve: Curve, keys: Sequence[str]) -> list[tuple[int, float, str]]:
    values = [curve.agent.kind, *(value_of(curve, key) for key in keys), curve.part]
    numbers = [float(value) if isinstance(value, int | float) else 0.0 for value in values]
    return [(isinstance(value, int | float), number, shown(value)) for value, number in zip(values, numbers, strict=True)]


# -- names -----------------------------------------------------------------------------------------------------------------


def _name(groups: Sequence[Sequence[Curve]], keys: Sequence[str]) -> list[str]:
    """Return names that tell groups apart: the agents' own if they do, else algorithms and as few settings as needed."""
    parts = [group[0].part for group in groups]
    called = [{curve.agent.key.removeprefix("agents.") for curve in group} for group in groups]
    own = [next(iter(names)) if len(names) == 1 else "" for names in called]
    if all(own) and len({*zip(own, parts, strict=True)}) == len(groups):
        return [_joined(name if len({*own}) > 1 or not part else "", part) for name, part in zip(own, parts, strict=True)]
    kinds = [group[0].agent.kind or own_name for group, own_name in zip(groups, own, strict=True)]
    needed = {kind: _needed([g for g, k in zip(groups, kinds, strict=True) if k == kind], keys) for kind in kinds}
    return [
        _joined(
            kind if len({*kinds}) > 1 or not needed[kind] else "",
            *_words(group[0], needed[kind], keys),
            part,
        )
        for group, kind, part in zip(groups, kinds, parts, strict=True)
    ]


def _needed(groups: Sequence[Sequence[Curve]], keys: Sequence[str]) -> list[str]:
    """Return as few keys as tell groups apart, each time the one that tells most."""
    chosen: list[str] = []

    def told(names: Sequence[str]) -> int:
        return len({(group[0].part, *(_frozen(value_of(group[0], key)) for key in names)) for group in groups})

    while told(chosen) < len(groups):
        best = max(keys, key=lambda key: told([*chosen, key]), default=None)
        if best is None or told([*chosen, best]) == told(chosen):
            break
        chosen.append(best)
    return [key for key in keys if key in chosen]


def _by_settings(groups: Sequence[Sequence[Curve]], keys: Sequence[str]) -> list[str]:
    return [_joined(*_words(group[0], keys, keys), group[0].part) for group in groups]


def _words(curve: Curve, chosen: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Return `learning_rate=0.001` of each chosen key, by its last part where that is enough."""
    last = {key: PLAIN.sub("", key).rsplit(".", 1)[-1] for key in keys}
    names = {key: last[key] if list(last.values()).count(last[key]) == 1 else key.removeprefix(OWN) for key in keys}
    return [
        str(value_of(curve, key)) if key in ("agent", "algorithm") else f"{names[key]}={brief(value_of(curve, key))}"
        for key in chosen
    ]


def short_names(names: Sequence[str]) -> tuple[str, list[str]]:
    """Return the setting that all names are values of, and the values; nothing and the names where there is no such one."""
    keys = {name.partition("=")[0] for name in names}
    if len(names) > 1 and len(keys) == 1 and all("=" in name and " " not in name for name in names):
        return keys.pop(), [name.partition("=")[2] for name in names]
    return "", list(names)


def brief(value: Any) -> str:
    """Return a value in few characters."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = ",".join(map(brief, value)).join("[]") if isinstance(value, list) else shown(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _joined(*words: str) -> str:
    return " ".join(word for word in words if word) or "runs"


def _unique(names: Sequence[str]) -> list[str]:
    """Return names with a number behind those that are there already."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return found


def label_keys(keys: Sequence[str], curves: Sequence[Curve]) -> list[str]:
    """Return keys as one would write them to `rltrain train`."""
    sections = {curve.agent.key for curve in curves}
    section = next(iter(sections)) if len(sections) == 1 else "agents.*"
    return [f"{section}.{key.removeprefix(OWN)}" if key.startswith(OWN) else key for key in keys]
