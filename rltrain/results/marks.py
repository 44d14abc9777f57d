"""What sets a run apart from those it is compared with: it failed, was resumed, is shorter, has other versions."""

from collections import Counter
from collections.abc import Callable, Sequence

from rltrain.errors import shown
from rltrain.results.curves import Curve
from rltrain.results.groups import are_alike
from rltrain.results.records import Record
from rltrain.results.saved import of_type


def marks_of(curve: Curve, group: Sequence[Curve], metric: str) -> list[str]:
    """Return what is to be said of a curve among those of its group and task; nothing for most."""
    record = curve.record
    found = [state_of(record)] if record.state != "finished" else []
    if len(record.starts) > 1:
        changed = sorted({key for start in record.starts[1:] for key in start.get("changed") or {}} - {"total_env_steps"})
        times = "once" if len(record.starts) == 2 else f"{len(record.starts) - 1} times"
        found.append(f"resumed {times}" + (f", with other {', '.join(changed)}" if changed else ""))
    twin = next((one for one in group if _is_twin(curve, one)), None)
    if twin is not None:
        found.append(f"has the seed of {twin.record.name}")
    if not len(curve.values):
        found.append(f"has no {metric}")
    others = [one for one in group if one.record.state == "finished"] or group
    for what, read in UNEQUAL.items():
        usual = Counter(read(one.record) for one in others).most_common(1)[0][0]
        own = read(record)
        if own != usual and own and usual:
            found.append(f"{what}{own}, others {usual}")
    return [*found, *record.problems]


def _is_twin(curve: Curve, other: Curve) -> bool:
    """Tell whether another run has the same seed and settings, so that the two say no more than one."""
    same = other.record.seed == curve.record.seed and (other.agent, other.part) == (curve.agent, curve.part)
    return same and other.record is not curve.record and are_alike(curve, other)


def state_of(record: Record) -> str:
    """Return how a run ended or how far it is."""
    done, total = record.env_steps, record.total_env_steps
    share = f" at {min(100, 100 * done // total)} %" if done is not None and total else ""
    reason = shown(record.reason) if record.reason else ""
    said = reason if reason.startswith(record.state) else f"{record.state}: {reason}" if reason else record.state
    return said + share


def _length(record: Record) -> str:
    """Return how long a run is to be."""
    return f"{record.total_env_steps:,} env steps" if record.total_env_steps else ""


def _versions(record: Record) -> str:
    versions = of_type(dict, record.starts[-1] if record.starts else {}, "versions") or {}
    return " ".join(f"{name} {versions[name]}" for name in ("rltrain", "torch", "jax", "gymnasium") if name in versions)


def _machine(record: Record) -> str:
    start = record.starts[-1] if record.starts else {}
    parts = of_type(str, start, "host"), of_type(str, start, "versions", "device")
    return " ".join(part for part in parts if part)


def _evaluation(record: Record) -> str:
    settings = record.settings
    if not settings.get("evaluation.interval"):
        return ""
    return f"every {settings['evaluation.interval']} timesteps, {settings.get('evaluation.episodes')} episodes"


UNEQUAL: dict[str, Callable[[Record], str]] = {
    "": _length,
    "versions: ": _versions,
    "machine: ": _machine,
    "evaluated ": _evaluation,
}
