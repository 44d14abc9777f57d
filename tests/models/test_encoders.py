"""Encoders in both backends: convolutions against torch.nn and against each other, what is an image, modules of one's own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import own_encoders_jax
import own_encoders_torch
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from torch import nn

from rltrain.agents.base import Agent
from rltrain.agents.dqn import jax as dqn_jax
from rltrain.agents.dqn import torch as dqn_torch
from rltrain.agents.ppo import jax as ppo_jax
from rltrain.agents.ppo import torch as ppo_torch
from rltrain.backends.jax import Stateful
from rltrain.models.config import NetworkConfig
from rltrain.models.encoders import jax as jax_encoders
from rltrain.models.encoders import torch as torch_encoders
from rltrain.structures import Progress

CPU, KEY = torch.device("cpu"), "agents.ppo.network"
ROWS = 3


def image(*shape: int) -> Box:
    return Box(0, 255, shape, np.uint8)


def in_torch(space: Any, *, normalize: bool = False, module: Any = None, **cfg: Any) -> tuple[Any, Any]:
    """Return what reads observations, and the encoder."""
    config = NetworkConfig(**cfg)
    inputs = torch_encoders.make_inputs(space, CPU, config, KEY, normalize=normalize, module=module)
    return inputs, torch_encoders.make_encoder(inputs, config, torch.Generator().manual_seed(0), KEY, module)


def in_jax(space: Any, *, normalize: bool = False, module: Any = None, **cfg: Any) -> tuple[Any, Any]:
    config = NetworkConfig(**cfg)
    inputs = jax_encoders.make_inputs(space, config, KEY, normalize=normalize, module=module)
    return inputs, jax_encoders.make_encoder(inputs, config, KEY, module)


def draw(space: Any, seed: int = 0) -> Any:
    """Return ROWS observations."""
    generator = np.random.default_rng(seed)
    if isinstance(space, Dict):
        return {name: draw(leaf, seed + 1) for name, leaf in space.items()}
    if space.dtype == np.uint8:
        return generator.integers(0, 256, (ROWS, *space.shape)).astype(np.uint8)
    return generator.random((ROWS, *space.shape)).astype(np.float32)


def as_torch(observations: Any) -> Any:
    if isinstance(observations, dict):
        return {name: torch.from_numpy(array) for name, array in observations.items()}
    return torch.from_numpy(observations)


# -- convolutions ----------------------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """A residual block of IMPALA's."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(torch.relu(self.first(torch.relu(x))))


def nature(channels: int) -> list[nn.Module]:
    convolutions = [nn.Conv2d(channels, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU()]
    return [*convolutions, nn.Flatten(), nn.Linear(64 * 7 * 7, 512), nn.ReLU()]


def impala() -> list[nn.Module]:
    stages = [
        layer
        for inputs, outputs in ((3, 16), (16, 32), (32, 32))
        for layer in (nn.Conv2d(inputs, outputs, 3, padding=1), nn.MaxPool2d(3, 2, 1), Residual(outputs), Residual(outputs))
    ]
    return [*stages, nn.ReLU(), nn.Flatten(), nn.Linear(32 * 2 * 2, 256), nn.ReLU()]


def two(channels: int, pixels: int) -> list[nn.Module]:
    """Return 4 channels of 3 x 3, 6 of 2 x 2 with stride 2, 10 units, 7 units."""
    layers = [nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 2, 2), nn.ReLU(), nn.Flatten()]
    return [*layers, nn.Linear(6 * pixels, 10), nn.ReLU(), nn.Linear(10, 7), nn.ReLU()]


LIST = [[4, 3, 1], [6, 2, 2], 10, 7]
CASES = {
    "nature": (image(84, 84, 4), "nature", lambda: nature(4)),
    "nature, channels first": (image(4, 84, 84), "nature", lambda: nature(4)),
    "nature by itself": (image(84, 84), "auto", lambda: nature(1)),
    "minatar": (
        Box(0, 1, (10, 10, 4), np.float32), "minatar",
        lambda: [nn.Conv2d(4, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 8 * 8, 128), nn.ReLU()],
    ),
    "impala": (image(16, 16, 3), "impala", impala),
    "a list": (image(9, 12, 3), LIST, lambda: two(3, 3 * 5)),
    "a list, height and width alone": (image(9, 12), LIST, lambda: two(1, 3 * 5)),
    "a list, frames": (image(2, 9, 12, 3), LIST, lambda: two(6, 3 * 5)),
    "a list, frames with channels first": (image(2, 3, 9, 12), LIST, lambda: two(6, 3 * 5)),
    "a list, any numbers": (Box(-np.inf, np.inf, (3, 9, 12), np.float32), LIST, lambda: two(3, 3 * 5)),
}  # fmt: skip


def reference(space: Box, layers: list[nn.Module], encoder: nn.Module) -> Any:
    """Return torch's modules with the encoder's parameters, of observations as the environment gives them."""
    modules = nn.Sequential(*layers)
    for one, other in zip(modules.parameters(), parameters_in_order(encoder), strict=True):
        one.data = other.detach().clone()

    def run(x: torch.Tensor) -> torch.Tensor:
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        if x.ndim == 3:
            x = x[:, None]
        elif x.ndim == 5:  # frames: their channels one after the other
            x = torch.cat([frame if space.shape[1] == 3 else frame.movedim(3, 1) for frame in x.unbind(1)], 1)
        elif space.shape[0] > 4:  # channels last
            x = x.movedim(3, 1)
        return modules(x)

    run.modules = modules
    return run


def made(space: Box, cnn: Any) -> tuple[Any, Any]:
    """Return inputs and an encoder whose biases are not zero."""
    inputs, encoder = in_torch(space, cnn=cnn)
    with torch.no_grad():
        for bias in encoder.biases:
            bias += 0.1
    return inputs, encoder


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    """Compare to 1e-5 of the largest number: sums of thousands of products are taken in another order."""
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.detach().abs().max()))


def parameters_in_order(encoder: nn.Module) -> list[nn.Parameter]:
    named = dict(encoder.named_parameters())
    count = len(named) // 2
    return [named[f"{kind}.{i}"] for i in range(count) for kind in ("weights", "biases")]


COMPILE_LONG = CASES.keys() - {"minatar", "a list"}


@pytest.mark.parametrize(("space", "cnn", "layers"), CASES.values(), ids=CASES)
def test_outputs_and_gradients_are_those_of_torchs_modules(space, cnn, layers):
    inputs, encoder = made(space, cnn)
    observations = torch.from_numpy(draw(space))
    expected = reference(space, layers(), encoder)
    features, theirs = encoder(inputs(observations)), expected(observations)
    assert features.shape == (ROWS, encoder.size) and (features > 0).any()
    close(features, theirs)
    back = torch.randn(features.shape, generator=torch.Generator().manual_seed(1)) / features.numel()
    gradients = torch.autograd.grad(features, parameters_in_order(encoder), back)
    for one, other in zip(gradients, torch.autograd.grad(theirs, list(expected.modules.parameters()), back), strict=True):
        assert one.any()
        close(one, other)


@pytest.mark.parametrize(
    ("space", "cnn"),
    [pytest.param(*case[:2], id=name, marks=[pytest.mark.slow] if name in COMPILE_LONG else []) for name, case in CASES.items()],
)
def test_outputs_and_gradients_are_those_of_the_twin(space, cnn):
    inputs, encoder = made(space, cnn)
    observations = draw(space)
    features = encoder(inputs(torch.from_numpy(observations)))
    back = torch.randn(features.shape, generator=torch.Generator().manual_seed(1)) / features.numel()
    named = dict(encoder.named_parameters())
    gradients = dict(zip(named, torch.autograd.grad(features, list(named.values()), back), strict=True))

    twin_inputs, twin = in_jax(space, cnn=cnn)
    fresh = jax.eval_shape(twin.init, jax.random.key(0))
    assert {name: array.shape for name, array in fresh.items()} == {name: one.shape for name, one in named.items()}
    assert twin.size == encoder.size

    @jax.jit
    def run(parameters: Any, observations: Any) -> Any:
        features, vjp = jax.vjp(lambda p: twin.forward(p, twin_inputs(twin_inputs.init(), observations)), parameters)
        return features, vjp(jnp.asarray(back.numpy()))[0]

    theirs, their_gradients = run({name: one.detach().numpy() for name, one in named.items()}, observations)
    close(torch.from_numpy(np.array(theirs)), features)
    for name, gradient in gradients.items():
        close(torch.from_numpy(np.array(their_gradients[name])), gradient)


@pytest.mark.parametrize("initialization", [pytest.param("orthogonal", marks=pytest.mark.slow), "default"])
def test_initial_weights_are_of_the_same_kind_in_both(initialization):
    _, encoder = in_torch(image(12, 12, 2), cnn=[[6, 3, 2], 8], initialization=initialization)
    _, twin = in_jax(image(12, 12, 2), cnn=[[6, 3, 2], 8], initialization=initialization)
    ours = {name: parameter.detach().numpy() for name, parameter in encoder.named_parameters()}
    for parameters in (ours, jax.jit(twin.init)(jax.random.key(0))):
        for name, inputs in (("weights.0", 2 * 3 * 3), ("weights.1", 6 * 5 * 5)):
            weight = np.asarray(parameters[name])
            rows = weight.reshape(len(weight), inputs)
            if initialization == "orthogonal":
                np.testing.assert_allclose(rows @ rows.T, 2 * np.eye(len(rows)), atol=1e-5)  # gain sqrt(2), squared
            else:
                assert 0.9 * inputs**-0.5 < abs(rows).max() <= inputs**-0.5
        assert (np.abs(parameters["biases.0"]).max() > 0) == (initialization == "default")


def ones(encoder: Any) -> dict[str, Any]:
    return {name: np.full(one.shape, 0.1, np.float32) for name, one in jax.eval_shape(encoder.init, jax.random.key(0)).items()}


def test_bytes_are_divided_by_255_and_floats_from_0_to_1_are_as_they_are():
    pictures = draw(image(10, 10, 3))
    layers: dict[str, Any] = {"cnn": [[4, 3, 1], 8]}
    for make, run in (
        (in_torch, lambda inputs, encoder, x: encoder(inputs(torch.from_numpy(x))).detach().numpy()),
        (in_jax, lambda inputs, encoder, x: jax.jit(encoder.forward)(ones(encoder), inputs(inputs.init(), x))),
    ):
        of_bytes = run(*make(image(10, 10, 3), **layers), pictures)
        of_floats = run(*make(Box(0, 1, (10, 10, 3), np.float32), **layers), (pictures / 255).astype(np.float32))
        np.testing.assert_allclose(of_bytes, of_floats, rtol=1e-5, atol=1e-6)
        assert np.abs(of_bytes).max() > 0


# -- what is an image ------------------------------------------------------------------------------------------------------------

MIXED = Dict({"picture": image(6, 6, 3), "place": Box(-np.inf, np.inf, (2,), np.float32), "side": Discrete(3)})


def mixed(seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    place = generator.normal(5.0, 2.0, (ROWS, 2)).astype(np.float32)
    return {"picture": draw(image(6, 6, 3), seed), "place": place, "side": np.array([0, 1, 2])}


def test_an_image_beside_a_vector():
    """The image stays raw, all else is one normalised vector behind the image's features, in both backends."""
    cfg: dict[str, Any] = {"cnn": [[4, 3, 1], 8], "normalize": True}
    (inputs, encoder), (twin_inputs, twin) = in_torch(MIXED, **cfg), in_jax(MIXED, **cfg)
    inputs.fold(as_torch(mixed()), None)
    moments = twin_inputs.fold(twin_inputs.init(), mixed(), None)
    read = inputs(as_torch(mixed(1)))
    assert read["picture"].dtype == torch.uint8 and np.array_equal(read["picture"], mixed(1)["picture"])
    numbers = np.concatenate((mixed(1)["place"], np.eye(3)), 1)
    of_before = np.concatenate((mixed()["place"], np.eye(3)), 1)
    normalised = ((numbers - of_before.mean(0)) / of_before.std(0)).clip(-10, 10)
    features = encoder(read).detach().numpy()
    assert features.shape == (ROWS, encoder.size) == (ROWS, 8 + 2 + 3)
    np.testing.assert_allclose(features[:, 8:], normalised, rtol=1e-3, atol=1e-3)
    parameters = {name: parameter.detach().numpy() for name, parameter in encoder.named_parameters()}
    fresh = jax.eval_shape(twin.init, jax.random.key(0))
    assert {name: array.shape for name, array in fresh.items()} == {name: array.shape for name, array in parameters.items()}
    theirs = jax.jit(twin.forward)(parameters, twin_inputs(moments, mixed(1)))
    np.testing.assert_allclose(theirs, features, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("space", [image(6, 6, 3), MIXED], ids=["image", "beside a vector"])
def test_without_a_cnn_pixels_are_numbers_like_any_other(space):
    observations = mixed() if space is MIXED else draw(space)
    picture = observations["picture"] if space is MIXED else observations
    (inputs, encoder), (twin_inputs, twin) = in_torch(space, cnn="none"), in_jax(space, cnn="none")
    assert encoder is None and twin is None
    read = inputs(as_torch(observations)).numpy()
    np.testing.assert_array_equal(read[:, :108], picture.reshape(ROWS, -1).astype(np.float32))
    np.testing.assert_array_equal(twin_inputs(twin_inputs.init(), observations), read)


@pytest.mark.parametrize(
    "space",
    [
        Box(-np.inf, np.inf, (10, 10), np.float32), Box(0, 9, (10, 10, 3), np.uint8), Box(-1, 1, (10, 10, 3), np.float32),
        image(30), image(2, 2, 2), image(4, 2, 2, 3), Discrete(3),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_image_stays_numbers(space):
    for make in (in_torch, in_jax):
        inputs, encoder = make(space)
        assert encoder is None and inputs.images == {} and inputs.size > 0


# -- modules of one's own --------------------------------------------------------------------------------------------------------

VECTOR = Box(-np.inf, np.inf, (4,), np.float32)
BOTH = Dict({"picture": image(6, 6, 3), "place": Box(-np.inf, np.inf, (2,), np.float32)})
MODULES = {"torch": own_encoders_torch, "jax": own_encoders_jax}
AGENTS = {"torch": {"ppo": ppo_torch.PPO, "dqn": dqn_torch.DQN}, "jax": {"ppo": ppo_jax.PPO, "dqn": dqn_jax.DQN}}
KINDS: dict[str, Any] = {
    "rows": (VECTOR, "Rows", {}, 5),
    "rows, wider": (VECTOR, "Rows", {"size": 9}, 9),
    "image": (image(6, 6, 3), "Pixels", {}, 16),
    "a dict": (BOTH, "Both", {}, 21),
}
OWN = [("torch", kind, agent, how) for kind in KINDS for agent in ("ppo", "dqn") for how in ("named", "handed over")]
OWN += [("jax", "rows, wider", "dqn", "named")]
OWN_SLOW = [("jax", "image", "ppo", "named"), ("jax", "a dict", "dqn", "named"), ("jax", "a dict", "ppo", "handed over")]


@pytest.mark.parametrize(
    ("backend", "kind", "agent", "how"), [*OWN, *(pytest.param(*case, marks=pytest.mark.slow) for case in OWN_SLOW)]
)
def test_an_encoder_of_ones_own_is_named_or_handed_over(backend, kind, agent, how):
    space, name, kwargs, size = KINDS[kind]
    cfg: dict[str, Any] = {"network": {"initialization": "default"}, "normalize_observations": kind == "a dict"}
    more = {}
    if how == "named":
        cfg["network"] |= {"encoder": f"own_encoders_{backend}:{name}", "encoder_kwargs": kwargs}
    else:
        more["encoder"] = getattr(MODULES[backend], name)(space, **kwargs)
    one = Agent(AGENTS[backend][agent](space, Discrete(3), num_envs=ROWS, cfg=cfg, **more)).algorithm
    parameters = one.snapshot()["policy"]["parameters"]
    encoders = {key.partition(".encoder.")[0] for key in parameters if ".encoder." in key}
    assert encoders == ({"policy", "value"} if agent == "ppo" else {"q"})  # each network has its own
    assert sum(array.size for array in parameters.values()) == one.describe()["parameters"]
    assert all(parameters[f"{part}.weights.0"].shape[1] == size for part in encoders)
    logits = acted(one, space)
    assert logits.shape == (ROWS, 3) and len(np.unique(logits, axis=0)) == ROWS
    # without what the encoder gives, all rows are alike
    parameters = {key: np.zeros_like(array) if ".encoder." in key else array for key, array in parameters.items()}
    one.restore({"policy": one.snapshot()["policy"] | {"parameters": parameters}})
    assert len(np.unique(acted(one, space), axis=0)) == 1


def acted(algorithm: Any, space: Any) -> np.ndarray:
    """Return the logits of acting on observations."""
    observations = mixed() if space is MIXED else draw(space)
    given = observations if isinstance(algorithm, Stateful) else as_torch(observations)
    return np.asarray(algorithm.act(algorithm.init_actor(ROWS, 0), given, explore=False, progress=Progress(0, 1))[2]["logits"])


def test_a_ready_made_module_is_copied():
    made = own_encoders_torch.Rows(VECTOR)
    algorithm = ppo_torch.PPO(VECTOR, Discrete(3), num_envs=ROWS, encoder=made)
    policy, value = algorithm.networks.policy.encoder, algorithm.networks.value.encoder
    assert len({id(module) for module in (made, policy, value)}) == 3
    assert torch.equal(policy.first.weight, made.first.weight) and torch.equal(value.first.weight, made.first.weight)
    algorithm.learners["actor_critic"].parameters.values.zero_()
    assert made.first.weight.any()  # learning leaves the one that was handed over alone


def test_parts_of_an_observation_reach_an_encoder_in_their_own_shapes_numbers_normalised():
    space = Dict({"picture": image(6, 6, 3), "grid": Box(-np.inf, np.inf, (2, 3), np.float32), "side": Discrete(3)})
    observations = {"picture": draw(image(6, 6, 3)), "grid": np.full((ROWS, 2, 3), 50.0, np.float32), "side": np.arange(3)}

    class Sees(nn.Module):
        def forward(self, x: dict[str, torch.Tensor]) -> torch.Tensor:
            self.seen = x
            return x["side"]

    inputs, encoder = in_torch(space, normalize=True, module=Sees())
    encoder(inputs(as_torch(observations)))
    assert {key: (tuple(x.shape), x.dtype) for key, x in encoder.seen.items()} == {
        "picture": ((ROWS, 6, 6, 3), torch.uint8), "grid": ((ROWS, 2, 3), torch.float32), "side": ((ROWS, 3), torch.float32)
    }  # fmt: skip
    assert (encoder.seen["grid"] == 10).all()  # clipped: statistics are 0 and 1 still
    twin_inputs, _ = in_jax(space, normalize=True, module=own_encoders_jax.Side())
    seen = twin_inputs(twin_inputs.init(), observations)
    for key, array in encoder.seen.items():
        np.testing.assert_allclose(seen[key], array.numpy())


# -- from one backend to the other -----------------------------------------------------------------------------------------------

SPACES = {"image": image(6, 6, 3), "channels first": image(3, 6, 6), "beside a vector": MIXED}


@pytest.mark.parametrize(
    ("agent", "kind"),
    [
        pytest.param(agent, kind, marks=[] if (agent, kind) == ("dqn", "beside a vector") else pytest.mark.slow)
        for agent in ("ppo", "dqn")
        for kind in SPACES
    ],
)
def test_what_one_backend_saved_acts_the_same_in_the_other(agent, kind):
    space, cfg = SPACES[kind], {"network": {"cnn": [[4, 3, 1], 8], "initialization": "default"}}

    def make(backend: str, seed: int) -> Any:
        return Agent(AGENTS[backend][agent](space, Discrete(3), num_envs=ROWS, cfg=cfg, seed=seed)).algorithm

    ours, theirs = make("torch", 0), make("jax", 1)
    before = acted(ours, space)
    theirs.restore({"policy": ours.snapshot()["policy"]})
    np.testing.assert_allclose(acted(theirs, space), before, rtol=1e-5, atol=1e-6)
    fresh = make("torch", 2)
    assert abs(acted(fresh, space) - before).max() > 1e-3
    fresh.restore({"policy": theirs.snapshot()["policy"]})
    np.testing.assert_array_equal(acted(fresh, space), before)
