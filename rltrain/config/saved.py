"""Configurations that were saved: data, of which nothing is executed."""

from collections.abc import Sequence
from typing import Any

from rltrain.config.compose import compose, is_known_key, is_open, translate, translating_errors, unknown_key
from rltrain.config.plain import check_references, load_plain
from rltrain.config.resolvers import watch
from rltrain.config.schema import GROUPS
from rltrain.errors import CheckpointError, ConfigError, masked


def to_yaml(cfg: Any, *, mask: bool = False) -> str:
    """Return a DictConfig as YAML, unresolved; with `mask`, what looks like a secret is hidden."""
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(cfg, resolve=False)
    return OmegaConf.to_yaml(OmegaConf.create(masked(plain) if mask else plain))


def from_yaml(text: str, where: str, *, resolvers: Sequence[str] = ()) -> Any:
    """Return a saved configuration as DictConfig. It is data: references resolve, resolver calls do not.

    Raises CheckpointError for a resolver call other than `resolvers`, or for what isn't a configuration.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    plain = load_plain(text, where)
    if not isinstance(plain, dict):
        raise CheckpointError(f"{where}: not a configuration of rltrain")
    check_references(plain, where, resolvers=resolvers)
    _read_images_as_then(plain)
    watch()
    try:
        return OmegaConf.create(plain)
    except (OmegaConfBaseException, ValueError, RecursionError) as error:  # a date, bytes, a reference that can't be read
        raise CheckpointError(f"{where}: not a configuration of rltrain ({str(error).splitlines()[0]})") from None


def _read_images_as_then(plain: dict[str, Any]) -> None:
    """Let networks that were saved before any read images go on taking pixels for numbers."""
    agents = plain.get("agents")
    for agent in agents.values() if isinstance(agents, dict) else ():
        network = agent.get("network") if isinstance(agent, dict) else None
        if isinstance(network, dict) and "cnn" not in network and str(agent.get("_target_")).startswith("rltrain.agents."):
            network["cnn"] = "none"


def plugins_of(cfg: Any) -> Any:
    """Return a saved configuration's `plugins` as plain data."""
    from omegaconf import OmegaConf

    plugins = cfg.get("plugins")
    return (OmegaConf.to_container(plugins) if OmegaConf.is_config(plugins) else plugins) or []


def set_value(cfg: Any, key: str, value: Any) -> None:
    """Set a dotted key of a configuration, also where its section is missing."""
    from omegaconf import OmegaConf

    OmegaConf.update(cfg, key, value, merge=False, force_add=True)


def apply_overrides(cfg: Any, overrides: Sequence[str], *, allowed_groups: Sequence[str]) -> Any:
    """Return a saved configuration with overrides applied: values are set, groups replaced by a freshly composed node.

    A group's new choice keeps the values of the settings that the old one has too: another trainer trains as long.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    translated = translate(overrides)
    for override in sorted(translated, key=lambda override: override.partition("=")[0] not in GROUPS):  # groups first
        parsed = translating_errors(lambda text=override: OverridesParser.create().parse_overrides([text])[0], [override])
        key = parsed.key_or_group
        if parsed.is_sweep_override():
            raise ConfigError(key, override.partition("=")[2], "is several values; give one")
        if key in GROUPS:
            if key not in allowed_groups:
                given = [value for name, _, value in (given.partition("=") for given in overrides) if name == key]
                value = given[-1] if given else parsed.value()
                raise ConfigError(key, value, f"can't be changed here; groups that can: {', '.join(allowed_groups)}")
            node = compose([override])[key]
            chosen = [part.get("_target_", part.get("name")) for part in (node, cfg.get(key) or {})]
            if chosen[0] is None or chosen[0] != chosen[1]:
                before: Any = OmegaConf.to_container(cfg[key]) if cfg.get(key) else {}
                kept = {name: value for name, value in before.items() if name in node and name not in ("_target_", "name")}
                set_value(cfg, key, OmegaConf.merge(node, kept))  # else it is chosen already, with the settings that it has
        elif not is_known_key(key, cfg) and not is_open(key):
            raise ConfigError(key, parsed.value(), unknown_key(key))
        else:
            set_value(cfg, key, parsed.value())
    return cfg
