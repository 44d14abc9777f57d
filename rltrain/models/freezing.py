"""Parameters that don't learn, chosen by parts of their names; the same for both backends."""

from collections.abc import Iterable, Sequence

from rltrain.errors import ConfigError, nearest


def find_frozen(names: Iterable[str], entries: Sequence[str], key: str) -> frozenset[str]:
    """Return the names in which an entry is a run of whole parts: `encoder` in `policy.encoder.weights.0`.

    Raises ConfigError for an entry that is in none.
    """
    names = list(names)
    found: set[str] = set()
    for entry in entries:
        own = {name for name in names if f".{entry}." in f".{name}."}
        if not own:
            parts = {part for name in names for part in name.split(".") if not part.isdigit()}
            raise ConfigError(f"{key}.frozen", entry, f"is in no parameter's name; {nearest(entry, parts | set(names))}")
        found |= own
    return frozenset(found)
