"""`rltrain export`: a policy's file acts as the policy does, in every form, and is refused where it wouldn't."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_one_error, call
from gymnasium import spaces

from rltrain.agents.base import Agent
from rltrain.commands.export import FORMATS
from rltrain.exports.form import named_inputs
from rltrain.exports.proof import Proof
from rltrain.spaces import leaves, map_arrays
from rltrain.structures import Progress

ROWS = spaces.Box(-1, 1, (3,), np.float32)
PICTURE = spaces.Box(0, 255, (8, 8, 3), np.uint8)
MIXED = spaces.Dict({"at": ROWS, "seen": PICTURE, "kind": spaces.Discrete(4, start=1)})
BOX, CHOICES = spaces.Box(-2, 2, (2,), np.float32), spaces.Discrete(3, start=1)
CASES: dict[str, tuple[str, Any, Any, dict[str, Any]]] = {
    "box": ("ppo", ROWS, BOX, {"normalize_observations": True}),
    "choices": ("ppo", ROWS, CHOICES, {}),
    "several choices": ("ppo", ROWS, spaces.MultiDiscrete([3, 2]), {"network": {"cell": "gru", "remembers_actions": True}}),
    "bits": ("a2c", ROWS, spaces.MultiBinary(3), {}),
    "squashed": ("ppo", ROWS, spaces.Box(-2, 2, (2,), np.float64), {"network": {"squashed": True, "shared": True}}),
    "pictures": ("ppo", MIXED, CHOICES, {"network": {"cell": "lstm", "cnn": [[4, 3, 1], 8]}}),
    "dqn": ("dqn", PICTURE, CHOICES, {"network": {"dueling": True, "cell": "gru"}}),
    "sac": ("sac", ROWS, BOX, {"network": {"cell": "gru"}}),
    "sac of choices": ("sac", ROWS, CHOICES, {}),
    "ddpg": ("ddpg", ROWS, BOX, {}),
}


def make(backend: str, case: str) -> tuple[Any, Any]:
    name, observations, actions, cfg = CASES[case]
    kind = getattr(importlib.import_module(f"rltrain.agents.{name}.{backend}"), name.upper())
    return Agent(kind(observations, actions, num_envs=2, cfg=cfg, seed=3)).algorithm, observations


QUICK_IN_JAX = ("box", "choices", "sac")


@pytest.mark.parametrize(
    ("backend", "case"),
    [
        pytest.param(backend, case, marks=[] if backend == "torch" or case in QUICK_IN_JAX else pytest.mark.slow)
        for backend in ("torch", "jax")
        for case in CASES
    ],
)
def test_what_is_written_acts_as_the_policy_over_an_episode(case, backend):
    """By the same plain operations that exporters follow; with masks where choices can be masked."""
    pytest.importorskip(backend)
    algorithm, space = make(backend, case)
    module = importlib.import_module(f"rltrain.exports.{backend}")
    policy, actor = module.Deployed(algorithm), algorithm.init_actor(2, 0)
    own, generator = policy.init_state(2), np.random.default_rng(0)
    space.seed(0)
    for turn in range(4):
        observations = {path: np.stack([leaf.sample() for _ in range(2)]) for path, leaf in leaves(space).items()}
        observations = observations.get("", observations)
        masks = None
        if case in ("choices", "several choices", "dqn"):
            masks = (
                generator.random((2, algorithm.pure.distribution.size if backend == "jax" else algorithm.distribution.size)) < 0.6
            )
            masks[:, [0, -1, 1]] = True
        arrays = named_inputs(observations, masks, own)
        given = map_arrays(algorithm.backend.asarray, observations)
        allowed = None if masks is None else algorithm.backend.asarray(masks)
        actor, actions, outputs = algorithm.act(actor, given, None, allowed, explore=False, progress=Progress(turn, 9))
        found = module.ask(policy, arrays)
        np.testing.assert_allclose(found["logits"], np.asarray(outputs["logits"]), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["actions"], np.asarray(actions), rtol=1e-5, atol=1e-5)
        assert list(found) == module.outputs_of(policy, arrays)
        own = {name: found[f"next_{name}"] for name in own}
    assert not own or all(array.any() for array in own.values())


SUFFIXES = [
    pytest.param(".onnx", "torch", id="onnx"),
    pytest.param(".pt2", "torch", id="pt2"),
    pytest.param(".stablehlo", "jax", id="stablehlo", marks=pytest.mark.slow),
]
REMEMBERING = [
    "agents.ppo.network.cell=gru",
    "agents.ppo.network.cell_size=8",
    "agents.ppo.rollout_length=16",
    "agents.ppo.minibatches=1",
]


WITHOUT_RLTRAIN = """
import sys

import numpy
import policy

acting = policy.Policy("policy.onnx", 2)
observations = numpy.zeros((2, 4), "float32")
actions = acting(observations)
first = acting.state["state/0"].copy()
acting(observations)
acting.begin(numpy.array([True, False]))
acting(observations)
assert "torch" not in sys.modules and "rltrain" not in sys.modules
assert (acting.state["state/0"][0] == first[0]).all() and (acting.state["state/0"][1] != first[1]).any()
print(actions)
"""


@pytest.mark.parametrize(("suffix", "backend"), SUFFIXES)
def test_a_file_is_written_proved_and_says_what_it_is(suffix, backend, here):
    for package in FORMATS[suffix].packages:
        pytest.importorskip(package)
    assert call("train", *REMEMBERING, f"backend={backend}", "env.num_envs=3", "trainer.timesteps=32", "run.dir=run").status == 0
    before = sorted(path for path in Path("run").rglob("*"))
    result = call("export", "run", f"policy{suffix}", "rows=100")
    assert result.status == 0, result.text
    assert "102 observations: largest difference" in result.out and "102 of 102 choices equal" in result.out
    assert sorted(path for path in Path("run").rglob("*")) == before  # nothing is written into the run
    about = json.loads(Path("policy.json").read_text())
    assert about["inputs"] == {
        "observations": {"dtype": "float32", "shape": ["batch", 4]},
        "state/0": {"dtype": "float32", "shape": ["batch", 1, 8]},
    }
    assert about["outputs"] == ["actions", "logits", "next_state/0"]
    summary = json.loads(Path("run/summary.json").read_text())
    assert about["parameters_sha256"] == summary["agents"]["ppo"]["parameters_sha256"]
    policy = getattr(importlib.import_module(f"rltrain.exports.{backend}"), f"open_{about_name(suffix)}")(Path(f"policy{suffix}"))
    for rows in (1, 7):  # a batch of any size
        found = policy({"observations": np.zeros((rows, 4), np.float32), "state/0": np.zeros((rows, 1, 8), np.float32)})
        assert found["actions"].shape == (rows,)
    if suffix == ".onnx":
        done = subprocess.run([sys.executable, "-c", WITHOUT_RLTRAIN], capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.startswith("["), done.stderr


def about_name(suffix: str) -> str:
    return {".onnx": "onnx", ".pt2": "program", ".stablehlo": "stablehlo"}[suffix]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".stablehlo"])
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_team_and_one_of_two_agents_in_either_backend(backend, suffix, here):
    pytest.importorskip("jax")
    team = [
        "agents=mappo",
        "env=pettingzoo",
        "env.id=mpe/simple_spread_v3",
        "env.num_envs=2",
        "trainer.timesteps=64",
        "run.dir=team",
    ]
    assert call("train", *team, f"backend={backend}", "agents.mappo.rollout_length=32", "agents.mappo.minibatches=1").status == 0
    result = call("export", "team", f"team{suffix}", "rows=50")
    assert result.status == 0 and "150 of 150 choices equal" in result.out, result.text
    two = [
        "agents=[a:dqn,b:ppo]",
        "agents_scope=[1,3]",
        "env.num_envs=4",
        "trainer.timesteps=40",
        "run.dir=two",
        f"backend={backend}",
    ]
    assert call("train", *two).status == 0
    assert_one_error(call("export", "two", f"two{suffix}"), 2, "agent=null: say which one: a, b")
    assert call("export", "two", f"two{suffix}", "agent=a", "rows=20").status == 0


def test_a_file_that_would_act_otherwise_is_not_written(here, monkeypatch):
    torch_files = importlib.import_module("rltrain.exports.torch") if pytest.importorskip("torch") else None
    assert call("train", "backend=torch", "trainer.timesteps=8", "run.dir=run", "agents.ppo.rollout_length=8").status == 0
    real = torch_files.open_program

    def wrong(path: Path) -> Any:
        policy = real(path)
        return lambda arrays: {
            name: array + np.float32(3e-5) if name == "logits" else array for name, array in policy(arrays).items()
        }

    monkeypatch.setattr(torch_files, "open_program", wrong)
    result = call("export", "run", "policy.pt2", "rows=8")
    assert_one_error(result, 3, "agents.ppo: the file would act otherwise (8 observations: largest difference 3.0e-05")
    assert {path.name for path in here.iterdir()} == {"run"}


def test_choices_as_close_as_the_tolerance_are_ties():
    proof = Proof()
    logits = np.array([[1.0, 1.0 + 5e-6], [1.0, 2.0]], np.float32)
    proof.look(np.array([0, 0]), np.array([1, 0]), logits, logits)
    assert proof.holds and (proof.choices, proof.equal, proof.ties) == (2, 1, 1)
    proof.look(np.array([0]), np.array([1]), logits[1:], logits[1:])
    assert not proof.holds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["policy.txt"], "policy.txt: ends in .txt; end it in .onnx, .pt2, .stablehlo"),
        (["there/policy.pt2"], "there/policy.pt2: no such directory"),
        (["policy.pt2", "rows=0"], "rows=0: how many observations to compare on; give a number from 1"),
        (["policy.pt2", "agent=sac"], "agent=sac: not there; "),
        (["policy.pt2", "agnt=ppo"], "agnt=ppo: no such option; did you mean 'agent'?"),
        ([], "write rltrain export RUN FILE.onnx"),
    ],
)
def test_what_is_typed_wrong_is_told(arguments, message, here, trained):
    result = call("export", str(trained), *arguments)
    assert_one_error(result, 2, message)
    assert not list(here.glob("policy*"))


def test_a_package_that_is_missing_is_named_with_the_command(here, trained, monkeypatch):
    verb = importlib.import_module("rltrain.commands.export")
    monkeypatch.setattr(verb, "find_spec", lambda package: None if package == "onnxscript" else object())
    result = call("export", str(trained), "policy.onnx")
    assert_one_error(result, 2, "policy.onnx: needs onnxscript: pip install")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    run = tmp_path_factory.mktemp("trained") / "run"
    assert call("train", "backend=torch", "trainer.timesteps=8", f"run.dir={run}", "agents.ppo.rollout_length=8").status == 0
    return run
