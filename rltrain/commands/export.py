"""`rltrain export`: a policy as a file that acts without this project."""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rltrain import assemble, checkpoints, installing
from rltrain import config as configuration
from rltrain.commands.plans import add_plugins, load_config, load_plugins
from rltrain.commands.reading import Held, hold_found, load_policies
from rltrain.confidential import conceal_tree
from rltrain.errors import CheckpointError, CommandError, ConfigError, nearest
from rltrain.exports.form import Form, describe_space, named_inputs
from rltrain.exports.proof import compare
from rltrain.runs import Run
from rltrain.screen import print_out
from rltrain.seeding import FINAL_EVALUATION_ENVIRONMENTS

OPTIONS = ("agent", "rows")
RUNNER = Path(__file__).parents[1] / "exports" / "onnx_runner.py"  # which imports onnxruntime
USAGE = "write rltrain export RUN FILE.onnx [agent=NAME], or FILE.pt2, or FILE.stablehlo"


@dataclass(frozen=True)
class Format:
    """A kind of file: the backend that writes it, by which functions, and what it needs besides."""

    backend: str
    name: str  # of `write_...` and `open_...`
    packages: tuple[str, ...]
    extra: str


FORMATS = {
    ".onnx": Format("torch", "onnx", ("torch", "onnx", "onnxscript", "onnxruntime"), "torch,onnx"),
    ".pt2": Format("torch", "program", ("torch",), "torch"),
    ".stablehlo": Format("jax", "stablehlo", ("jax", "flatbuffers"), "jax,stablehlo"),
}


@dataclass
class Options:
    """What was typed."""

    checkpoint: str
    file: Path
    agent: str | None
    rows: int
    overrides: list[str]

    @property
    def format(self) -> Format:
        """The kind of file, by its name's end."""
        return FORMATS[self.file.suffix]


def export(arguments: Sequence[str]) -> int:
    """`export RUN FILE [agent=NAME] [rows=N] [env.KEY=VALUE...]`: write a policy, and prove that the file acts like it."""
    arguments, plugins = load_plugins(arguments)
    options = _read(arguments)
    _check_file(options.file)
    for package in options.format.packages:
        if find_spec(package) is None:
            raise ConfigError("FILE", options.file, f"needs {package}: {installing.command_for(options.format.extra)}")
    held = hold_found(options.checkpoint, agent=options.agent)
    name = _find_agent(options, held)
    config = _configure(held, name, options, plugins)
    trainer = assemble.make_trainer(config, training=False, run=Run(), role=FINAL_EVALUATION_ENVIRONMENTS)
    try:
        (agent,) = trainer.agents
        load_policies([agent], {name: held})
        written = _in_backend(options.format.backend, trainer, held, name, options, plugins)
        return _write(options, held, trainer, agent, written)
    finally:
        trainer.close()


def _read(arguments: Sequence[str]) -> Options:
    words = [argument for argument in arguments if "=" not in argument or os.path.exists(argument)]
    given = dict(argument.split("=", 1) for argument in arguments if argument not in words)
    words += [given.pop("checkpoint")] if "checkpoint" in given else []
    if len(words) != 2:
        raise CommandError(["rltrain", "export", *arguments], USAGE)
    checkpoint, file = words if Path(words[1]).suffix in FORMATS or Path(words[0]).suffix not in FORMATS else reversed(words)
    rows = given.pop("rows", "1000")
    if not rows.replace("_", "").isdigit() or int(rows) < 1:
        raise ConfigError("rows", rows, "how many observations to compare on; give a number from 1")
    agent = given.pop("agent", None)
    for key, value in given.items():
        if not key.lstrip("+").startswith("env."):
            raise ConfigError(key, value, f"no such option; {nearest(key, ('agent', 'rows', 'plugins'))}, env.*")
    return Options(checkpoint, Path(os.path.expanduser(file)), agent, int(rows), [f"{k}={v}" for k, v in given.items()])


def _check_file(file: Path) -> None:
    """Raise ConfigError for a file that can't be written, before anything is loaded."""
    if file.suffix not in FORMATS:
        raise ConfigError("FILE", file, f"ends in {file.suffix or 'nothing'}; end it in {', '.join(FORMATS)}")
    if not file.absolute().parent.is_dir():
        raise ConfigError("FILE", file, f"no such directory: {file.absolute().parent}")
    if file.is_dir():
        raise ConfigError("FILE", file, "is a directory; name a file")


def _find_agent(options: Options, held: Held) -> str:
    there = list(held.manifest.get("agents", {}))
    if options.agent is None and len(there) > 1:
        raise ConfigError("agent", None, f"say which one: {', '.join(there)}")
    if options.agent is not None and options.agent not in there:
        raise ConfigError("agent", options.agent, f"not there; {nearest(options.agent, there)}")
    return options.agent or there[0]


def _configure(held: Held, name: str, options: Options, plugins: list[str], *overrides: str) -> Any:
    """Return the checkpoint's configuration with this agent alone, on a CPU."""
    cfg = load_config(held.path, held.config)
    add_plugins(cfg, plugins)
    for other in [other for other in cfg.agents if other != name]:
        del cfg.agents[other]
    if "memory_of" in cfg.agents[name]:
        cfg.agents[name].memory_of = None
    how = [*options.overrides, *overrides, "backend.device=cpu"]
    cfg = configuration.apply_overrides(cfg, how, allowed_groups=("backend", "env"))
    cfg.run.dir, cfg.agents_scope.sizes = None, None
    return configuration.check(cfg, training=False)


def _in_backend(backend: str, trainer: Any, held: Held, name: str, options: Options, plugins: list[str]) -> Any:
    """Return the agent as the backend has it that writes the file."""
    (agent,) = trainer.agents
    if agent.backend.name == backend:
        return agent
    config = _configure(held, name, options, plugins, f"backend={backend}")
    (other,) = assemble.make_agents(config, trainer.env, assemble.make_backend(config))
    load_policies([other], {name: held}, f"; {options.file.suffix} is written by {backend}")
    return other


def _write(options: Options, held: Held, trainer: Any, agent: Any, written: Any) -> int:
    env, file = trainer.env, options.file
    find = lambda name: assemble.follow(f"rltrain.exports.{options.format.backend}.{name}", [])  # noqa: E731
    parts = getattr(written.algorithm, "parts", {"": written.algorithm})
    if not all(hasattr(getattr(part, "pure", part), "acting") for part in parts.values()):
        raise CheckpointError(f"{held.path}: agents.{agent.name}: {agent.kind} doesn't say which network acts (`acting`)")
    policy = find("Deployed")(written.algorithm)
    state = policy.init_state(env.num_envs)
    inputs = named_inputs(env.reset(), env.action_masks(), state)
    outputs = find("outputs_of")(policy, inputs)
    form = Form(inputs, tuple(outputs), _about(held, trainer, agent))
    draft = file.with_name(f".{file.stem}.part{file.suffix}")
    try:
        find(f"write_{options.format.name}")(written.algorithm, form, draft)
        proof = compare(env, agent.algorithm, find(f"open_{options.format.name}")(draft), state, options.rows)
        if not proof.holds:
            raise CheckpointError(f"{held.path}: agents.{agent.name}: the file would act otherwise ({proof.sentence()})")
        os.replace(draft, file)
        file.with_suffix(".json").write_text(form.text() + "\n", encoding="utf-8")
        beside = [file.with_suffix(".json").name]
        if file.suffix == ".onnx":
            shutil.copyfile(RUNNER, file.with_suffix(".py"))
            beside.append(file.with_suffix(".py").name)
    except OSError as error:
        raise checkpoints.storage_error(f"FILE={file}", error) from None
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    if agent.environment:
        gathered = "wrappers inside the environment have gathered statistics, which are not in the file: it takes what they give"
        print_out(f"agents.{agent.name}: {gathered}")
    print_out(proof.sentence(), f"saved in {file}, {file.stat().st_size:,} bytes; beside it {' and '.join(beside)}")
    return 0


def _about(held: Held, trainer: Any, agent: Any) -> dict[str, Any]:
    """Return what a reader of the file has to know, as plain data."""
    env = trainer.env
    about = {
        "agent": agent.name,
        "algorithm": agent.kind,
        "environment": {"id": env.name, **env.info()},
        "observation_space": describe_space(env.observation_space),
        "action_space": describe_space(env.action_space),
        "timestep": held.manifest.get("timestep"),
        "env_steps": held.manifest.get("env_steps"),
        "trained_with": held.manifest.get("versions"),
        "parameters_sha256": checkpoints.tree_sha256(checkpoints.learned(agent.snapshot()["policy"])),
    }
    return conceal_tree(about)
