"""Composes plain values with Hydra; overrides are taken as people write them, errors told as rltrain tells them."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rltrain.checks import defaults
from rltrain.config.resolvers import watch
from rltrain.config.schema import CHOICES, GROUPS, Config, ScopeConfig, conf_directory, directories, options, plugin_options
from rltrain.errors import ConfigError, closest, nearest

PLUGINS = (
    "hydra-joblib-launcher",
    "hydra-submitit-launcher",
    "hydra-ray-launcher",
    "hydra-rq-launcher",
    "hydra-optuna-sweeper",
    "hydra-ax-sweeper",
    "hydra-nevergrad-sweeper",
)


def compose(overrides: Sequence[str]) -> Any:
    """Return the DictConfig that Hydra makes of `overrides`, which are translated first; nothing is resolved.

    Raises ConfigError naming the key, the value and what is allowed.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    overrides = translate(overrides)
    _refuse_sweeps(overrides)
    store_schemas()
    watch()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_directory()), version_base="1.3", job_name="rltrain"):
        return translating_errors(lambda: hydra_compose("config", overrides=[*search_path(), *overrides]), overrides)


def _refuse_sweeps(overrides: Sequence[str]) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    for parsed in translating_errors(lambda: parser.parse_overrides(list(overrides)), overrides):
        if parsed.is_sweep_override():
            key, _, value = str(parsed.input_line).partition("=")
            raise ConfigError(key, value, "several values are a sweep: add -m, or give one")


def store_schemas() -> None:
    """Put the dataclasses' defaults where the YAML files' defaults lists find them."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    root = {name: value for name, value in defaults(Config).items() if name not in GROUPS}
    store.store(group="schema", name="root", node=root, package="_global_")
    store.store(group="schema/agents_scope", name="even", node=defaults(ScopeConfig))
    for group, choices in CHOICES.items():
        for name, choice in choices.items():
            node: dict[str, Any] = {} if group == "backend" else {"_target_": choice.target}
            node |= {**({"count": 1} if group == "agents" else {}), **defaults(choice.cfg)}
            node |= {"name": name} if group == "backend" else {}
            store.store(group=f"schema/{group}", name=name, node=node)
            if (group, name) in plugin_options:
                store.store(group=group, name=name, node=node, package=f"agents.{name}" if group == "agents" else None)


def search_path() -> list[str]:
    """Return the override that adds the plugins' own `conf` folders."""
    folders = [f"file://{directory}" for directory in directories()[1:]]
    return [f"hydra.searchpath=[{','.join(folders)}]"] if folders else []


def translate(overrides: Sequence[str]) -> list[str]:
    """Return overrides as Hydra wants them: `env=CartPole-v1`, `agents_scope=[2,6]`, `env.kwargs.x=1` as people write them.

    `total_env_steps` and `trainer.timesteps` displace one another.
    Raises ConfigError for both of them at once, and for what Hydra would let pass.
    """
    translated: list[str] = []
    given = dict(override.lstrip("+~").partition("=")[::2] for override in overrides)
    chosen = [i for i, override in enumerate(overrides) if override.startswith("agents=")]
    for i, override in enumerate(overrides):
        if i in chosen[:-1]:
            continue  # the last one counts, as of any key; named agents would add up
        key, has_value, value = override.partition("=")
        if value != plain_numbers(value):
            value = plain_numbers(value)
            override = f"{key}={value}"
        if not has_value and not key.startswith("~"):
            raise ConfigError(key, "", "an override is written key=value")
        if not re.match(r"[+~]*[A-Za-z_]", key):
            raise ConfigError(key, value, "an override is written key=value, and this is no key")
        if key.startswith("~") or (key.startswith("+") and "@" not in key and not is_open(key.lstrip("+"))):
            bare = key.lstrip("+~")
            if key.startswith("~") or not is_known_key(bare):
                remedy = "delete nothing: set another value" if key.startswith("~") else unknown_key(bare)
                raise ConfigError(key, value, remedy)
        if key == "env" and value.startswith("["):
            raise ConfigError("env", value, f"name one environment; {nearest(value, options('env'))}, or an id like CartPole-v1")
        if key == "agents":
            names = [name.strip() for name in value.strip("[]").split(",")]
            repeated = {name for name in names if names.count(name) > 1}
            if repeated and value.startswith("["):
                name = sorted(repeated)[0]
                raise ConfigError(
                    "agents",
                    value,
                    f"{name} stands there twice; give each a name, agents=[one:{name},two:{name}], or agents.{name}.count=2",
                )
            if ":" in value and "${" not in value:
                translated += _named_agents(value)
                continue
        if key == "experiment" and value == "null":
            continue  # what it is anyway
        if key in GROUPS and re.fullmatch(r"[\d.+-]*|null|true|false", value, re.IGNORECASE):
            raise ConfigError(key, value, f"name a choice; {nearest(value, options(key))}")
        if key == "agents_scope" and "[" in value:
            sizes = re.sub(r"\beven\b", "null", value)  # a sweep may have both
            translated.append(f"agents_scope.sizes={sizes}")
        elif key == "env" and _looks_like_id(value):
            translated += ["env=gymnasium", f"env.id={value}"]
        elif is_open(key) or (is_open(f"{key}.") and value.startswith("{")):
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


def plain_number(value: str) -> str:
    """Return a whole number without an exponent, anything else as it is: 1e6 is how people write a million steps."""
    whole = re.fullmatch(r"\d+(\.\d+)?[eE]\+?\d+", value) and float(value) < 1e15 and float(value).is_integer()
    return str(int(float(value))) if whole else value


def plain_numbers(value: str) -> str:
    """Return `plain_number` of a value, or of each that a sweep has: 1e4,2e4 and range(1e4,3e4,1e4)."""
    if value[:1] in "[{" or re.search(r"['\"\\$]", value):
        return value
    return re.sub(r"(?<![^,( ])[\d.]+[eE]\+?\d+(?![^,) ])", lambda number: plain_number(number[0]), value)


def _named_agents(value: str) -> list[str]:
    """Return Hydra's way to write agents=[name:choice, ...]: none by the list, then each under its name."""
    value = value.replace("\\:", ":")  # as a sweep writes it
    pairs = [part.strip("'\" ").rpartition(":") for part in value.removeprefix("[").removesuffix("]").split(",")]
    named = [(name.strip() if colon else choice, choice.strip()) for name, colon, choice in pairs]
    names = [name for name, _ in named]
    bare = "," in value and not value.startswith("[")  # which would be a sweep
    if bare or not all(re.fullmatch(r"[A-Za-z][\w-]*|\d+", word) for pair in named for word in pair):
        raise ConfigError("agents", value, "can't be read; write agents=[name:choice,...], as in agents=[fast:ppo,slow:ppo]")
    known = options("agents")
    for choice in (choice for _, choice in named if choice not in known):
        raise ConfigError("agents", choice, f"no such choice; {nearest(choice, known)}")
    if len(set(names)) < len(names):
        raise ConfigError("agents", value, "two agents have the same name; give each its own")
    return ["agents=[]", *(f"+agents@agents.{name}={choice}" for name, choice in named)]


def _looks_like_id(value: str) -> bool:
    names = [name.strip("'\" ") for name in value.split(",")]
    return all(name not in options("env") and re.search(r"-v\d+$|[:/]", name) for name in names)


def is_open(key: str) -> bool:
    """Tell whether a key lies in one of the mappings whose names are the user's own."""
    return re.match(r"env\.kwargs\.|agents\.[\w-]+\.(groups|overrides|network\.encoder_kwargs)\.", key) is not None


def is_known_key(key: str, cfg: Any = None) -> bool:
    """Tell whether a configuration can have this dotted key; a choice of one's own in `cfg` is taken at its word."""
    section = key.split(".")[0]
    if section in ("env", "trainer") and cfg is not None and not str(cfg[section].get("_target_")).startswith("rltrain."):
        return True  # `check` asks its dataclass
    parts = key.split(".")
    if parts[0] == "agents" and len(parts) > 2:
        agents = [{"count": 1, **defaults(choice.cfg)} for choice in CHOICES["agents"].values()]
        return any(_has(agent, parts[2:]) for agent in agents)
    return _has({**defaults(Config), "trainer": _all_defaults("trainer"), "env": _all_defaults("env")}, parts)


def _has(node: Any, parts: Sequence[str]) -> bool:
    for part in parts:
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def _all_defaults(group: str) -> dict[str, Any]:
    """Return the settings of every choice of a group together."""
    return {name: value for choice in CHOICES[group].values() for name, value in defaults(choice.cfg).items()}


def _known_keys(named: Mapping[str, str]) -> list[str]:
    tree = {**defaults(Config), "trainer": _all_defaults("trainer"), "env": _all_defaults("env")}
    agents = named or {name: name for name in CHOICES["agents"]}
    known = {name: CHOICES["agents"][choice].cfg for name, choice in agents.items() if choice in CHOICES["agents"]}
    tree |= {
        "agents": {name: {"count": 1, **defaults(cfg)} for name, cfg in known.items()},
        "agents_scope": defaults(ScopeConfig),
    }
    keys: list[str] = ["experiment"]

    def walk(node: Any, path: str) -> None:
        keys.append(path)
        if isinstance(node, dict):
            for name, value in node.items():
                walk(value, f"{path}.{name}" if path else name)

    walk(tree, "")
    return [key for key in keys if key]


def unknown_key(key: str, overrides: Sequence[str] = ()) -> str:
    """Say that there is no such key, what may have been meant, and what its section has; `overrides` may name agents."""
    known = _known_keys(dict(re.findall(r"^\+agents@agents\.([\w-]+)=([\w-]+)$", "\n".join(overrides), re.MULTILINE)))
    if key.startswith("hydra."):
        return "no such key of Hydra's with what is chosen; hydra/launcher=NAME chooses a launcher with its own hydra.launcher.*"
    parent = key.rpartition(".")[0]
    while parent and parent not in known:  # the nearest section that there is
        parent = parent.rpartition(".")[0]
    siblings = [name for name in known if name.rpartition(".")[0] == parent]
    meant = _meant(key, siblings, known)
    hint = f"did you mean {meant!r}? " if meant else ""
    return f"no such key; {hint}{parent or 'top level'} has {', '.join(name.rpartition('.')[2] for name in siblings)}"


def _meant(key: str, siblings: Sequence[str], known: Sequence[str]) -> str | None:
    """Return the key that was probably meant, or None: one of the same section, by its initials too, before others."""
    leaf = key.rpartition(".")[2]
    others = sorted(
        (name for name in known if not key.startswith(f"{name}.")), key=lambda name: not name.startswith("agents.ppo.")
    )
    for names in (siblings, others):
        short = {name: name.rpartition(".")[2] for name in names}
        for name, word in short.items():
            if leaf in (word, "".join(part[0] for part in word.split("_"))) and len(leaf) > 1:
                return name
        close = difflib.get_close_matches(key, short, n=1, cutoff=0.8 if names is siblings else 0.6)
        if close:
            return close[0]
    return None


def _nearest_id(name: str) -> str | None:
    """Return the id of Gymnasium's that a name is most like, or None."""
    from gymnasium.envs.registration import registry

    return closest(name, [one for one in registry if "/" not in one])


def _setting_of_another(group: str, name: str) -> str:
    """Say which choices of a group have a setting that the chosen one hasn't."""
    there = [f"{group}={choice}" for choice, made in CHOICES[group].items() if name.split(".")[0] in defaults(made.cfg)]
    return f"is a setting of {' and '.join(there)}; choose that, or leave it out"


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
        environment = _nearest_id(name) if group == "env" and closest(name, known) is None else None
        if environment:
            raise ConfigError(
                "env", name, f"no such environment; did you mean {environment!r}? rltrain list envs shows all"
            ) from None
        if group in ("hydra/launcher", "hydra/sweeper"):
            plugin = f"hydra-{name.partition('_')[0]}-{group.removeprefix('hydra/')}"
            more = f"; pip install {plugin} brings it" if plugin in PLUGINS else "; others come with plug-ins of Hydra"
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
            message = unknown_key(key, overrides)
            if "No match in the defaults list" in text:
                message = f"no such group; {nearest(group, GROUPS)}"
            elif re.search(r"full_key: agents(\.[\w-]+)?$", text, re.MULTILINE) and is_known_key(key):
                name = key.split(".")[1]
                choose = f"agents={name}" if name in CHOICES["agents"] else f"agents=[{name}:ppo]"
                message = f"no agent of that name is chosen; choose it, as in {choose}, or set one that is"
            elif key.split(".")[0] in ("trainer", "env") and is_known_key(key):
                message = _setting_of_another(*key.split(".", 1))
            raise ConfigError(key, values.get(key, "..."), message) from None
        first = text.strip().splitlines()[0]
        named = str(getattr(error, "full_key", None) or "")
        key = named or next((key for key in values if key and key in text), "config")
        raise ConfigError(key, values.get(key, "..."), first) from None
    except ValueError as error:  # Hydra about a group that is given a number
        raise ConfigError("config", " ".join(overrides), str(error).splitlines()[0]) from None
