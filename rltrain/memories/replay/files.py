"""Transitions in files: .npz, which NumPy reads, and .parquet, a table with a row per transition (needs pyarrow)."""

import json
from pathlib import Path

import numpy as np

from rltrain import installing
from rltrain.errors import ConfigError

REQUIRED = ("rewards", "terminated", "truncated", "valid", "actions")


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays (K, N, ...) by name: K timesteps of N copies, from the oldest on.

    Raises ConfigError for another suffix, or for .parquet without pyarrow.
    """
    if path.suffix == ".npz":
        np.savez(path, **arrays)  # type: ignore[arg-type]
        return
    pa, parquet = _pyarrow(path)
    timesteps, copies = arrays["rewards"].shape
    columns = {
        "timestep": pa.array(np.repeat(np.arange(timesteps), copies)),
        "copy": pa.array(np.tile(np.arange(copies), timesteps)),
    }
    shapes = {}
    for name, array in arrays.items():
        shapes[name] = array.shape[2:]
        flat = pa.array(np.ascontiguousarray(array).reshape(-1))
        size = int(np.prod(array.shape[2:]))
        columns[name] = flat if array.ndim == 2 else pa.FixedSizeListArray.from_arrays(flat, size)
    table = pa.table(columns).replace_schema_metadata({"rltrain": json.dumps({"copies": copies, "shapes": shapes})})
    parquet.write_table(table, path)


def read(path: Path) -> dict[str, np.ndarray]:
    """Return what `write` was given.

    Raises ConfigError if the file isn't there or holds something else.
    """
    if not path.is_file():
        raise ConfigError("path", path, "no such file")
    try:
        arrays = _read_npz(path) if path.suffix == ".npz" else _read_parquet(path)
    except (ValueError, KeyError, OSError) as error:
        raise ConfigError("path", path, f"can't be read as transitions ({error})") from error
    names = [name for name in arrays if name.split("/")[0] == "observations"] or ["observations"]
    missing = [name for name in (*REQUIRED, *names, *(f"next_{name}" for name in names)) if name not in arrays]
    if missing:
        raise ConfigError("path", path, f"holds no transitions: {', '.join(missing)} missing")
    _check_shapes(path, arrays, names)
    return arrays


def _check_shapes(path: Path, arrays: dict[str, np.ndarray], observations: list[str]) -> None:
    """Raise ConfigError unless all arrays are of the same (K, N), and successors of the observations' shape."""
    head = arrays["rewards"].shape
    for name, array in arrays.items():
        wanted = arrays[name.removeprefix("next_")].shape if name.removeprefix("next_") in observations else head
        if len(head) != 2 or array.shape[: len(wanted)] != wanted:
            there = f"{name} has the shape {array.shape}, rewards {head}"
            raise ConfigError("path", path, f"holds no transitions: {there}; each begins with (timesteps, copies)")


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _read_parquet(path: Path) -> dict[str, np.ndarray]:
    _, parquet = _pyarrow(path)
    table = parquet.read_table(path)
    about = json.loads((table.schema.metadata or {})[b"rltrain"])
    arrays = {}
    for name, shape in about["shapes"].items():
        column = table[name].combine_chunks()
        flat = column.flatten() if shape else column
        arrays[name] = flat.to_numpy(zero_copy_only=False).reshape(-1, about["copies"], *shape)
    return arrays


def _pyarrow(path: Path) -> tuple:
    if path.suffix != ".parquet":
        raise ConfigError("path", path, "is neither .npz nor .parquet")
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            "path", path, f"pyarrow is not installed; {installing.command_for('parquet')}, or name a .npz"
        ) from None
    return pyarrow, pyarrow.parquet
