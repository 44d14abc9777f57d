"""Composes the configuration with Hydra and checks it against the dataclasses, each of which stands beside its owner.

Hydra composes plain values; types, bounds and unknown keys are checked by `rltrain.checks`, so `+agents.ppo.typo=1` is
refused like `agents.ppo.typo=1`. Nothing here imports torch, jax or a simulator.
"""

import difflib
import importlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rltrain.agents.ppo.config import PPOConfig
from rltrain.backends.base import BackendConfig
from rltrain.checkpoints import CheckpointsConfig
from rltrain.checks import build, defaults, option, section
from rltrain.envs.gymnasium import GymnasiumConfig
from rltrain.errors import CheckpointError, ConfigError, masked, nearest
from rltrain.evaluation import EvaluationConfig
from rltrain.runs import RunConfig
from rltrain.seeding import MAX_SEED
from rltrain.tracking import TrackingConfig
from rltrain.trainers.config import TrainerConfig
from rltrain.trainers.scopes import check_scopes, even_scopes

GROUPS = ("trainer", "backend", "env", "agents", "agents_scope", "experiment")
FIXED_ON_RESUME = ("env", "agents", "agents_scope", "experiment")


@dataclass
class ScopeConfig:
    """How many copies each agent owns, in the order of agents."""

    sizes: list[int] | None = option(None, "copies per agent; null: as equal as possible, the remainder to the last", low=1)


@dataclass
class ScheduleConfig:
    """What schedules over time run over."""

    horizon: int | None = option(None, "timesteps; null: those of the run, and a longer resume keeps the first run's", low=1)


@dataclass
class Config:
    """A whole run, checked."""

    seed: int | None = option(None, "of every random stream; null draws one and prints it", low=0, high=MAX_SEED)
    total_env_steps: int | None = option(100_000, "steps of all copies together, rounded up to whole timesteps", low=1)
    plugins: list[str] = option([], "packages of your own to import first: their agents, environments and trainers are then choices")
    dry_run: bool = option(False, "show parameters, memory, timesteps and updates, train nothing")
    resume: str | None = option(None, "a run to go on with, or auto: run.dir if it holds one, else a fresh run")
    init_from: str | None = option(None, "a checkpoint whose weights to start from; everything else starts fresh")
    run: RunConfig = section(RunConfig, "where the run lands")
    tracking: TrackingConfig = section(TrackingConfig, "what is written while training")
    checkpoints: CheckpointsConfig = section(CheckpointsConfig, "when checkpoints are written")
    evaluation: EvaluationConfig = section(EvaluationConfig, "evaluations during training")
    schedule: ScheduleConfig = section(ScheduleConfig, "what schedules over time run over")
    agents_scope: ScopeConfig = section(ScopeConfig, "copies per agent")
    backend: BackendConfig = section(BackendConfig, "where the numbers are computed")
    # these are chosen by group, so their dataclasses depend on the choice
    trainer: Any = None
    env: Any = None
    agents: dict[str, Any] = field(default_factory=dict, metadata={"doc": "agents by name, in the order of scopes"})


@dataclass(frozen=True)
class Choice:
    """One option of a group: the class to make and the dataclass that holds its settings."""

    target: str  # may contain ${backend.name}
    cfg: type


_choices: dict[str, dict[str, Choice]] = {
    "trainer": {"sequential": Choice("rltrain.trainers.SequentialTrainer", TrainerConfig)},
    "backend": {"torch": Choice("rltrain.backends.torch.TorchBackend", BackendConfig)},
    "env": {"gymnasium": Choice("rltrain.envs.gymnasium.GymnasiumEnv", GymnasiumConfig)},
    "agents": {"ppo": Choice("rltrain.agents.ppo.${backend.name}.PPO", PPOConfig)},
}
_plugin_options: set[tuple[str, str]] = set()  # (group, name) of choices that no YAML file stands for
_plugin_packages: set[str] = set()


def register(group: str, name: str, target: str, cfg: type) -> None:
    """Make a class of one's own a choice: `rltrain train <group>=<name>`; for packages named in `plugins`.

    `target` is its dotted path (for agents, `${backend.name}` in it stands for torch or jax), `cfg` the dataclass of its settings.
    """
    if group not in _choices:
        raise ConfigError("group", group, f"unknown; {nearest(group, _choices)}")
    _choices[group][name] = Choice(target, cfg)
    _plugin_options.add((group, name))


def options(group: str) -> list[str]:
    """Return the options of a group."""
    from_files = [path.stem for directory in _directories() for path in (directory / group).glob("*.yaml")]
    return sorted({*from_files, *(name for g, name in _plugin_options if g == group)})


def load_plugins(names: Sequence[str]) -> None:
    """Import the packages named in `plugins`.

    Raises ConfigError for one that can't be imported.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    for name in names:
        if not re.fullmatch(r"[A-Za-z_][\w.]*", name):
            raise ConfigError("plugins", name, "is not the name of a Python package")
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever the package's own code raises
            reason = f"{type(error).__name__}: {error}"
            raise ConfigError("plugins", name, f"can't be imported ({reason}); is it installed or in this directory?") from error
        _plugin_packages.add(name)


# -- composing -----------------------------------------------------------------------------------------------------------


def conf_directory() -> Path:
    """Return where the YAML files are: in an installed package, or in the checkout."""
    package = Path(__file__).parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def compose(overrides: Sequence[str]) -> Any:
    """Return the DictConfig that Hydra makes of `overrides`, which are translated first; nothing is resolved.

    Raises ConfigError naming the key, the value and what is allowed.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    overrides = translate(overrides)
    store_schemas()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_directory()), version_base="1.3", job_name="rltrain"):
        return translating_errors(lambda: hydra_compose("config", overrides=[*search_path(), *overrides]), overrides)


def store_schemas() -> None:
    """Put the dataclasses' defaults where the YAML files' defaults lists find them."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    root = {name: value for name, value in defaults(Config).items() if name not in GROUPS}
    store.store(group="schema", name="root", node=root, package="_global_")
    store.store(group="schema/agents_scope", name="even", node=defaults(ScopeConfig))
    for group, choices in _choices.items():
        for name, choice in choices.items():
            node = {**defaults(choice.cfg)} if group == "backend" else {"_target_": choice.target, **defaults(choice.cfg)}
            store.store(group=f"schema/{group}", name=name, node=node)
            if (group, name) in _plugin_options:
                store.store(group=group, name=name, node=node, package=f"agents.{name}" if group == "agents" else None)


def search_path() -> list[str]:
    """Return the override that adds the plugins' own `conf` folders."""
    folders = [f"file://{directory}" for directory in _directories()[1:]]
    return [f"hydra.searchpath=[{','.join(folders)}]"] if folders else []


def _directories() -> list[Path]:
    files = [getattr(sys.modules[name], "__file__", None) for name in sorted(_plugin_packages)]
    plugins = [Path(file).parent / "conf" for file in files if file]
    return [conf_directory(), *(path for path in plugins if path.is_dir())]


def translate(overrides: Sequence[str]) -> list[str]:
    """Return overrides as Hydra wants them: `env=CartPole-v1`, `agents_scope=[2,6]`, `env.kwargs.x=1` as people write them.

    `total_env_steps` and `trainer.timesteps` displace one another. Raises ConfigError for both, and for what Hydra would let pass.
    """
    translated: list[str] = []
    given = dict(override.lstrip("+~").partition("=")[::2] for override in overrides)
    for override in overrides:
        key, has_value, value = override.partition("=")
        if not has_value and not key.startswith("~"):
            raise ConfigError(key, "", "an override is written key=value")
        if not re.match(r"[+~]*[A-Za-z_]", key):
            raise ConfigError(key, value, "an override is written key=value, and this is no key")
        if key.startswith("~") or (key.startswith("+") and "@" not in key and not key.lstrip("+").startswith("env.kwargs.")):
            bare = key.lstrip("+~")
            if key.startswith("~") or not _is_known_key(bare):
                remedy = "delete nothing: set another value" if key.startswith("~") else _unknown_key(bare)
                raise ConfigError(key, value, remedy)
        if key == "env" and value.startswith("["):
            raise ConfigError("env", value, f"name one environment; {nearest(value, options('env'))}, or an id like CartPole-v1")
        if key == "agents":
            names = [name.strip() for name in value.strip("[]").split(",")]
            repeated = {name for name in names if names.count(name) > 1}
            if repeated and value.startswith("["):
                name = sorted(repeated)[0]
                raise ConfigError("agents", value, f"{name} stands there twice; give it a second name: +agents@agents.{name}_2={name}")
        if key == "experiment" and value == "null":
            continue  # what it is anyway
        if key in GROUPS and re.fullmatch(r"[\d.+-]*|null|true|false", value, re.IGNORECASE):
            raise ConfigError(key, value, f"name a choice; {nearest(value, options(key))}")
        if key == "agents_scope" and value.startswith("["):
            translated.append(f"agents_scope.sizes={value}")
        elif key == "env" and _looks_like_id(value):
            translated += ["env=gymnasium", f"env.id={value}"]
        elif key.startswith("env.kwargs.") or key == "env.kwargs" and value.startswith("{"):
            translated.append(f"++{override}")
        else:
            translated.append(override)
    if {"total_env_steps", "trainer.timesteps"} <= given.keys():
        both = f"total_env_steps={given['total_env_steps']} is given too; give one of them"
        raise ConfigError("trainer.timesteps", given["trainer.timesteps"], both)
    if "total_env_steps" in given:
        translated.append("trainer.timesteps=null")
    elif "trainer.timesteps" in given:
        translated.append("total_env_steps=null")
    return translated


def _looks_like_id(value: str) -> bool:
    names = [name.strip("'\" ") for name in value.split(",")]
    return all(name not in options("env") and re.search(r"-v\d+$|[:/]", name) for name in names)


def _is_known_key(key: str) -> bool:
    node: Any = {**defaults(Config), "trainer": defaults(TrainerConfig), "env": defaults(GymnasiumConfig)}
    parts = key.split(".")
    if parts[0] == "agents" and len(parts) > 2:
        parts = parts[2:]
        node = {name: value for choice in _choices["agents"].values() for name, value in defaults(choice.cfg).items()}
    for part in parts:
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def _known_keys() -> list[str]:
    tree = {**defaults(Config), "trainer": defaults(TrainerConfig), "env": defaults(GymnasiumConfig)}
    tree |= {"agents": {name: defaults(choice.cfg) for name, choice in _choices["agents"].items()}, "agents_scope": defaults(ScopeConfig)}
    keys: list[str] = ["experiment"]

    def walk(node: Any, path: str) -> None:
        keys.append(path)
        if isinstance(node, dict):
            for name, value in node.items():
                walk(value, f"{path}.{name}" if path else name)

    walk(tree, "")
    return [key for key in keys if key]


def _unknown_key(key: str) -> str:
    parent = key.rpartition(".")[0]
    known = _known_keys()
    siblings = [name for name in known if name.rpartition(".")[0] == parent]
    matches = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    hint = f"did you mean {matches[0]!r}? " if matches else ""
    return f"no such key; {hint}" + (f"{parent or 'top level'} has {', '.join(name.rpartition('.')[2] for name in siblings)}" if siblings else "")


def translating_errors(call: Any, overrides: Sequence[str]) -> Any:
    """Return `call()`; Hydra's and OmegaConf's exceptions become a ConfigError."""
    from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    values = dict(override.lstrip("+").partition("=")[::2] for override in overrides)
    try:
        return call()
    except MissingConfigException as error:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        known = options(group) if group in GROUPS else list(error.options or [])
        more = ", or an id like CartPole-v1" if group == "env" else ""
        raise ConfigError(group or "config", name, f"no such choice; {nearest(name, known)}{more}") from None
    except OverrideParseException as error:
        key, _, value = str(error.override).partition("=")
        raise ConfigError(key, value, "can't be read; quote values with = , or brackets, as in 'key=[a,b]'") from None
    except (ConfigCompositionException, HydraException, OmegaConfBaseException) as error:
        text = f"{error} {error.__cause__ or ''}"
        found = re.search(r"Could not override '([^']+)'", text)
        if found:
            key = found.group(1)
            group = key.split("@")[0]
            if "No match in the defaults list" in text:
                message = f"no such group; {nearest(group, GROUPS)}"
            else:
                message = _unknown_key(key)
            raise ConfigError(key, values.get(key, "..."), message) from None
        first = text.strip().splitlines()[0]
        named = str(getattr(error, "full_key", None) or "")
        key = named or next((key for key in values if key and key in text), "config")
        raise ConfigError(key, values.get(key, "..."), first) from None
    except ValueError as error:  # Hydra about a group that is given a number
        raise ConfigError("config", " ".join(overrides), str(error).splitlines()[0]) from None


# -- checking ------------------------------------------------------------------------------------------------------------


def check(cfg: Any) -> Config:
    """Return the checked configuration of a DictConfig or plain mapping, interpolations resolved.

    Raises ConfigError. Nothing is created, no simulator and no backend imported.
    """
    from omegaconf import OmegaConf

    cfg = OmegaConf.create(cfg)
    given = _leaves(OmegaConf.to_container(cfg, resolve=False))
    plain = translating_errors(lambda: OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True), given)
    plain.pop("hydra", None)
    parts = {group: plain.pop(group, None) for group in ("trainer", "env", "agents")}
    config = build(Config, plain)
    config.trainer = _check_choice("trainer", parts["trainer"], "trainer", config)
    config.env = _check_choice("env", parts["env"], "env", config)
    if not isinstance(parts["agents"], dict) or not parts["agents"]:
        raise ConfigError("agents", parts["agents"] or [], f"name at least one agent; {nearest('', options('agents'))}")
    for name, node in parts["agents"].items():
        if not re.fullmatch(r"[A-Za-z0-9][\w-]*", str(name)):
            raise ConfigError("agents", name, "an agent's name is letters, digits, - and _")
        config.agents[name] = _check_choice("agents", node, f"agents.{name}", config)
    _check_together(config)
    return config


def _leaves(node: Any, path: str = "") -> list[str]:
    """Return key=value of every leaf."""
    if not isinstance(node, dict):
        return [f"{path}={node}"]
    return [leaf for name, value in node.items() for leaf in _leaves(value, f"{path}.{name}" if path else str(name))]


@dataclass
class Checked:
    """A choice whose settings were checked: the class to make and what to give it."""

    target: str
    cfg: Any


def _check_choice(group: str, node: Any, key: str, config: Config) -> Checked:
    if not isinstance(node, dict) or "_target_" not in node:
        name = key.rpartition(".")[2]
        there = f"{name!r} is set but not chosen: choose it, or leave its settings out; " if isinstance(node, dict) else ""
        raise ConfigError(key, node, f"nothing is chosen under that name; {there}{nearest(name, options(group))}")
    target = str(node["_target_"])
    for choice in _choices[group].values():
        if choice.target.replace("${backend.name}", config.backend.name) == target:
            return Checked(target, build(choice.cfg, {k: v for k, v in node.items() if k != "_target_"}, key))
    raise ConfigError(f"{key}._target_", target, "is not a registered class; choose by group, or register it in a package named in plugins")


def _check_together(config: Config) -> None:
    """Check what concerns more than one field."""
    trainer, copies = config.trainer.cfg, config.env.cfg.num_envs
    if trainer.timesteps is not None and config.total_env_steps is not None:
        raise ConfigError("trainer.timesteps", trainer.timesteps, f"total_env_steps={config.total_env_steps} is given too; give one of them")
    if trainer.timesteps is None and config.total_env_steps is None:
        raise ConfigError("total_env_steps", None, "say how long to train: total_env_steps or trainer.timesteps")
    count = len(config.agents)
    if copies < count:
        raise ConfigError("env.num_envs", copies, f"{count} agents need a copy each; give at least {count}")
    sizes = scopes(config)
    for (name, agent), size in zip(config.agents.items(), sizes, strict=True):
        if hasattr(agent.cfg, "check_copies"):
            agent.cfg.check_copies(size, f"agents.{name}")


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


# -- saved configurations ------------------------------------------------------------------------------------------------


def to_yaml(cfg: Any, *, mask: bool = False) -> str:
    """Return a DictConfig as YAML, unresolved; with `mask`, what looks like a secret is hidden."""
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(cfg, resolve=False)
    return OmegaConf.to_yaml(OmegaConf.create(masked(plain) if mask else plain))


def from_yaml(text: str, where: str, *, resolvers: Sequence[str] = ()) -> Any:
    """Return a saved configuration as DictConfig. It is data: references resolve, resolver calls do not.

    Raises CheckpointError for a resolver call other than `resolvers`, or for what isn't a configuration.
    """
    import yaml
    from omegaconf import OmegaConf

    try:
        plain = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CheckpointError(f"{where}: not YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(plain, dict):
        raise CheckpointError(f"{where}: not a configuration of rltrain")
    for name in _resolver_calls(plain):
        if name not in resolvers:
            raise CheckpointError(f"{where}: calls the resolver {name!r}; a saved configuration may only refer to its own keys")
    return OmegaConf.create(plain)


def _resolver_calls(node: Any) -> list[str]:
    """Return the names of the resolvers that a tree calls; one that is itself put together by `${...}` is named as it stands."""
    if isinstance(node, dict):
        return [name for pair in node.items() for item in pair for name in _resolver_calls(item)]
    if isinstance(node, list):
        return [name for item in node for name in _resolver_calls(item)]
    if not isinstance(node, str):
        return []
    names = []
    for start in re.finditer(r"\$\{", node):
        depth = 0
        for at in range(start.end(), len(node)):
            depth += {"{": 1, "}": -1}.get(node[at], 0)
            if depth < 0:
                break
            if node[at] == ":" and depth == 0:
                names.append(node[start.end() : at].strip())
                break
    return names


def apply_overrides(cfg: Any, overrides: Sequence[str], *, allowed_groups: Sequence[str]) -> Any:
    """Return a saved configuration with overrides applied: values are set, groups replaced by a freshly composed node."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    for override in translate(overrides):
        parsed = translating_errors(lambda text=override: OverridesParser.create().parse_override(text), [override])
        key = parsed.key_or_group
        if key in GROUPS:
            if key not in allowed_groups:
                raise ConfigError(key, parsed.value(), f"can't be changed here; groups that can: {', '.join(allowed_groups)}")
            OmegaConf.update(cfg, key, compose([override])[key], merge=False, force_add=True)
        elif not _is_known_key(key) and not key.startswith("env.kwargs."):
            raise ConfigError(key, parsed.value(), _unknown_key(key))
        else:
            OmegaConf.update(cfg, key, parsed.value(), merge=False, force_add=True)
    return cfg
