"""The front door: help for every command, settings that explain themselves, lists with sentences, completion."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from command_line import assert_one_error, call

from rltrain import installing
from rltrain.commands import environments
from rltrain.commands.verbs import SUMMARIES, VERBS
from rltrain.config import conf_directory, schema
from rltrain.config.reference import entries

ROOT = Path(__file__).parent.parent


@pytest.fixture(params=[80, 120])
def columns(request, monkeypatch):
    """The width of the terminal."""
    monkeypatch.setenv("COLUMNS", str(request.param))
    return request.param


def words_of(text: str) -> list[str]:
    return re.findall(r"[\w./=-]+", text)


# -- help ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(VERBS))
def test_every_command_has_usage_options_and_two_examples(name, columns, here):
    for arguments in (["help", *name.split()], [*name.split(), "--help"]):
        result = call(*arguments)
        assert (result.status, result.err) == (0, "")
        lines = result.out.splitlines()
        assert lines[0] == "usage:" and lines[1].startswith(f"  rltrain {name}")
        assert max(map(len, lines)) <= columns
        examples = lines[lines.index("examples:") + 1 :]
        assert sum(f"rltrain {name}" in line for line in examples if not line.startswith("  #")) == 2
        for option, sentence in VERBS[name].options:
            assert option in result.out and set(words_of(sentence)) <= set(words_of(result.out))


def test_the_overview_names_every_command_and_fits_80_columns(here):
    lines = call("--help").out.splitlines()
    assert max(map(len, lines)) <= 80
    for name in SUMMARIES:
        assert any(line.startswith(f"  rltrain {name}") for line in lines)
    assert {name.split()[0] for name in VERBS} | {"help"} == set(SUMMARIES)
    assert "rltrain checkpoint export PATH FILE" in call("help", "checkpoint").out
    assert_one_error(call("help", "trian"), 2, "rltrain trian: no such command; did you mean 'train'?")


# -- settings --------------------------------------------------------------------------------------------------------------


def test_sections(columns, here):
    result = call("config")
    assert (result.status, max(map(len, result.out.splitlines())) <= columns) == (0, True)
    for section in ("agents.ppo", "agents.sac", "env", "trainer", "backend", "evaluation", "seed", "total_env_steps"):
        assert re.search(rf"^  {re.escape(section)}\b", result.out, re.MULTILINE), section


def test_a_section_is_a_table_without_broken_words(columns, here):
    result = call("config", "agents.ppo")
    lines = result.out.splitlines()
    assert lines[0] == "agents.ppo.*"
    assert max(map(len, lines)) <= columns
    for entry in entries("agents", "ppo"):
        assert entry.key.removeprefix("agents.ppo.") in words_of(result.out)
        assert set(words_of(entry.sentence)) <= set(words_of(result.out)), entry.key
    assert re.search(r"^learning_rate +0.00025 +number > 0 and <= 1", result.out, re.MULTILINE)
    assert call("train", "--help", "agents.ppo").out == result.out


def test_one_key_says_everything(here):
    result = call("config", "agents.ppo.adapt_learning_rate")
    assert result.out.startswith("agents.ppo.adapt_learning_rate (agents=ppo)\n")
    assert "one of never, epoch, minibatch" in result.out
    assert "rltrain train agents.ppo.adapt_learning_rate=never" in result.out
    assert "resume" in call("config", "agents.ppo.rollout_length").out


def test_a_word_searches_keys_and_sentences(here):
    result = call("config", "gamma")
    assert "agents.ppo.discount_factor" in result.out and "agents.sac.discount_factor" in result.out
    assert "trainer.timesteps" not in result.out
    assert_one_error(call("config", "xyzzy"), 2, "xyzzy: no such key; ")
    assert_one_error(call("config", "agents.ppo.lr"), 2, "agents.ppo.lr: no such key; did you mean 'agents.ppo.learning_rate'?")


def test_overrides_give_the_values_that_a_run_has(here):
    result = call("config", "experiment=sac_pendulum", "agents.sac.batch_size=7", "agents.sac.batch_size", "env.id", "json=true")
    assert {entry["key"]: entry["value"] for entry in json.loads(result.out)} == {
        "agents.sac.batch_size": 7, "env.id": "Pendulum-v1"
    }  # fmt: skip
    named = json.loads(call("config", "agents=[fast:ppo,slow:ppo]", "agents.fast.epochs=9", "epochs", "json=true").out)
    assert {entry["key"]: entry["value"] for entry in named if entry["key"].endswith(".epochs")} == {
        "agents.fast.epochs": 9, "agents.slow.epochs": 4
    }  # fmt: skip
    assert_one_error(call("config", "agents.ppo.epochs=0", "agents.ppo"), 2, "agents.ppo.epochs=0: must be")
    assert not list(here.iterdir())


# -- lists -----------------------------------------------------------------------------------------------------------------


def test_lists_have_a_sentence_for_each(columns, here, monkeypatch):
    for name in ("plugin_options", "plugin_packages"):  # of other tests
        monkeypatch.setattr(schema, name, set())
    for what, names in {
        "agents": {"a2c", "sac", "mappo"}, "trainers": {"parallel", "sequential", "step"}, "backends": {"jax", "torch"},
        "experiments": {"ppo_cartpole", "sac_pendulum"},
    }.items():  # fmt: skip
        result = call("list", what)
        assert max(map(len, result.out.splitlines())) <= columns
        listed = {row["name"]: row["sentence"] for row in json.loads(call("list", what, "json=true").out)}
        assert names <= set(listed)
        assert all(listed.values())
        for name, sentence in listed.items():
            assert re.search(rf"^{name} ", result.out, re.MULTILINE)
            assert set(words_of(sentence)) <= set(words_of(result.out))
    assert {row["name"] for row in json.loads(call("list", "agents", "off-policy", "Discrete", "json=true").out)} == {
        "dqn", "ddqn", "sac"
    }  # fmt: skip


def test_what_presets_reach_is_what_the_results_say():
    """The figure of a preset's sentence is a mean in its row, or the mean of the finals per seed; its length is the preset's."""
    rows = [line for line in (ROOT / "docs/results.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    pendulum = {"sac_pendulum": "| SAC |", "td3_pendulum": "| TD3 |", "ddpg_pendulum": "| DDPG |"}
    for path in sorted((conf_directory() / "experiment").glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        figure, steps = re.search(r"mean return (-?[\d.]+).*? after ([\d,]+) env steps", text).groups()
        assert int(steps.replace(",", "")) == yaml.safe_load(text)["total_env_steps"], path.stem
        row = next(row for row in rows if f"`{path.stem}`" in row or pendulum.get(path.stem, "none") in row)
        cells = [[float(number) for number in re.findall(r"-?\d+\.\d", cell)] for cell in row.split("|")]
        means = {round(sum(cell) / len(cell), 1) for cell in cells if cell}
        assert float(figure) in {number for cell in cells for number in cell} | means, path.stem


def test_environments_by_family(columns, here):
    result = call("list", "envs")
    assert max(map(len, result.out.splitlines())) <= columns
    families = {family["name"]: family for family in json.loads(call("list", "envs", "json=true").out)}
    assert {"classic-control", "box2d", "toy-text", "mujoco", "gymnax", "brax", "jaxmarl", "pettingzoo-mpe"} <= set(families)
    assert {"CartPole-v1", "Pendulum-v1"} <= set(families["classic-control"]["ids"])
    for family in families.values():
        assert bool(family["ids"]) != bool(family["install"]), family  # what can be made, or what brings it
    found = call("list", "envs", "Cart").out
    assert "CartPole-v1" in found and "Pendulum-v1" not in found
    only = call("list", "envs", "classic-control").out
    assert "Acrobot-v1" in only and "Taxi" not in only


def test_ids_that_need_what_is_not_here_are_not_offered(here, monkeypatch):
    monkeypatch.setattr(environments, "find_spec", lambda package: None)
    families = {family.name: family for family in environments.families()}
    assert (families["mujoco"].ids, families["mujoco"].install) == ([], installing.command_for("mujoco"))
    assert families["pettingzoo-mpe"].install == installing.command_for("pettingzoo")
    assert "CartPole-v1" in families["classic-control"].ids


def test_ids_of_a_registry_are_read_without_importing_it(tmp_path):
    (tmp_path / "a.py").write_text("raise RuntimeError\n_ids: dict = {'b-v0': 1, 'a-v0': 2}\nnames = ['x', 'y']\n")
    assert environments._read_ids(tmp_path / "a.py", "_ids") == ["a-v0", "b-v0"]
    assert environments._read_ids(tmp_path / "a.py", "names") == ["x", "y"]
    assert environments._read_ids(tmp_path / "nowhere.py", "names") == []


# -- completion ------------------------------------------------------------------------------------------------------------

TRIES = {
    "rltrain tr": ["train "],
    "rltrain checkpoint v": ["verify "],
    "rltrain list ex": ["experiments "],
    "rltrain help comp": ["completion "],
    "rltrain train agents.p": ["agents.ppo."],
    "rltrain train agents.ppo.rollout": ["agents.ppo.rollout_length="],
    "rltrain config agents.ppo.rollout": ["agents.ppo.rollout_length "],
    "rltrain train experiment=ppo_acr": ["experiment=ppo_acrobot "],
    "rltrain train env=CartPole-v1 agents=sa": ["agents=sac "],
    "rltrain train trainer.fused=f": ["trainer.fused=false "],
    "rltrain train env=Acr": ["env=Acrobot-v1 "],
    "rltrain train resume=outp": ["resume=outputs/"],
    "rltrain eval outp": ["outputs/"],
    "rltrain eval epi": ["episodes="],
    "rltrain report outp": ["outputs/"],
    "rltrain report comp": ["compare="],
    "rltrain runs outp": ["outputs/"],
    "rltrain runs st": ["state="],
    "rltrain runs pr": ["prune "],
    "rltrain runs prune ke": ["keep="],
    "rltrain checkpoint verify outp": ["outputs/"],
}


def complete(shell: str, here: Path) -> dict[str, list[str]]:
    """Return what a shell's script offers for each of TRIES."""
    (here / "outputs").mkdir()
    (here / "script").write_text(call("completion", shell).out)
    if shell == "bash":
        body = 'COMP_LINE="$1"; COMP_POINT=${#1}; COMPREPLY=(); _rltrain; cur="${1##* }"; pre=""; '
        body += '[[ $cur != *=* ]] || pre="${cur%%=*}="; for one in "${COMPREPLY[@]}"; do echo "$1|$pre$one"; done'
    else:
        body = 'words=(${(s: :)1}); CURRENT=$#words; PREFIX="${words[-1]}"; '
        body += 'compadd() { shift 4; for one in "$@"; do print -r -- "$line|$one"; done }; line="$1"; _rltrain'
    define = "compdef() { :; }; " if shell == "zsh" else ""
    calls = "\n".join(f"t '{line}'" for line in TRIES)
    result = subprocess.run(
        [shell, "-c", f"{define}source ./script; t() {{ {body}; }}\n{calls}"],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=here,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    offered: dict[str, list[str]] = {line: [] for line in TRIES}
    for line in result.stdout.splitlines():
        offered[line.partition("|")[0]].append(line.partition("|")[2])
    return offered


@pytest.mark.parametrize("shell", [shell for shell in ("bash", "zsh") if shutil.which(shell)])
def test_a_shell_completes(shell, here):
    assert complete(shell, here) == TRIES


def test_other_shells(here):
    script = call("completion", "fish").out
    assert "agents.ppo.learning_rate=" in script and "__fish_use_subcommand" in script
    assert_one_error(call("completion", "tcsh"), 2, "rltrain completion tcsh: name a shell; ")
    assert_one_error(call("completion"), 2, "rltrain completion: name a shell; options: bash, fish, zsh")
