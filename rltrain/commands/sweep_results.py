"""What is kept of a sweep: a readable folder and `job.json` per job, `sweep.json` and a table at the end.

All of it is read back from the sweep's directory, so a sweep that was killed and continued there lists every job.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import OmegaConf

from rltrain import files
from rltrain.commands.summary import MAX_BYTES, best, final
from rltrain.confidential import conceal_tree
from rltrain.errors import SECRET, RltrainError, StorageError, hidden, masked
from rltrain.runs import check_free, holds_run
from rltrain.screen import print_out, table
from rltrain.tracking import replace_text

JOB, SWEEP = "job.json", "sweep.json"
FIXED = "hydra.job.config.override_dirname.exclude_keys"  # keys that are the same in all jobs
LONGEST_NAME = 80  # of a job's folder
MOST_ROWS = 50  # of the table
DEEPEST = 4  # folders below the sweep's, for a `hydra.sweep.subdir` of one's own


# -- a job's folder ------------------------------------------------------------------------------------------------------


def fixed_keys(overrides: Sequence[str]) -> str:
    """Return the override that tells every job which of a sweep's overrides are the same in all of them."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    fixed = {_pair(str(override.input_line))[0] for override in parsed if not override.is_sweep_override()}
    return f"{FIXED}=[{','.join(repr(key) for key in sorted(fixed))}]"


def own_overrides(hydra: Any) -> dict[str, str]:
    """Return the overrides that tell a job from the others, secrets masked."""
    pairs = dict(_pair(override) for override in hydra.overrides.task)
    fixed = set(hydra.job.config.override_dirname.exclude_keys)
    return {key: str(hidden(value) if SECRET.search(key) else masked(value)) for key, value in pairs.items() if key not in fixed}


def job_folder(*, _root_: Any) -> str:
    """Return the name of a job's folder, number and overrides: `3_seed-2_learning_rate-0.001`.

    A folder that is the bare number, and holds a run, is the job's already.
    """
    hydra = _root_.hydra
    number = str(hydra.job.num)
    if holds_run(Path(hydra.sweep.dir) / number):
        return number
    parts = [number, *(f"{_safe(key)}-{_safe(value)}" for key, value in _short(own_overrides(hydra)).items())]
    return "_".join(parts)[:LONGEST_NAME].rstrip("_.-")


OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)


def _safe(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII).strip("_")


def _pair(override: str) -> tuple[str, str]:
    key, _, value = override.lstrip("+~").partition("=")
    return key, value


def _short(overrides: Mapping[str, str]) -> dict[str, str]:
    """Return overrides by the last part of their keys, where that tells them apart."""
    overrides = {
        key: re.sub(r"-?\d+\.\d{5,}(e-?\d+)?", lambda number: f"{float(number[0]):.4g}", value)
        for key, value in overrides.items()
    }
    last = {key: re.split(r"[./@]", re.sub(r"\.(id|sizes)$", "", key))[-1] for key in overrides}
    names = list(last.values())
    return {last[key] if names.count(last[key]) == 1 else key: value for key, value in overrides.items()}


# -- what a job leaves ---------------------------------------------------------------------------------------------------


def note_job(hydra: Any, error: str | None = None) -> None:
    """Write down in a job's folder which job it is, and why it failed, if it did."""
    about = {"job": hydra.job.num, "overrides": own_overrides(hydra), "error": error}
    with suppress(OSError):  # the run itself says what is wrong there
        replace_text(Path(hydra.runtime.output_dir) / JOB, json.dumps(conceal_tree(about), indent=1) + "\n")


class Place(Callback):
    """Told by Hydra where a sweep's directory is."""

    directory: Path | None = None  # of the sweep that this process started last

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        """Remember it."""
        Place.directory = Path(str(config.hydra.sweep.dir))


# -- all jobs together ---------------------------------------------------------------------------------------------------


def tell_sweep() -> None:
    """Write `sweep.json` and print a table of all jobs that the sweep's directory holds."""
    directory, Place.directory = Place.directory, None
    if directory is None:
        return
    jobs = [_read_job(folder, directory) for folder in _folders(directory)]
    jobs.sort(key=lambda job: (job["job"], job["directory"]))
    if not jobs:
        return
    lines = []
    try:
        replace_text(directory / SWEEP, json.dumps(conceal_tree({"jobs": jobs}), indent=1) + "\n")
        lines.append(f"saved in {directory / SWEEP}")
    except OSError as error:
        lines.append(f"warning: {directory / SWEEP} can't be written: {error.strerror}")
    if any(job["state"] != "finished" for job in jobs):
        lines.append(f"the same command with hydra.sweep.dir={directory} goes on with the jobs that are not finished")
    shown = jobs
    if len(jobs) > MOST_ROWS:
        shown = sorted(jobs, key=_score, reverse=True)[:MOST_ROWS]
        lines.insert(0, f"the best {MOST_ROWS} of {len(jobs):,} jobs, by best, else final")
    print_out(table(["job", "overrides", "final", "best", "state", "directory"], map(_row, shown)), *lines)


def _folders(directory: Path, depth: int = 0) -> Iterator[Path]:
    """Return the folders of jobs, those of a sweep by an older version too."""
    with suppress(OSError):
        for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
            path = Path(entry.path)
            if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
                continue
            if (path / JOB).exists() or holds_run(path):
                yield path
            elif depth < DEEPEST:
                yield from _folders(path, depth + 1)


def _read_job(folder: Path, directory: Path) -> dict[str, Any]:
    """Return what there is to say of a job, by what its folder holds."""
    about, summary = _read(folder / JOB), _read(folder / "summary.json")
    number = re.match(r"\d+", folder.name)
    agents = summary.get("agents")
    summary = summary if isinstance(agents, dict) and agents else {}
    reason = about.get("error") or summary.get("exit_reason")
    if reason is None:
        state = "running" if _is_held(folder) else "killed"
    else:
        state = "failed" if about.get("error") else str(reason).partition(":")[0]
    return {
        "job": about.get("job", int(number[0]) if number else -1),
        "overrides": about.get("overrides", {}),
        "final": final(summary) if summary else None,
        "best": best(summary) if summary else None,
        "state": state,
        "reason": reason,
        "directory": str(folder.relative_to(directory)),
        **{key: summary.get(key) for key in ("timestep", "env_steps", "training_seconds")},
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(files.read_small(path, MAX_BYTES, "a job's"))
    except (OSError, ValueError, RltrainError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_held(folder: Path) -> bool:
    try:
        check_free(folder)
    except StorageError:
        return True
    return False


def _score(job: dict[str, Any]) -> float:
    scores = [job[key] for key in ("best", "final") if job[key] is not None]
    return scores[0] if scores else float("-inf")


def _row(job: dict[str, Any]) -> list[str]:
    numbers = ["-" if job[key] is None else f"{job[key]:.1f}" for key in ("final", "best")]
    overrides = " ".join(f"{key}={value}" for key, value in _short(job["overrides"]).items())
    return [str(job["job"]), overrides, *numbers, job["state"], job["directory"]]
