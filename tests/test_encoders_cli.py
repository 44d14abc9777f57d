"""Networks' encoders on the command line: what can't be used is said in a sentence before training."""

import pytest
from command_line import assert_one_error, call, train

SPOT, NETWORK = "env=pixel_envs:Spot", "agents.ppo.network"
CNN = f"{NETWORK}.cnn"
REMEDY = "give [channels, kernel, stride] for each convolution, then at least one number"


@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        pytest.param(["env=CartPole-v1", f"{CNN}=nature"], ["nature: reads images, but", "leave it at auto"], id="a vector"),
        pytest.param([SPOT, f"{CNN}=nature"], [f"{CNN}=nature: its layers need", "(6, 6, 3)"], id="too large"),
        pytest.param([SPOT, f"{CNN}=[[8,4,1],[8,4,1],16]"], ["16]: its layers need"], id="list too large"),
        pytest.param([SPOT, f"{CNN}=[[8,3],16]"], [f"{CNN}=[[8, 3], 16]: {REMEDY}"], id="two numbers"),
        pytest.param([SPOT, f"{CNN}=[[8,3,1]]"], [REMEDY], id="no linear layer"),
        pytest.param([SPOT, f"{CNN}=[16,[8,3,1],16]"], [REMEDY], id="linear before"),
        pytest.param([SPOT, f"{CNN}=[[8,0,1],16]"], [REMEDY], id="kernel of nothing"),
        pytest.param([SPOT, f"{CNN}=[]"], [REMEDY], id="empty"),
        pytest.param([SPOT, f"{CNN}=natur"], [f"{CNN}=natur: ", "nature"], id="misspelt"),
    ],
)  # fmt: skip
def test_layers_that_cannot_read_the_observation(backend, overrides, words):
    pytest.importorskip(backend)
    assert_one_error(call("train", f"backend={backend}", *overrides), 2, *words)


ENCODER = f"{NETWORK}.encoder"
NAMED = {
    "no colon": ("Rows", ["must be module:name, such as my_package.nets:Encoder"]),
    "no module": ("no_such_module:Rows", ["no_such_module can't be imported (ModuleNotFoundError"]),
    "no class": ("{}:Row", ["{} has no Row; did you mean 'Rows'?"]),
    "no module of its kind": ("{}:number", ["makes int; make a {kind}"]),
    "fails when made": ("{}:Unmade", ["fails when it is made: KeyError: 'picture'"]),
    "fails on observations": ("{}:Stumbles", ["fails on 3 observations: RuntimeError: shapes don't fit"]),
    "another shape": ("{}:WrongShape", ["makes (3, 1, 5) {float} of 3 observations; make (3, features) float32"]),
    "another shape of one row": ("{}:Squeezes", ["makes (5,) {float} of 1 observations; make (1, features) float32"]),
    "integers": ("{}:Integers", ["makes (3, 5) ", "int", "of 3 observations; make (3, features) float32"]),
    "running statistics": ("{}:Normalizes", ["{statistics}", "don't learn; use LayerNorm"]),
}
SAID = {
    "torch": {"kind": "torch.nn.Module", "float": "torch.float32", "statistics": "has BatchNorm1d, whose running statistics"},
    "jax": {"kind": "flax.linen.Module", "float": "float32", "statistics": "keeps batch_stats besides parameters"},
}


@pytest.mark.parametrize("backend", SAID)
@pytest.mark.parametrize("case", NAMED)
def test_encoders_of_ones_own_that_cannot_be_used(backend, case):
    pytest.importorskip(backend)
    name, words = NAMED[case]
    name = name.format(f"own_encoders_{backend}")
    words = [word.format(f"own_encoders_{backend}", **SAID[backend]) for word in words]
    assert_one_error(call("train", f"backend={backend}", f"{ENCODER}={name}"), 2, f"{ENCODER}={name}: ", *words)


def test_an_error_of_many_lines_is_told_by_its_first():
    pytest.importorskip("jax")
    result = call("train", "backend=jax", f"{ENCODER}=own_encoders_jax:InNumpy")
    assert_one_error(result, 2, "InNumpy: fails on 3 observations: TracerArrayConversionError: ")
    assert len(result.err.strip().splitlines()) == 1


def test_a_module_of_flaxs_other_kind():
    pytest.importorskip("jax")
    result = call("train", "backend=jax", f"{ENCODER}=own_encoders_jax:of_nnx")
    assert_one_error(result, 2, f"{ENCODER}=own_encoders_jax:of_nnx: makes Linear; make a flax.linen.Module")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        pytest.param([f"{NETWORK}.encoder_kwargs.size=3"], [f"no effect without {ENCODER}"], id="alone"),
        pytest.param([f"{ENCODER}=own_encoders_torch:Rows", f"{CNN}=nature"],
                     [f"{CNN}=nature: has no effect beside {ENCODER}; leave it out"], id="beside cnn"),
        pytest.param([f"{ENCODER}=own_encoders_torch:Rows", f"{NETWORK}.encoder_kwargs.width=3"],
                     [f"{ENCODER}=own_encoders_torch:Rows: fails when it is made: TypeError", "'width'"], id="unknown argument"),
        pytest.param(["env=space_envs:Context", f"{NETWORK}.shared=true", f"{ENCODER}=own_encoders_torch:Rows"],
                     [f"{NETWORK}.shared=true: the environment has states"], id="shared with states"),
    ],
)  # fmt: skip
def test_settings_that_contradict_each_other(overrides, words):
    pytest.importorskip("torch")
    assert_one_error(call("train", *overrides), 2, *words)


def test_an_encoder_of_ones_own_is_trained_evaluated_and_resumed(here):
    """By name, with arguments: what the run saved finds it again."""
    pytest.importorskip("torch")
    given = (f"{ENCODER}=own_encoders_torch:Pixels", f"{NETWORK}.encoder_kwargs.channels=3", SPOT, "run.dir=run")
    train(*given, "trainer.timesteps=64")
    assert call("eval", "checkpoint=run").status == 0
    assert call("train", "resume=run", "trainer.timesteps=96").status == 0
