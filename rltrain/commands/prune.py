"""`rltrain runs prune`: delete old checkpoints, after telling which."""

import sys
from collections.abc import Sequence

import rltrain.commands.runs as listed
from rltrain.commands.layout import table_that_fits, width
from rltrain.errors import ConfigError, StorageError
from rltrain.results import listing, pruning
from rltrain.results.pruning import Plan
from rltrain.screen import print_out, printable, write_error, write_out

OPTIONS = (*listing.FILTERS, "keep", "dry_run", "yes")
MOST_ROWS, MOST_NAMES = 50, 4


def prune(arguments: Sequence[str]) -> int:
    """Show what would go, ask, and delete it."""
    places, options = listed.read_arguments(arguments, OPTIONS)
    keep, dry_run, yes = _read_keep(options), listed.is_true(options, "dry_run"), listed.is_true(options, "yes")
    records = listed.find(places, {key: value for key, value in options.items() if key in listing.FILTERS})
    plans = pruning.plan_all(listing.order(records, "id"), keep)
    wanted = [plan for plan in plans if plan.old]
    write_out(printable("\n".join([*_table(wanted), *_reasons(plans), *_total(plans, wanted), ""])))
    if dry_run:
        print_out("dry run: nothing was deleted")
    elif wanted and (yes or _is_agreed()):
        return _carry_out(wanted, keep)
    return 0


def _read_keep(options: dict[str, str]) -> int:
    text = options.get("keep", "1")
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError("keep", text, "must be a whole number >= 1: that many of the newest stay, besides latest and best")
    return int(text)


def _is_agreed() -> bool:
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfigError("yes", False, "nobody is there to be asked; yes=true deletes without asking, dry_run=true only shows")
    print("delete them? [y/N] ", end="", file=sys.stderr, flush=True)
    agreed = sys.stdin.readline().strip().lower() in ("y", "yes")
    if not agreed:
        print_out("nothing was deleted")
    return agreed


def _carry_out(plans: list[Plan], keep: int) -> int:
    """Delete; what can't be is told, and the rest goes on. Returns the exit status."""
    gone, freed, status = 0, 0, 0
    for plan in plans:
        try:
            done = pruning.carry_out(plan, keep)
        except StorageError as error:
            write_error(f"error: {error}")
            status = error.exit_status
            continue
        gone += len(done)
        freed += plan.size if done == plan.old else 0
    print_out(f"deleted {_count(gone)}, {listing.shown_bytes(freed)}")
    return status


def _table(plans: list[Plan]) -> list[str]:
    if not plans:
        return []
    shown = sorted(plans, key=lambda plan: -plan.size)[:MOST_ROWS]
    columns = {
        "run": [plan.record.name for plan in shown],
        "delete": [_names(plan) for plan in shown],
        "frees": [listing.shown_bytes(plan.size) for plan in shown],
    }
    more = [f"... and {len(plans) - MOST_ROWS:,} more runs"] if len(plans) > MOST_ROWS else []
    return [*table_that_fits(columns.__getitem__, list(columns), [], width(listed.WIDEST), right=("frees",)), *more, ""]


def _names(plan: Plan) -> str:
    names = [path.name for path in plan.old]
    if len(names) <= MOST_NAMES:
        return ", ".join(names)
    return f"{', '.join(names[: MOST_NAMES - 1])} ... {names[-1]} ({len(names):,})"


def _reasons(plans: list[Plan]) -> list[str]:
    """Return why something stays that one might expect to go."""
    kept = [plan for plan in plans if plan.why_not]
    lines = [f"{plan.record.name} keeps everything: {plan.why_not}" for plan in kept[:MOST_NAMES]]
    return lines + ([f"... and so do {len(kept) - MOST_NAMES:,} more runs"] if len(kept) > MOST_NAMES else [])


def _total(plans: list[Plan], wanted: list[Plan]) -> list[str]:
    if not wanted:
        return [f"nothing to delete in {len(plans):,} run{'s' * (len(plans) != 1)}"]
    size = listing.shown_bytes(sum(plan.size for plan in wanted))
    runs = f"{len(wanted):,} of {len(plans):,} run{'s' * (len(plans) != 1)}"
    return [f"{_count(sum(len(plan.old) for plan in wanted))} of {runs}, {size}"]


def _count(number: int) -> str:
    return f"{number:,} checkpoint{'s' * (number != 1)}"
