"""Every setting is listed with its default, what it takes and its sentence."""

import subprocess
import sys

import pytest

from rltrain.checks import build
from rltrain.config import compose
from rltrain.config.reference import entries
from rltrain.config.schema import CHOICES


def by_key(**which):
    return {entry.key: entry for entry in entries(**which)}


def leaves(node, key=""):
    if isinstance(node, dict) and node:
        return {
            leaf: value for name, part in node.items() for leaf, value in leaves(part, f"{key}.{name}" if key else name).items()
        }
    return {key: node}


def test_an_entry_says_default_range_sentence_and_where_it_belongs():
    entry = by_key()["agents.ppo.learning_rate"]
    assert (entry.default, entry.allowed) == (2.5e-4, "a number > 0 and <= 1")
    assert (entry.sentence, entry.group, entry.choice, entry.section) == (
        "the optimiser's step size",
        "agents",
        "ppo",
        "OnPolicyConfig",
    )
    assert by_key()["agents.sac.gradient_steps"].allowed == "a whole number >= 1 and <= 10000000 or auto"
    assert by_key(group="backend", choice="jax")["backend.name"].default == "jax"
    assert by_key()["agents.ppo.network.policy_sizes"].fixed and not by_key()["agents.ppo.epochs"].fixed


def test_a_group_says_its_choices_and_its_default():
    trainer = by_key()["trainer"]
    assert (trainer.default, trainer.allowed) == ("sequential", "one of parallel, sequential, step")
    assert by_key()["experiment"].default is None


@pytest.mark.parametrize(
    "overrides", [[], ["agents=sac", "trainer=parallel", "backend=jax"], ["agents=mappo", "env=jaxmarl", "trainer=step"]]
)
def test_every_key_of_a_composed_configuration_has_an_entry_with_its_default(overrides):
    from omegaconf import OmegaConf

    cfg = OmegaConf.to_container(compose(overrides), resolve=False)
    cfg.pop("hydra", None)
    agent = next(iter(cfg["agents"]))
    chosen = {"agents": agent, "trainer": dict(part.split("=") for part in overrides).get("trainer", "sequential")}
    chosen["env"] = dict(part.split("=") for part in overrides).get("env", "gymnasium")
    chosen["backend"] = cfg["backend"]["name"]
    listed = {entry.key: entry.default for entry in entries() if entry.group is None}
    for group, choice in chosen.items():
        listed |= {key: entry.default for key, entry in by_key(group=group, choice=choice).items()}
    shown = {key: value for key, value in leaves(cfg).items() if not key.endswith("_target_")}
    assert len(shown) > 50
    assert {key: listed.get(key, "not listed") for key in shown} == shown


def test_defaults_are_what_the_dataclasses_take():
    for group, choices in CHOICES.items():
        for name, choice in choices.items():
            found = by_key(group=group, choice=name)
            assert len(found) > 3
            build(choice.cfg, None, group)
            assert all(entry.sentence and entry.allowed for entry in found.values())


def test_reading_them_imports_nothing_heavy():
    code = (
        "import sys; from rltrain.config.reference import entries; entries()\n"
        "print(*sorted({'torch', 'jax', 'hydra', 'omegaconf', 'gymnasium', 'tensorboard'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
