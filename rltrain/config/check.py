"""Checks a composed configuration against the dataclasses, so that every later part may trust it."""

import re
from dataclasses import dataclass, replace
from typing import Any

from rltrain.backends.base import check_countable
from rltrain.checks import Spelled, build, changed_fixed, option
from rltrain.config.compose import translating_errors
from rltrain.config.resolvers import watch
from rltrain.config.schema import CHOICES, Config, options
from rltrain.errors import ConfigError, nearest, shown
from rltrain.trainers.config import StepConfig
from rltrain.trainers.scopes import check_scopes, even_scopes


@dataclass
class Checked:
    """A choice whose settings were checked: the class to make and what to give it."""

    target: str
    cfg: Any
    key: str  # where its settings stand


@dataclass
class RepeatConfig:
    """What an agent's settings have besides those of its algorithm."""

    count: int = option(1, "agents with these settings; more than one are called NAME_0, NAME_1 ...", low=1, high=1024)


def check(cfg: Any, *, training: bool = True) -> Config:
    """Return the checked configuration of a DictConfig or plain mapping, interpolations resolved.

    Without `training`, what only learning needs isn't checked.
    Raises ConfigError. Nothing is created, no simulator and no backend imported.
    """
    from omegaconf import OmegaConf

    cfg = OmegaConf.create(cfg)
    watch()
    written = OmegaConf.to_container(cfg, resolve=False)
    plain = translating_errors(lambda: OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True), _leaves(written))
    plain = _spelled(plain, written)
    plain.pop("hydra", None)
    if "trust" in plain:
        raise ConfigError("trust", plain["trust"], "is read from the command line alone; take it out of the file")
    parts = {group: plain.pop(group, None) for group in ("trainer", "env", "agents")}
    config = build(Config, plain)
    config.trainer = _check_choice("trainer", parts["trainer"], "trainer", config)
    config.env = _check_choice("env", parts["env"], "env", config)
    if not isinstance(parts["agents"], dict) or not parts["agents"]:
        raise ConfigError("agents", parts["agents"] or [], f"name at least one agent; {nearest('', options('agents'))}")
    for name, node in parts["agents"].items():
        if not re.fullmatch(r"[A-Za-z0-9][\w-]{0,63}", str(name)):
            raise ConfigError("agents", name, "an agent's name is letters, digits, - and _, at most 64 of them")
        if re.fullmatch(r"best(-.*)?|latest|checkpoints", str(name)):
            raise ConfigError("agents", name, "is what a run calls its checkpoints; give the agent another name")
        for one, checked in _repeat(str(name), node, config).items():
            if one in config.agents or (one != name and one in parts["agents"]):
                raise ConfigError(f"agents.{name}.count", node["count"], f"makes an agent {one}, which is there already")
            config.agents[one] = checked
    _check_together(config, training)
    return config


def _repeat(name: str, node: Any, config: Config) -> dict[str, Checked]:
    """Return the agents that one entry stands for, by name."""
    count = 1
    if isinstance(node, dict):
        count = build(RepeatConfig, {"count": node.get("count", 1)}, f"agents.{name}").count
        node = {option: value for option, value in node.items() if option != "count"}
    names = [name] if count == 1 else [f"{name}_{i}" for i in range(count)]
    return {one: _check_choice("agents", node, f"agents.{name}", config) for one in names}


def _spelled(value: Any, written: Any) -> Any:
    """Return resolved data in which text that `${...}` gave may spell a number."""
    if isinstance(value, dict) and isinstance(written, dict):
        return {key: _spelled(item, written[key]) for key, item in value.items()}
    if isinstance(value, list) and isinstance(written, list):
        return [_spelled(item, was) for item, was in zip(value, written, strict=True)]
    return Spelled(value) if type(value) is str and isinstance(written, str) and "${" in written else value


def _leaves(node: Any, path: str = "") -> list[str]:
    """Return key=value of every leaf."""
    if not isinstance(node, dict):
        return [f"{path}={node}"]
    return [leaf for name, value in node.items() for leaf in _leaves(value, f"{path}.{name}" if path else str(name))]


def _check_choice(group: str, node: Any, key: str, config: Config) -> Checked:
    if not isinstance(node, dict) or "_target_" not in node:
        name = key.rpartition(".")[2]
        if isinstance(node, dict) and name in options(group):  # a preset's settings of another agent than the one chosen
            keys = ", ".join(f"{key}.{setting}" for setting in node)
            raise ConfigError(group, name, f"is not chosen, but {keys} are set: choose it, or leave them out")
        there = f"{name!r} is set but not chosen: choose it, or leave its settings out; " if isinstance(node, dict) else ""
        raise ConfigError(key, node, f"nothing is chosen under that name; {there}{nearest(name, options(group))}")
    target = str(node["_target_"])
    for choice in CHOICES[group].values():
        if choice.target.replace("${backend.name}", config.backend.name) == target:
            return Checked(target, build(choice.cfg, {k: v for k, v in node.items() if k != "_target_"}, key), key)
    raise ConfigError(
        f"{key}._target_", target, "is not a registered class; choose by group, or register it in a package named in plugins"
    )


def _check_together(config: Config, training: bool) -> None:
    """Check what concerns more than one field."""
    if config.init_from_partial and config.init_from is None:
        raise ConfigError("init_from_partial", True, "there is nothing to take from; give init_from=CHECKPOINT, or leave it out")
    trainer, copies = config.trainer.cfg, config.env.cfg.num_envs
    if trainer.timesteps is not None and config.total_env_steps is not None:
        raise ConfigError(
            "trainer.timesteps", trainer.timesteps, f"total_env_steps={config.total_env_steps} is given too; give one of them"
        )
    if trainer.timesteps is None and config.total_env_steps is None:
        raise ConfigError("total_env_steps", None, "say how long to train: total_env_steps or trainer.timesteps")
    if trainer.timesteps is not None:
        check_countable(config.backend.name, "trainer.timesteps", trainer.timesteps)
    else:
        check_countable(config.backend.name, "total_env_steps", config.total_env_steps or 0, copies=copies)
    check_countable(config.backend.name, "schedule.horizon", config.schedule.horizon or 0)
    callback = trainer.callback if isinstance(trainer, StepConfig) else None
    if callback and not any(f"{callback.partition(':')[0]}.".startswith(f"{package}.") for package in config.plugins):
        allowed = ", ".join(config.plugins) or "none are given"
        raise ConfigError(
            "trainer.callback", callback, f"lies outside the packages named in plugins ({allowed}); name its own there"
        )
    count = len(config.agents)
    if copies < count:
        raise ConfigError("env.num_envs", copies, f"{count} agents need a copy each; give at least {count}")
    sizes = scopes(config)
    for name, agent in config.agents.items() if training else ():
        if hasattr(agent.cfg, "check_copies"):
            _check_copies(config, name, dict(zip(config.agents, sizes, strict=True)))


def _check_copies(config: Config, name: str, sizes: dict[str, int]) -> None:
    """Check an agent's settings against its copies, or against those of all who share the memory it learns from."""
    agent = config.agents[name]
    owners = {other: getattr(checked.cfg, "memory_of", None) or other for other, checked in config.agents.items()}
    owner = owners[name]
    sharing = [other for other in owners if owners[other] == owner]
    if len(sharing) == 1 or not hasattr(config.agents.get(owner, agent).cfg, "memory_of"):
        agent.cfg.check_copies(sizes[name], agent.key)
        return
    theirs = config.agents.get(owner, agent)
    cfg = replace(agent.cfg, memory_size=theirs.cfg.memory_size)
    cfg.check_copies(sum(sizes[other] for other in sharing), agent.key, theirs.key)


def check_resumable(old: Config, new: Config) -> None:
    """Raise ConfigError if a setting that belongs to a run from start to end differs."""
    if list(old.agents) != list(new.agents):
        names = (", ".join(agents) for agents in (new.agents, old.agents))
        raise ConfigError("agents", next(names), f"the run was started with {next(names)}, which a resume can't change")
    pairs = [("", replace(old, env=None), replace(new, env=None)), ("env", old.env.cfg, new.env.cfg)]
    pairs += [(f"agents.{name}", old.agents[name].cfg, new.agents[name].cfg) for name in old.agents if name in new.agents]
    for key, before, now in pairs:
        changed = changed_fixed(before, now, key)
        if changed is not None:
            raise ConfigError(
                changed[0], changed[1], f"the run was started with {shown(changed[2])}, which a resume can't change"
            )


def scopes(config: Config) -> list[int]:
    """Return the copies per agent."""
    count, copies = len(config.agents), config.env.cfg.num_envs
    if config.agents_scope.sizes is None:
        return even_scopes(copies, count)
    check_scopes(config.agents_scope.sizes, count, copies)
    return config.agents_scope.sizes


def timesteps(config: Config) -> int:
    """Return the turns of the loop: `trainer.timesteps`, or `total_env_steps` rounded up to whole turns of all copies."""
    if config.trainer.cfg.timesteps is not None:
        return int(config.trainer.cfg.timesteps)
    return -(-int(config.total_env_steps or 0) // int(config.env.cfg.num_envs))
