"""`rltrain checkpoint export`: an agent's replay memory as a file that other programs read."""

import os
from collections.abc import Sequence
from pathlib import Path

from rltrain import assemble, checkpoints
from rltrain import config as configuration
from rltrain.agents.base import Agent
from rltrain.commands.plans import load_config, load_plugins
from rltrain.commands.reading import beside_training
from rltrain.commands.train import read_parts
from rltrain.errors import CheckpointError, CommandError, ConfigError, nearest
from rltrain.runs import Run
from rltrain.screen import printable, write_out
from rltrain.trainers import keeping

SUFFIXES = (".npz", ".parquet")


def export(arguments: Sequence[str]) -> int:
    """`export PATH FILE [agent=NAME]`: write every transition that a checkpoint has of an agent."""
    arguments, _ = load_plugins(arguments)
    names = [argument.removeprefix("agent=") for argument in arguments if argument.startswith("agent=")]
    words = [argument for argument in arguments if not argument.startswith("agent=")]
    if len(words) != 2 or len(names) > 1:
        remedy = "write rltrain checkpoint export PATH FILE.npz [agent=NAME], or FILE.parquet"
        raise CommandError(["rltrain", "checkpoint", "export", *arguments], remedy)
    file = Path(os.path.expanduser(words[1]))
    _check_file(file)
    checkpoint = words[0].removeprefix("checkpoint=")
    return beside_training(lambda: assemble.find_checkpoint(checkpoint), lambda path: _export(path, names, file))


def _export(path: Path, names: Sequence[str], file: Path) -> int:
    manifest = checkpoints.verify(path)
    name = _find_agent(names, list(manifest.get("agents", {})))
    config = configuration.check(load_config(path, checkpoints.read_config(path, manifest)), training=False)
    trainer = assemble.make_trainer(config, training=False, run=Run())
    try:
        agent = next(agent for agent in trainer.agents if agent.name == name)
        _check_memory(agent)
        keeping.put_agents(trainer, read_parts(path, trainer.agents))
        memory = agent.algorithm.memory
        if not memory.count:
            raise CheckpointError(
                f"{path}: agents.{name}: the checkpoint has no transitions; checkpoints.memory=true keeps the memory in it"
            )
        try:
            memory.export(file)
        except OSError as error:
            file.unlink(missing_ok=True)  # half of it
            raise checkpoints.storage_error(f"FILE={file}", error) from None
    finally:
        trainer.close()
    write_out(printable(f"{file}: {memory.count:,} transitions of {name}, {file.stat().st_size:,} bytes\n"))
    return 0


def _check_file(file: Path) -> None:
    if file.suffix not in SUFFIXES:
        raise ConfigError("FILE", file, f"is neither {' nor '.join(SUFFIXES)}; name one that is")
    if file.exists():
        raise ConfigError("FILE", file, "is there already; name another, or remove it")
    if not file.absolute().parent.is_dir():
        raise ConfigError("FILE", file, f"there is no directory {file.parent}; make it first")


def _find_agent(names: Sequence[str], there: Sequence[str]) -> str:
    """Return the agent that is named, or the only one."""
    if not names and len(there) == 1:
        return there[0]
    if not names or names[0] not in there:
        wrong = ConfigError("agent", names[0], f"no such agent; {nearest(names[0], there)}") if names else None
        raise wrong or CommandError(["rltrain checkpoint export"], f"say whose memory with agent=NAME; {nearest('', there)}")
    return names[0]


def _check_memory(agent: Agent) -> None:
    if not hasattr(getattr(agent.algorithm, "memory", None), "export"):
        raise ConfigError("agent", agent.name, f"{agent.kind} learns from rollouts and has no memory of transitions")
