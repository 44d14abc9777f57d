"""`rltrain list` and `rltrain checkpoint`: look, change nothing."""

import json
from collections.abc import Sequence

from rltrain import assemble, checkpoints
from rltrain import config as configuration
from rltrain.commands.reading import beside_training
from rltrain.errors import ConfigError, nearest
from rltrain.screen import printable, write_out

LISTS = {"trainers": "trainer", "backends": "backend", "agents": "agents", "envs": "env", "experiments": "experiment"}


def list_choices(arguments: Sequence[str]) -> int:
    """Print the choices of a group, a line each."""
    plugins = [argument.partition("=")[2] for argument in arguments if argument.startswith("plugins=")]
    words = [argument for argument in arguments if not argument.startswith("plugins=")]
    configuration.load_plugins([name.strip() for value in plugins for name in value.strip("[]").split(",") if name.strip()])
    if len(words) != 1 or words[0] not in LISTS:
        raise ConfigError("list", " ".join(words), f"say what to list; {nearest(words[0] if words else '', LISTS)}")
    group = LISTS[words[0]]
    lines = [*configuration.options(group), *(_ids() if group == "env" else [])]
    write_out(printable("".join(f"{line}\n" for line in lines)))
    return 0


def _ids() -> list[str]:
    try:
        from gymnasium.envs.registration import registry
    except ImportError:
        return ["(install rltrain with an extra such as rltrain[classic] to see Gymnasium's ids)"]
    return ["Gymnasium ids, as env=ID:", *(f"  {name}" for name in sorted(registry))]


def checkpoint(arguments: Sequence[str]) -> int:
    """`verify PATH` checks every byte, `show PATH` prints what a checkpoint is, `export` writes a memory; all take a run, too."""
    if arguments and arguments[0] == "export":
        from rltrain.commands.transitions import export

        return export(arguments[1:])
    if len(arguments) != 2 or arguments[0] not in ("verify", "show"):
        raise ConfigError(
            "checkpoint", " ".join(arguments), "write `rltrain checkpoint verify PATH`, `show PATH` or `export PATH FILE`"
        )
    look = checkpoints.verify if arguments[0] == "verify" else checkpoints.read_manifest
    name = arguments[1].removeprefix("checkpoint=")
    path, manifest = beside_training(lambda: assemble.find_checkpoint(name), lambda path: (path, look(path)))
    if arguments[0] == "verify":
        size = sum(entry["size"] for entry in manifest["files"].values())
        good = f"{path}: good, {len(manifest['files'])} files, {size:,} bytes, timestep {manifest.get('timestep')}"
        write_out(printable(f"{good}\n"))
    else:
        write_out(json.dumps({"path": str(path), **manifest}, indent=1) + "\n")
    return 0
