"""`rltrain runs`: a table of runs, whatever state they are in."""

import json
import os
from collections import Counter
from collections.abc import Sequence

from rltrain.commands.layout import table_that_fits, width
from rltrain.errors import ConfigError, nearest
from rltrain.results import listing
from rltrain.results.records import STATES, Record, read_runs
from rltrain.screen import printable, write_out

OUTPUTS = "outputs"
OPTIONS = (*listing.FILTERS, "sort", "json")
MOST_PROBLEMS = 5
WIDEST = 300  # columns of a terminal that are put to use


def runs(arguments: Sequence[str]) -> int:
    """List the runs below directories."""
    places, options = read_arguments(arguments, OPTIONS)
    records = find(places, {key: value for key, value in options.items() if key in listing.FILTERS})
    kept = listing.order(records, options.get("sort", "age"))
    if is_true(options, "json"):
        write_out(json.dumps([listing.as_plain(record) for record in kept], indent=1) + "\n")
    else:
        write_out(printable("\n".join([*_table(kept), *_told(kept, places), ""])))
    return 0


def read_arguments(arguments: Sequence[str], options: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Split arguments into directories, without any the default one, and options.

    Raises ConfigError for an option that there is not.
    """
    places, given = [], {}
    for argument in arguments:
        key, has_value, value = argument.partition("=")
        if has_value and key in options:
            given[key] = value
        elif has_value and not os.path.exists(argument):
            raise ConfigError(key, value, f"no such option; {nearest(key, options)}")
        else:
            places.append(argument)
    return places, given


def is_true(options: dict[str, str], key: str) -> bool:
    """Return an option that is true or false; raises ConfigError if it is neither."""
    value = options.get(key, "false")
    if value not in ("true", "false"):
        raise ConfigError(key, value, "must be true or false")
    return value == "true"


def find(places: Sequence[str], filters: dict[str, str]) -> list[Record]:
    """Return the runs that match, below the default directory where none is named and it is there."""
    if not places and not os.path.isdir(OUTPUTS):
        return []
    return listing.keep(read_runs(places or [OUTPUTS]), filters)


def _table(records: list[Record]) -> list[str]:
    if not records:
        return []

    def cells(name: str) -> list[str]:
        make = listing.COLUMNS[name]
        return [make(record).replace("\n", "\\n").replace("\t", "\\t") for record in records]

    return table_that_fits(cells, list(listing.COLUMNS), listing.left_out(records), width(WIDEST), right=listing.RIGHT)


def _told(kept: list[Record], places: Sequence[str]) -> list[str]:
    """Return how many runs there are of each state, and which can't be read."""
    if not kept:
        where = ", ".join(places) if places else f"{OUTPUTS}/"
        return [f"no such run in {where}; rltrain runs DIR looks elsewhere, rltrain help runs says how to filter"]
    states = Counter(record.state for record in kept)
    lines = ["", f"{len(kept):,} run{'s' * (len(kept) > 1)}: " + ", ".join(f"{states[s]:,} {s}" for s in STATES if states[s])]
    unread = [record for record in kept if record.problems]
    lines += [f"{record.name}: {', '.join(record.problems)}" for record in unread[:MOST_PROBLEMS]]
    return lines + ([f"... and {len(unread) - MOST_PROBLEMS:,} more"] if len(unread) > MOST_PROBLEMS else [])
