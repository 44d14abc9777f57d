"""PPO's options: each by hand, against plain autograd, or against the same thing said otherwise."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch.distributions import Categorical, Independent, Normal, TanhTransform, kl_divergence

from rltrain.agents.base import Agent
from rltrain.agents.ppo.torch import KL, METRICS, PPO
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.structures import Progress, Transition
from rltrain.trainers import SequentialTrainer

COPIES, OBSERVATION_SIZE, STATE_SIZE, CHOICES = 3, 4, 5, 4
SPACES = {"discrete": Discrete(CHOICES), "continuous": Box(-2.0, 2.0, (2,), np.float32)}
SMALL = {"rollout_length": 7, "epochs": 3, "minibatches": 4, "learning_rate": 0.01, "entropy_scale": 0.05}
SIZES = {"policy_sizes": [8, 6], "value_sizes": [5]}
BEGIN = Progress(6, 70)  # after the first rollout of ten


def make(space: str = "discrete", *, states: bool = False, seed: int = 0, **cfg: Any) -> PPO:
    network = SIZES | cfg.pop("network", {})
    if network.get("shared"):
        network.pop("value_sizes")
    observations, privileged = (Box(-np.inf, np.inf, (size,), np.float32) for size in (OBSERVATION_SIZE, STATE_SIZE))
    settings, state_space = {**SMALL, **cfg, "network": network}, privileged if states else None
    return PPO(observations, SPACES[space], state_space=state_space, num_envs=COPIES, cfg=settings, seed=seed)


def play(algorithm: PPO, seed: int = 0, *, masks: bool = False, dummy_rows: bool = False) -> list[Transition]:
    """Record a full rollout of rows that depend on the seed only, with ends of both kinds; return it."""
    generator, length = np.random.default_rng(seed), algorithm.cfg.rollout_length
    actor = algorithm.init_actor(COPIES, seed)
    sizes = [OBSERVATION_SIZE] if algorithm.critic_inputs is None else [OBSERVATION_SIZE, STATE_SIZE]
    before, after = ([generator.normal(size=(length + 1, COPIES, n)).astype(np.float32) for n in sizes] for _ in range(2))
    rows: list[Transition] = []
    for t in range(length):
        terminated, truncated = generator.random((2, COPIES)) < 0.15
        valid = ~(rows[-1].terminated | rows[-1].truncated) if dummy_rows and rows else None
        if valid is not None:
            terminated, truncated = terminated & valid, truncated & valid
        done = (terminated | truncated)[:, None]
        following = [np.where(done, b[t], a[t + 1]) for a, b in zip(before, after, strict=True)]
        allowed = None
        if masks:
            allowed = generator.random((COPIES, CHOICES)) < 0.5
            allowed[np.arange(COPIES), generator.integers(CHOICES, size=COPIES)] = True
        observations, states = before[0][t], before[1][t] if len(sizes) > 1 else None
        tensors = (torch.from_numpy(observations), None, None if allowed is None else torch.from_numpy(allowed))
        _, actions, outputs = algorithm.act(actor, *tensors, explore=True, progress=BEGIN)
        rows.append(
            Transition(
                observations, states, actions.numpy(), following[0], following[1] if len(sizes) > 1 else None,
                generator.normal(size=COPIES).astype(np.float32) + 1, terminated, truncated, valid, {},
                {key: value.numpy() for key, value in outputs.items()},
            )
        )  # fmt: skip
        algorithm.record(rows[-1])
    return rows


def update(algorithm: PPO, progress: Progress = BEGIN) -> dict[str, float]:
    return algorithm.update(progress)


def learn(progress: Progress = BEGIN, space: str = "discrete", updates: int = 1, **cfg: Any) -> tuple[PPO, dict[str, float]]:
    """Return an algorithm after updates at the same point of the horizon, and the last one's metrics."""
    algorithm = make(space, **cfg)
    for seed in range(updates):
        play(algorithm, seed)
        metrics = update(algorithm, progress)
    return algorithm, metrics


def watch(algorithm: PPO, method: str) -> list[Any]:
    """Let the list returned collect the first argument of every call of `method` from now on."""
    calls, original = [], getattr(algorithm, method)

    def called(*args: Any) -> Any:
        calls.append(args[0])
        return original(*args)

    setattr(algorithm, method, called)
    return calls


def watch_steps(algorithm: PPO) -> list[float]:
    """Let the list returned collect the learning rate of every step of the optimiser from now on."""
    rates, step = [], algorithm.learners["actor_critic"].optimizer.step

    def watched() -> None:
        rates.append(algorithm.learners["actor_critic"].optimizer.learning_rate)
        step()

    algorithm.learners["actor_critic"].optimizer.step = watched
    return rates


def watch_diagnostics(algorithm: PPO) -> list[torch.Tensor]:
    """Let the list returned collect the diagnostics of every minibatch from now on."""
    found, differentiate = [], algorithm._differentiate_loss

    def watched(*args: Any) -> Any:
        diagnostics, gradients = differentiate(*args)
        found.append(diagnostics)
        return diagnostics, gradients

    algorithm._differentiate_loss = watched
    return found


def fake(algorithm: PPO, kls: list[float], *, exact: bool = False) -> None:
    """Let the minibatches from now on have these KLs, approximate or exact, whatever they are."""
    left, differentiate = iter(kls), algorithm._differentiate_loss

    def faked(*args: Any) -> Any:
        diagnostics, gradients = differentiate(*args)
        diagnostics[KL] = next(left)
        return diagnostics, gradients

    if exact:
        algorithm._exact_kl = lambda minibatch, logits: next(left)
    else:
        algorithm._differentiate_loss = faked


def assert_equal(one: PPO, other: PPO) -> None:
    """Compare all that was learned to the bit."""
    np.testing.assert_equal(one.snapshot(), other.snapshot())


# -- plain autograd ------------------------------------------------------------------------------------------------------------


class Plain:
    """The networks and the policy of an algorithm as one would write them down, on copies of its parameters."""

    def __init__(self, algorithm: PPO) -> None:
        self.cfg, self.discrete = algorithm.cfg, algorithm.distribution.action_shape == ()
        snapshot = algorithm.snapshot()
        self.parameters = {name: torch.tensor(a, requires_grad=True) for name, a in snapshot["policy"]["parameters"].items()}
        self.generator = torch.Generator()
        self.generator.set_state(torch.tensor(snapshot["training"]["generator"]))

    def network(self, name: str, x: torch.Tensor) -> torch.Tensor:
        p, last = self.parameters, sum(key.startswith(f"{name}.weights") for key in self.parameters) - 1
        for i in range(last + 1):
            x = x @ p[f"{name}.weights.{i}"].T + p[f"{name}.biases.{i}"]
            if f"{name}.scales.{i}" in p:
                x = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
                x = x * p[f"{name}.scales.{i}"] + p[f"{name}.shifts.{i}"]
            x = x if i == last else x.tanh()
        return x

    def logits_and_values(self, inputs: torch.Tensor, critic_inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.cfg.network.shared:
            outputs = self.network("shared", inputs)
            return outputs[:, :-1], outputs[:, -1]
        return self.network("policy", inputs), self.network("value", critic_inputs)[:, 0]

    def distribution(self, logits: torch.Tensor) -> torch.distributions.Distribution:
        if self.discrete:
            return Categorical(logits=logits)
        if self.cfg.network.state_dependent_std:
            logits, log_std = logits.chunk(2, 1)
            return Independent(Normal(logits, (self.cfg.network.initial_log_std + log_std).exp()), 1)
        return Independent(Normal(logits, self.parameters["policy.log_std"].exp()), 1)

    def log_probs_and_entropies(
        self, logits: torch.Tensor, actions: torch.Tensor, masks: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if masks is not None:  # a distribution over the allowed choices only, row by row
            over = [Categorical(logits=row[mask]) for row, mask in zip(logits, masks, strict=True)]
            places = [mask[:action].sum() for mask, action in zip(masks, actions, strict=True)]
            log_probs = [distribution.log_prob(place) for distribution, place in zip(over, places, strict=True)]
            return torch.stack(log_probs), torch.stack([distribution.entropy() for distribution in over])
        distribution = self.distribution(logits)
        log_probs, entropies = distribution.log_prob(actions), distribution.entropy()
        if self.cfg.network.squashed and not self.discrete:
            # E log(1 - tanh^2 u) = E -2 log cosh u, by the rectangle rule on 2001 points
            log_probs = log_probs - TanhTransform().log_abs_det_jacobian(actions, actions.tanh()).sum(1)
            x = torch.linspace(-8, 8, 2001)
            at = distribution.base_dist.mean[..., None] + distribution.base_dist.stddev[..., None] * x
            slopes = -2 * at.cosh().log() * torch.softmax(-x * x / 2, 0)
            entropies = entropies + slopes.sum((1, 2))
        return log_probs, entropies

    def update(self, rows: list[Transition]) -> None:
        """Do one whole update of PPO."""
        cfg, of = self.cfg, lambda name: torch.from_numpy(np.stack([getattr(row, name) for row in rows]))
        rewards, terminated, truncated = of("rewards"), of("terminated"), of("truncated")
        inputs, following = of("observations").flatten(0, 1), of("next_observations").flatten(0, 1)
        critic_inputs, critic_following = inputs, following
        if rows[0].states is not None:
            critic_inputs, critic_following = of("states").flatten(0, 1), of("next_states").flatten(0, 1)
        outputs = {key: torch.from_numpy(np.stack([row.outputs[key] for row in rows])).flatten(0, 1) for key in rows[0].outputs}
        actions, masks = outputs["actions"], outputs.get("action_masks")
        with torch.no_grad():
            logits, old_values = self.logits_and_values(inputs, critic_inputs)
            old_log_probs, _ = self.log_probs_and_entropies(logits, actions, masks)
            values = old_values.view(rewards.shape)
            next_values = self.logits_and_values(following, critic_following)[1].view(rewards.shape)
            advantages, running = torch.zeros_like(rewards), torch.zeros(COPIES)
            for t in reversed(range(len(rows))):
                deltas = rewards[t] + cfg.discount_factor * next_values[t] * ~terminated[t] - values[t]
                running = deltas + cfg.discount_factor * cfg.gae_lambda * running * ~(terminated[t] | truncated[t])
                advantages[t] = running
            advantages = advantages.flatten()
            returns = advantages + old_values
            advantages = (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-8)
        learned = list(self.parameters.values())
        optimizer = torch.optim.Adam(learned, lr=cfg.learning_rate, eps=1e-5)
        for _ in range(cfg.epochs):
            for part in torch.randperm(len(inputs), generator=self.generator).tensor_split(cfg.minibatches):
                logits, values = self.logits_and_values(inputs[part], critic_inputs[part])
                log_probs, entropies = self.log_probs_and_entropies(logits, actions[part], None if masks is None else masks[part])
                ratios = (log_probs - old_log_probs[part]).exp()
                clipped = ratios.clamp(1 - cfg.ratio_clip, 1 + cfg.ratio_clip)
                policy_loss = -torch.min(ratios * advantages[part], clipped * advantages[part]).mean()
                value_loss = ((values - returns[part]) ** 2).mean()
                loss = policy_loss + cfg.value_scale * value_loss - cfg.entropy_scale * entropies.mean()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(learned, cfg.grad_norm_clip)
                optimizer.step()


def assert_equals_plain_autograd(algorithm: PPO, **world: bool) -> None:
    """Do an update, of which nothing may differ by 1e-5, and every parameter must have moved by more than 1e-3."""
    plain, before = Plain(algorithm), algorithm.learners["actor_critic"].parameters.snapshot()
    rows = play(algorithm, **world)
    update(algorithm)
    plain.update(rows)
    after = algorithm.learners["actor_critic"].parameters.snapshot()
    assert after.keys() == plain.parameters.keys()
    for name, expected in plain.parameters.items():
        np.testing.assert_allclose(after[name], expected.detach().numpy(), rtol=0, atol=1e-5, err_msg=name)
        assert abs(after[name] - before[name]).max() > 1e-3, name


NETWORKS = {
    "shared": {"shared": True},
    "layer norm": {"layer_norm": True},
    "default initialisation": {"initialization": "default"},
    "shared, layer norm, default": {"shared": True, "layer_norm": True, "initialization": "default"},
}
POLICIES = {
    "state-dependent deviation": {"state_dependent_std": True, "initial_log_std": -0.5},
    "squashed": {"squashed": True, "initial_log_std": -0.5},
    "squashed, deviation 1": {"squashed": True},
    "squashed, state-dependent, shared": {"squashed": True, "state_dependent_std": True, "shared": True},
}


@pytest.mark.parametrize(
    ("space", "network"),
    [("discrete", name) for name in NETWORKS] + [("continuous", name) for name in [*NETWORKS, *POLICIES]],
)
def test_an_update_equals_plain_autograd(space, network):
    assert_equals_plain_autograd(make(space, network=(NETWORKS | POLICIES)[network]))


@pytest.mark.parametrize("space", list(SPACES))
def test_an_update_with_states_for_the_critic_equals_plain_autograd(space):
    assert_equals_plain_autograd(make(space, states=True))


@pytest.mark.parametrize("network", [{}, {"shared": True}], ids=["apart", "shared"])
def test_an_update_with_masks_equals_plain_autograd(network):
    assert_equals_plain_autograd(make(network=network), masks=True)


def test_default_initial_weights_are_uniform_within_one_over_the_root_of_the_inputs():
    algorithm = make(network={"policy_sizes": [400, 100], "initialization": "default"})
    parameters = algorithm.learners["actor_critic"].parameters.snapshot()
    # deviation of a uniform number within +- b: b / sqrt(3)
    for layer, inputs in (("0", OBSERVATION_SIZE), ("1", 400), ("2", 100)):
        for kind in ("weights", "biases"):
            array = parameters[f"policy.{kind}.{layer}"]
            assert abs(array).max() <= inputs**-0.5
            if array.size >= 400:
                assert array.std() * inputs**0.5 == pytest.approx(3**-0.5, rel=0.1)
    other = make(network={"policy_sizes": [400, 100], "initialization": "default"}, seed=1)
    assert not torch.equal(other.learners["actor_critic"].parameters.values, algorithm.learners["actor_critic"].parameters.values)


def test_a_deviation_by_the_network_begins_near_the_one_asked_for():
    algorithm = make("continuous", network={"state_dependent_std": True, "initial_log_std": -1.0})
    observations = torch.randn(50, OBSERVATION_SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        _, log_std = algorithm.distribution.moments(algorithm.networks.logits(observations))
    assert log_std.shape == (50, 2) and log_std.std() > 0
    assert log_std.numpy() == pytest.approx(-1.0, abs=0.1)  # its outputs begin with gain 0.01


# -- action masks --------------------------------------------------------------------------------------------------------------


def test_masked_actions_are_never_drawn():
    algorithm = make()
    snapshot = algorithm.snapshot()
    snapshot["policy"]["parameters"]["policy.biases.2"][:] = [9.0, 0.0, 0.0, 8.0]  # what is not allowed is likeliest
    algorithm.restore(snapshot)
    observations, masks = torch.zeros(6000, OBSERVATION_SIZE), torch.tensor([False, True, True, False]).expand(6000, -1)
    actor = algorithm.init_actor(6000, 0)
    _, actions, outputs = algorithm.act(actor, observations, None, masks, explore=True, progress=BEGIN)
    counts = torch.bincount(actions, minlength=4).tolist()
    # 3000 each, as their logits are the same; three standard deviations of a fair coin: 3 sqrt(6000) / 2 = 116
    assert counts[0] == counts[3] == 0 and abs(counts[1] - 3000) < 116
    assert torch.equal(outputs["action_masks"], masks)
    only = torch.eye(4, dtype=torch.bool)[torch.arange(6000) % 4]
    for explore in (True, False):
        _, actions, _ = algorithm.act(actor, observations, None, only, explore=explore, progress=BEGIN)
        assert torch.equal(actions, only.int().argmax(1))


@pytest.mark.parametrize("masks", [False, True])
def test_the_ratio_of_the_first_minibatch_is_one(masks):
    algorithm = make(network={"initialization": "default"}, minibatches=1, epochs=1)
    drawn, sample = [], algorithm.distribution.sample

    def remember(logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        actions = sample(logits, generator)
        drawn.append(algorithm.distribution.log_prob(logits, actions))
        return actions

    algorithm.distribution.sample = remember
    batches = watch(algorithm, "improve")
    for seed in range(3):
        drawn.clear()
        play(algorithm, seed, masks=masks)
        metrics = update(algorithm)
        # against the very numbers that the choices were drawn by, but for rounding in batches of another size
        assert torch.allclose(batches[-1].log_probs, torch.cat(drawn), rtol=0, atol=1e-6)
        assert metrics["policy/approx_kl"] == pytest.approx(0, abs=1e-7) and metrics["policy/clip_fraction"] == 0
        assert metrics["loss/policy"] == pytest.approx(0, abs=1e-6)  # -mean of advantages standardised


def test_the_entropy_is_that_of_the_allowed_choices():
    algorithm = make(minibatches=1, epochs=1)
    snapshot = algorithm.snapshot()
    for array in snapshot["policy"]["parameters"].values():
        array[:] = 0
    algorithm.restore(snapshot)
    allowed = [row.outputs["action_masks"].sum(1) for row in play(algorithm, masks=True)]
    # all logits are 0: log of the number of allowed choices
    assert update(algorithm)["policy/entropy"] == pytest.approx(np.log(allowed).mean(), abs=1e-6)
    assert len(np.unique(allowed)) > 1


# -- schedules -----------------------------------------------------------------------------------------------------------------

HALF_WAY = Progress(7 * 6 - 1, 70)  # the sixth rollout of ten began at 35: 5/10
LAST = Progress(100 * 7 - 1, 70)  # beyond the horizon


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("setting", ["learning_rate", "ratio_clip", "entropy_scale"])
def test_half_way_to_nothing_equals_half_of_it(setting, kind):
    # large steps, so that many ratios are clipped
    values = {"learning_rate": 0.03, "ratio_clip": 0.25, "entropy_scale": 0.5}
    half = {**values, setting: values[setting] / 2}
    scheduled, metrics = learn(HALF_WAY, **values, **{f"{setting}_schedule": kind})
    constant, expected = learn(HALF_WAY, **half)
    whole, _ = learn(HALF_WAY, **values)
    if kind == "linear":
        assert_equal(scheduled, constant)
    else:  # cos(pi / 2) is 6e-17
        np.testing.assert_allclose(
            scheduled.learners["actor_critic"].parameters.values.numpy(),
            constant.learners["actor_critic"].parameters.values.numpy(),
            atol=1e-6,
        )
    assert not np.allclose(
        scheduled.learners["actor_critic"].parameters.values.numpy(),
        whole.learners["actor_critic"].parameters.values.numpy(),
        atol=1e-4,
    )
    assert {tag: metrics[tag] for tag in expected} == pytest.approx(expected, abs=1e-6)
    assert metrics.get("policy/ratio_clip") == (pytest.approx(0.125) if setting == "ratio_clip" else None)


def test_an_entropy_bonus_at_its_end_is_none():
    scheduled, _ = learn(LAST, entropy_scale=0.5, entropy_scale_schedule="linear")
    assert_equal(scheduled, learn(LAST, entropy_scale=0.0)[0])
    with_bonus, _ = learn(Progress(6, 70), entropy_scale=0.5, entropy_scale_schedule="linear")
    assert_equal(with_bonus, learn(entropy_scale=0.5)[0])


def test_a_learning_rate_at_its_end_of_nothing_learns_nothing():
    algorithm = make(learning_rate_schedule="cosine")
    before = algorithm.learners["actor_critic"].parameters.snapshot()
    play(algorithm)
    assert update(algorithm, LAST)["policy/learning_rate"] == 0
    np.testing.assert_equal(algorithm.learners["actor_critic"].parameters.snapshot(), before)


@pytest.mark.parametrize(("progress", "clipped"), [(Progress(6, 70), 0.0), (HALF_WAY, 1.0)])
def test_ratios_are_clipped_at_the_scheduled_value(progress, clipped):
    # all ratios are 1.15: inside 1 +- 0.2, outside 1 +- 0.1. Outside, a positive advantage has nothing more to gain.
    algorithm = make(ratio_clip=0.2, ratio_clip_schedule="linear", epochs=1, minibatches=1)
    prepare = algorithm._prepare

    def shifted(rollout: Any) -> Any:
        batch = prepare(rollout)
        batch.log_probs -= np.log(1.15)
        batch.advantages[:] = 2.0
        return batch

    algorithm._prepare = shifted
    play(algorithm)
    metrics = update(algorithm, progress)
    assert metrics["policy/clip_fraction"] == pytest.approx(clipped)
    # -min(1.15 x 2, clip x 2)
    assert metrics["loss/policy"] == pytest.approx(-2.2 if clipped else -2.3, abs=1e-5)
    assert metrics["policy/ratio_clip"] == pytest.approx(0.1 if clipped else 0.2)


def cart_pole(timesteps: int, *, horizon: int | None = None, **cfg: Any) -> SequentialTrainer:
    """Return a trainer of a small PPO on two copies of CartPole."""
    env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 2}, seed=3)
    settings = {"rollout_length": 16, "epochs": 2, "minibatches": 2, "network": {"policy_sizes": [8], "value_sizes": [8]}}
    algorithm = PPO(env.observation_space, env.action_space, num_envs=2, cfg={**settings, **cfg}, seed=3)
    return SequentialTrainer(env, Agent(algorithm), cfg={"timesteps": timesteps, "disable_progressbar": True}, horizon=horizon)


def watch_rates(trainer: SequentialTrainer) -> list[float]:
    """Let the list returned collect the learning rate of every update from now on."""
    algorithm, rates = trainer.agents[0].algorithm, []
    learn = algorithm.update

    def watched(progress: Progress) -> dict[str, float]:
        metrics = learn(progress)
        rates.append(metrics["policy/learning_rate"])
        return metrics

    algorithm.update = watched
    return rates


def test_a_schedule_runs_over_the_runs_timesteps():
    trainer = cart_pole(64, learning_rate=0.008, learning_rate_schedule="linear", learning_rate_end=0.5)
    rates = watch_rates(trainer)
    trainer.train()
    # 0.008 (1 - d / 2) at 0, 1/4, 1/2, 3/4
    assert rates == pytest.approx([0.008, 0.007, 0.006, 0.005], rel=1e-9)


def test_a_longer_resume_keeps_the_first_runs_horizon():
    settings = {"learning_rate": 0.008, "learning_rate_schedule": "linear", "learning_rate_end": 0.5}
    first = cart_pole(32, horizon=64, **settings)
    first.train()
    longer = cart_pole(96, **settings)
    longer.restore(first.snapshot()[0])
    rates = watch_rates(longer)
    longer.train()
    # updates 2 and 3 of the horizon's 4, then two beyond it, at the end
    assert longer.horizon == 64
    assert rates == pytest.approx([0.006, 0.005, 0.004, 0.004], rel=1e-9)


# -- learning rate by the KL ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [None, 0.02])
def test_per_epoch_by_the_mean_of_its_minibatches(target):
    # in units of the target, 0.008 if none is given: means of 4 minibatches
    #   (0.5 + 1 + 3 + 4.5) / 4 = 2.25 > 2: down;  7.9 / 4 < 2: as it is;  (0.2 + 0.4 + 0.6 + 0.4) / 4 = 0.4 < 1/2: up
    kls = [0.5, 1.0, 3.0, 4.5, 0.0, 7.9, 0.0, 0.0, 0.2, 0.4, 0.6, 0.4]
    algorithm = make(adapt_learning_rate="epoch", kl_target=target, learning_rate=3e-4, epochs=3)
    fake(algorithm, [kl * (target or 0.008) for kl in kls])
    rates = watch_steps(algorithm)
    play(algorithm)
    metrics = update(algorithm)
    assert rates == pytest.approx([3e-4] * 4 + [2e-4] * 8, rel=1e-9)
    assert algorithm.learning_rate == metrics["policy/learning_rate"] == pytest.approx(3e-4, rel=1e-9)


@pytest.mark.parametrize("target", [None, 0.02])
def test_per_minibatch_before_its_step(target):
    # in units of the target, 0.01 if none is given: down, as it is, up, up
    algorithm = make(adapt_learning_rate="minibatch", kl_target=target, learning_rate=3e-4, epochs=1)
    fake(algorithm, [kl * (target or 0.01) for kl in (2.1, 1.9, 0.4, 0.1)], exact=True)
    rates = watch_steps(algorithm)
    play(algorithm)
    update(algorithm)
    assert rates == pytest.approx([2e-4, 2e-4, 3e-4, 4.5e-4], rel=1e-9)


@pytest.mark.parametrize(("kl", "bound"), [(1.0, 1e-6), (1e-4, 1e-2)])
@pytest.mark.parametrize("per", ["epoch", "minibatch"])
def test_an_adapted_learning_rate_stays_within_its_bounds(per, kl, bound):
    algorithm = make(adapt_learning_rate=per, learning_rate=1e-4, epochs=15)
    fake(algorithm, [kl] * 60, exact=per == "minibatch")
    play(algorithm)
    assert update(algorithm)["policy/learning_rate"] == bound  # 1.5^12 = 130


def test_per_epoch_by_the_kls_that_the_update_has():
    algorithm = make(adapt_learning_rate="epoch", learning_rate=5e-3, epochs=6)
    found, rates, expected = watch_diagnostics(algorithm), watch_steps(algorithm), [5e-3]
    for seed in range(3):
        play(algorithm, seed)
        update(algorithm)
    for i in range(0, 72, 4):
        mean = float(torch.stack(found[i : i + 4]).mean(0)[KL])
        expected.append(expected[-1] * (1 / 1.5 if mean > 0.016 else 1.5 if mean < 0.004 else 1.0))
        expected[-1] = min(expected[-1], 1e-2)
    assert rates == pytest.approx(np.repeat(expected[:-1], 4), rel=1e-6)
    assert len(set(rates)) > 2  # up and down


@pytest.mark.parametrize("space", list(SPACES))
@pytest.mark.parametrize("dummy_rows", [False, True], ids=["all rows", "dummy rows"])
def test_the_exact_kl_is_that_of_torchs_distributions(space, dummy_rows):
    algorithm, plain = make(space, adapt_learning_rate="minibatch", learning_rate=5e-3), {}
    kls, exact = [], algorithm._exact_kl

    def compared(minibatch: Any, logits: torch.Tensor) -> float:
        kls.append(exact(minibatch, logits))
        with torch.no_grad():
            old, new = (p.distribution(p.network("policy", minibatch.inputs)) for p in (plain["old"], Plain(algorithm)))
        rows = kl_divergence(old, new)
        mean = rows.mean() if minibatch.weights is None else rows[minibatch.weights > 0].mean()
        assert kls[-1] == pytest.approx(float(mean), rel=1e-3, abs=1e-6)
        return kls[-1]

    algorithm._exact_kl = compared
    for seed in range(2):
        plain["old"] = Plain(algorithm)
        play(algorithm, seed, dummy_rows=dummy_rows)
        update(algorithm)
    assert len(kls) == 24 and max(kls) > 0.005


@pytest.mark.parametrize("per", ["epoch", "minibatch"])
def test_an_adapted_learning_rate_is_kept_between_updates_and_in_a_checkpoint(per, tmp_path):
    agent = Agent(make(adapt_learning_rate=per, learning_rate=3e-4))
    fake(agent.algorithm, [1.0] * 12 + [0.01] * 12, exact=per == "minibatch")
    play(agent.algorithm)
    update(agent.algorithm)
    # three epochs down: 3e-4 / 1.5^3 = 3e-4 / 3.375; twelve minibatches: 3e-4 / 1.5^12 = 3e-4 / 129.746338
    expected = pytest.approx(8.888889e-5 if per == "epoch" else 2.312204e-6, rel=1e-6)
    assert agent.algorithm.learning_rate == expected
    agent.save(tmp_path / "kept")
    other = Agent(make(adapt_learning_rate=per, learning_rate=3e-4, seed=1))
    other.load(tmp_path / "kept")
    assert other.algorithm.learning_rate == agent.algorithm.learning_rate
    play(agent.algorithm, 1)
    assert update(agent.algorithm)["policy/learning_rate"] == expected  # as near its target as can be


def test_a_learning_rate_that_is_a_setting_is_not_taken_from_a_checkpoint():
    algorithm, _ = learn(learning_rate=0.01)
    other = make(learning_rate=0.02)
    other.restore(algorithm.snapshot())
    play(other, 1)
    assert update(other)["policy/learning_rate"] == 0.02


@pytest.mark.parametrize(
    "cfg",
    [
        {"adapt_learning_rate": "epoch", "learning_rate": 1e-3},
        {"adapt_learning_rate": "minibatch", "learning_rate": 1e-3, "kl_stop": 0.02},
        {"normalize_rewards": True, "reward_clip": 3.0, "normalize_values": True, "value_clip": 0.2},
        {
            "learning_rate_schedule": "cosine", "ratio_clip_schedule": "exponential", "ratio_clip_end": 0.1,
            "entropy_scale_schedule": "linear", "network": {"shared": True, "layer_norm": True, "policy_sizes": [8]},
        },
    ],
    ids=["per epoch", "per minibatch", "rewards", "schedules"],
)  # fmt: skip
def test_resumed_equals_uninterrupted(cfg):
    whole = cart_pole(160, **cfg)
    whole.train()
    first = cart_pole(88, horizon=160, **cfg)  # ends within a rollout
    first.train()
    rest = cart_pole(160, **cfg)
    rest.restore(copy.deepcopy(first.snapshot()[0]))
    rest.train()
    one, other = whole.snapshot()[0], rest.snapshot()[0]
    one["trainer"].pop("training_seconds"), other["trainer"].pop("training_seconds")
    np.testing.assert_equal(other, one)
    assert whole.agents[0].updates == 10
    if "adapt_learning_rate" in cfg:
        assert one["agents/agent/training"]["algorithm"]["learning_rate"] != 1e-3


# -- stop by the KL ------------------------------------------------------------------------------------------------------------


def test_the_stop_comes_before_the_step_and_ends_all_epochs():
    algorithm = make(kl_stop=0.1, epochs=3)
    fake(algorithm, [0.0, 0.01, 0.1, 0.02, 0.03, 0.11])  # in the second epoch; at 0.1 not yet
    parts, rates = watch(algorithm, "_differentiate_loss"), watch_steps(algorithm)
    play(algorithm)
    metrics = update(algorithm)
    assert (
        len(parts) == 6
        and len(rates) == algorithm.learners["actor_critic"].optimizer.steps == metrics["policy/gradient_steps"] == 5
    )
    assert metrics["policy/approx_kl"] == pytest.approx((0.0 + 0.01 + 0.1 + 0.02 + 0.03) / 5)  # of the steps taken
    assert algorithm.snapshot()["training"]["optimizers"]["actor_critic"]["steps"] == 5
    # the same as an optimiser that is deaf after its fifth step
    deaf = make(epochs=3)
    found, step = watch_diagnostics(deaf), deaf.learners["actor_critic"].optimizer.step
    deaf.learners["actor_critic"].optimizer.step = lambda: step() if len(found) <= 5 else None
    play(deaf)
    update(deaf)
    assert torch.equal(deaf.learners["actor_critic"].parameters.values, algorithm.learners["actor_critic"].parameters.values)
    means = dict(zip(METRICS[:-1], torch.stack(found[:5]).mean(0).tolist(), strict=True))  # but for the gradient's norm
    means.pop("policy/approx_kl")
    assert {tag: metrics[tag] for tag in means} == means


def test_a_stop_at_the_first_minibatch_takes_no_step():
    algorithm = make(kl_stop=0.1)
    before = algorithm.learners["actor_critic"].parameters.snapshot()
    fake(algorithm, [0.2] + [0.0] * 12)
    play(algorithm)
    metrics = update(algorithm)
    assert metrics["policy/gradient_steps"] == algorithm.learners["actor_critic"].optimizer.steps == 0
    assert "loss/policy" not in metrics  # a mean over no step
    np.testing.assert_equal(algorithm.learners["actor_critic"].parameters.snapshot(), before)
    play(algorithm, 1)
    assert (
        update(algorithm)["policy/gradient_steps"] == algorithm.learners["actor_critic"].optimizer.steps == 12
    )  # the next update begins anew


def test_the_kls_that_an_update_has_stop_it():
    algorithm = make(kl_stop=0.004, learning_rate=0.02, epochs=10)
    found = watch_diagnostics(algorithm)
    play(algorithm)
    metrics = update(algorithm)
    kls = [float(diagnostics[KL]) for diagnostics in found]
    assert 1 < len(kls) < 40 and max(kls[:-1]) <= 0.004 < kls[-1]
    assert metrics["policy/gradient_steps"] == len(kls) - 1
    assert metrics["policy/approx_kl"] == pytest.approx(np.mean(kls[:-1]), rel=1e-5)


@pytest.mark.parametrize("space", list(SPACES))
def test_a_stop_out_of_reach_changes_nothing(space):
    stopped, metrics = learn(space=space, updates=2, kl_stop=1e9)
    plain, expected = learn(space=space, updates=2)
    assert_equal(stopped, plain)
    assert metrics == {**expected, "policy/gradient_steps": 12}


def test_the_minibatch_that_stops_does_not_change_the_learning_rate():
    algorithm = make(adapt_learning_rate="minibatch", kl_stop=0.1, learning_rate=3e-4)
    fake(algorithm, [0.0, 0.0, 0.2])
    fake(algorithm, [1.0, 1.0], exact=True)  # a third is not asked for
    play(algorithm)
    # twice down: 3e-4 / 2.25
    assert update(algorithm)["policy/learning_rate"] == pytest.approx(1.333333e-4, rel=1e-5)


def test_the_epoch_that_stops_still_counts():
    algorithm = make(adapt_learning_rate="epoch", kl_stop=0.1, learning_rate=3e-4)
    fake(algorithm, [0.0, 0.2])  # mean 0.1 > 2 x 0.008
    play(algorithm)
    assert update(algorithm)["policy/learning_rate"] == pytest.approx(2e-4, rel=1e-9)


# -- value clipping ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [False, True], ids=["raw", "normalised"])
def test_the_gradient_of_clipped_values_is_autograds(normalize):
    algorithm = make(value_clip=0.1, normalize_values=normalize, learning_rate=0.02, value_scale=0.7, grad_norm_clip=0.0)
    batches = watch(algorithm, "improve")
    for seed in range(2):
        play(algorithm, seed)
        update(algorithm)
    batch, plain = batches[-1], Plain(algorithm)  # values have moved since: some by more than 0.1
    evaluation = algorithm.evaluate(batch)
    algorithm.learners["actor_critic"].parameters.clear_gradients()
    evaluation.vjp(algorithm._differentiate_loss(batch, evaluation, 0.2, 0.0)[1])
    values = plain.network("value", batch.inputs)[:, 0]
    near = batch.values + (values - batch.values).clamp(-0.1, 0.1)
    errors, clipped = (values - batch.returns) ** 2, (near - batch.returns) ** 2
    (0.7 * torch.max(errors, clipped).mean()).backward()
    for name, parameter in algorithm.learners["actor_critic"].parameters.named.items():
        if name.startswith("value"):
            assert torch.allclose(parameter.grad, plain.parameters[name].grad, atol=1e-6), name
            assert abs(parameter.grad).max() > 1e-3
    assert 2 <= int((clipped > errors).sum()) <= 19  # rows of both kinds


def test_values_kept_for_clipping_are_in_the_statistics_of_the_returns():
    algorithm = make(value_clip=0.1, normalize_values=True, learning_rate=0.02)
    play(algorithm)
    update(algorithm)
    old, plain = algorithm.value_moments, Plain(algorithm)
    batches = watch(algorithm, "improve")
    rows = play(algorithm, 1)
    update(algorithm)
    new = algorithm.value_moments
    assert abs(float(old.mean - new.mean)) > 0.01 and float(new.count) == 42
    with torch.no_grad():
        predicted = plain.network("value", torch.from_numpy(np.concatenate([row.observations for row in rows])))[:, 0]
    # into the environment's units by the old statistics, out of them by the new
    raw = old.mean + predicted * old.variance.sqrt()
    assert torch.allclose(batches[0].values, (raw - new.mean) / new.variance.sqrt(), atol=1e-5)


# -- rewards -------------------------------------------------------------------------------------------------------------------


def for_rewards(**cfg: Any) -> PPO:
    """Return PPO for one copy, with values of 0, gamma = 1/2 and lambda = 1: advantages are discounted sums."""
    settings = {"rollout_length": 3, "minibatches": 1, "discount_factor": 0.5, "gae_lambda": 1.0, "standardize_advantages": False}
    algorithm = PPO(Box(-1, 1, (1,)), Discrete(2), num_envs=1, cfg={**settings, "network": SIZES, **cfg})
    snapshot = algorithm.snapshot()
    for array in snapshot["policy"]["parameters"].values():
        array[:] = 0
    algorithm.restore(snapshot)
    return algorithm


def record(algorithm: PPO, *rewards: float, ends: tuple[int, ...] = (), dummies: tuple[int, ...] = ()) -> None:
    """Record rows of one copy; `ends` terminate, `dummies` did not happen."""
    for t, reward in enumerate(rewards):
        zeros, action, array = np.zeros((1, 1), np.float32), np.zeros(1, np.int64), np.array([reward], np.float32)
        terminated, truncated, valid = (np.array([flag]) for flag in (t in ends, False, t not in dummies))
        algorithm.record(
            Transition(zeros, None, action, zeros, None, array, terminated, truncated, valid if dummies else None, {},
                       {"actions": action})
        )  # fmt: skip


def advantages(algorithm: PPO) -> list[float]:
    """Return those of the full rollout; nothing is learned, so that values stay 0."""
    batch = algorithm._prepare(algorithm.memory.read())
    assert torch.equal(batch.returns, batch.advantages)
    return batch.advantages.tolist()


@pytest.mark.parametrize(
    ("cfg", "expected"),
    [
        # 6,  -4 + 6/2 = -1,  10 - 1/2 = 9.5
        ({}, [9.5, -1.0, 6.0]),
        ({"reward_scale": 0.1}, [0.95, -0.1, 0.6]),
        # 10, -4, 6 clipped to 5, -4, 5:  5,  -4 + 5/2 = -1.5,  5 - 1.5/2 = 4.25
        ({"reward_clip": 5.0}, [4.25, -1.5, 5.0]),
        # scaled 1, -0.4, 0.6, then clipped 0.5, -0.4, 0.5:  0.5,  -0.4 + 0.5/2 = -0.15,  0.5 - 0.15/2 = 0.425
        ({"reward_scale": 0.1, "reward_clip": 0.5}, [0.425, -0.15, 0.5]),
    ],
    ids=["as they are", "scaled", "clipped", "scaled, then clipped"],
)
def test_rewards_scaled_and_clipped(cfg, expected):
    algorithm = for_rewards(**cfg)
    record(algorithm, 10, -4, 6)
    assert advantages(algorithm) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("cfg", "rewards"),
    [
        ({}, [2, 4, 6]),
        ({"reward_scale": 0.5}, [1, 2, 3]),
        ({"reward_scale": 0.5, "reward_clip": 1.5}, [1, 2, 1.5 * 26**0.5 / 3]),  # 3 / 1.699673 is clipped, 2 / 1.699673 not
    ],
)
def test_rewards_normalised_by_the_deviation_of_the_running_returns(cfg, rewards):
    # running returns 2, 4 + 2/2 = 5, and after the end 6: mean 13/3, variance (4 + 25 + 36)/3 - 169/9 = 26/9
    algorithm = for_rewards(normalize_rewards=True, **cfg)
    record(algorithm, 2, 4, 6, ends=(1,))
    first, second, third = (reward * 3 / 26**0.5 for reward in rewards)
    assert advantages(algorithm) == pytest.approx([first + second / 2, second, third], abs=1e-6)


def test_running_returns_and_their_statistics_go_on_in_the_next_rollout():
    algorithm = for_rewards(normalize_rewards=True)
    record(algorithm, 2, 4, 6, ends=(1,))
    advantages(algorithm)
    assert algorithm.running_returns.tolist() == [6.0]
    # 1 + 6/2 = 4, 2 + 4/2 = 4, 3; all six: 2, 5, 6, 4, 4, 3: mean 4, variance (4 + 1 + 4 + 0 + 0 + 1) / 6 = 10/6
    record(algorithm, 1, 2, 3, ends=(1, 2))
    scale = (10 / 6) ** 0.5
    assert advantages(algorithm) == pytest.approx([2 / scale, 2 / scale, 3 / scale], abs=1e-6)
    assert [float(x) for x in algorithm.reward_moments] == pytest.approx([4.0, 10 / 6, 6.0])
    assert algorithm.running_returns.tolist() == [0.0]


@pytest.mark.parametrize("how", ["interrupt", "discard"])
def test_an_episode_that_is_left_between_rollouts_has_no_running_return(how):
    algorithm = for_rewards(normalize_rewards=True)
    record(algorithm, 2, 4, 6)
    advantages(algorithm)
    assert algorithm.running_returns.tolist() == [8.5]  # 6 + (4 + 2/2) / 2
    algorithm.interrupt(np.zeros((1, 1), np.float32)) if how == "interrupt" else algorithm.discard()
    record(algorithm, 1, 0, 0)
    advantages(algorithm)
    # 2, 5, 8.5, and 1, 0.5, 0.25 from nothing: sum 17.25
    assert float(algorithm.reward_moments.mean) == pytest.approx(17.25 / 6)


def test_an_episode_that_is_left_within_a_rollout_has_no_running_return():
    algorithm = for_rewards(normalize_rewards=True)
    record(algorithm, 2, 4)
    algorithm.interrupt(np.zeros((1, 1), np.float32))
    record(algorithm, 6)
    advantages(algorithm)
    assert float(algorithm.reward_moments.mean) == pytest.approx((2 + 5 + 6) / 3)
    record(algorithm, 1, 1)
    algorithm.discard()
    record(algorithm, 1, 0, 0)
    advantages(algorithm)
    assert float(algorithm.reward_moments.mean) == pytest.approx((2 + 5 + 6 + 1 + 0.5 + 0.25) / 6)


def test_rows_that_did_not_happen_feed_no_reward_statistics():
    algorithm = for_rewards(normalize_rewards=True, rollout_length=4)
    record(algorithm, 2, 4, 0, 6, ends=(1,), dummies=(2,))
    # 2, 5 and 6, as without row 2
    rows = advantages(algorithm)
    scale = 26**0.5 / 3
    assert [rows[0], rows[1], rows[3]] == pytest.approx([4 / scale, 4 / scale, 6 / scale], abs=1e-6)
    assert [float(x) for x in algorithm.reward_moments] == pytest.approx([13 / 3, 26 / 9, 3.0])


CHANGED = {"reward_scale": 0.5, "reward_clip": 0.7, "normalize_rewards": True}


def test_the_environments_rewards_are_not_written_to():
    algorithm = make(**CHANGED)
    rows = play(algorithm)
    kept = [row.rewards.copy() for row in rows]
    update(algorithm)
    np.testing.assert_array_equal([row.rewards for row in rows], kept)


def test_episodes_are_reported_in_the_environments_units():
    env = GymnasiumEnv({"id": "sample_envs:Constant-v0", "num_envs": 2}, seed=0)
    cfg = {"rollout_length": 8, "network": SIZES, **CHANGED}
    agent = Agent(PPO(env.observation_space, env.action_space, num_envs=2, cfg=cfg))
    SequentialTrainer(env, agent, cfg={"timesteps": 24, "disable_progressbar": True}).train()
    assert list(agent.statistics.returns) == [10.0] * 4  # reward 1 for ten steps


def test_reward_statistics_are_restored_to_the_bit():
    algorithm = make(**CHANGED)
    for seed in range(2):
        play(algorithm, seed)
        update(algorithm)
    other = make(seed=5, **CHANGED)
    play(other, 7)
    update(other)
    other.restore(copy.deepcopy(algorithm.snapshot()))
    assert_equal(other, algorithm)
    for one in (algorithm, other):
        play(one, 3)
        update(one)
    assert_equal(other, algorithm)
    assert float(algorithm.reward_moments.count) == 63 and algorithm.running_returns.any()


def test_what_stands_in_a_dummy_row_does_not_reach_the_running_returns():
    algorithm = for_rewards(normalize_rewards=True, rollout_length=4)
    record(algorithm, 2, 4, 37, 6, ends=(1,), dummies=(2,))
    advantages(algorithm)
    # gamma 0.5: 2, 4 + 0.5 x 2 = 5, the dummy row, 6
    assert float(algorithm.reward_moments.mean) == pytest.approx((2 + 5 + 6) / 3)


def test_metrics_are_means_over_the_updates_that_had_them():
    """The first rollout only feeds the statistics: its update has no metrics."""
    cfg = {"rollout_length": 2, "minibatches": 2, "epochs": 1, "normalize_observations": True}
    agent = Agent(PPO(Box(-1, 1, (3,)), Discrete(2), num_envs=2, cfg=cfg))
    nowhere = np.zeros(2, bool)
    for t in range(4):
        observations = np.random.default_rng(t).normal(size=(2, 3)).astype(np.float32)
        actions = agent.act(observations, timestep=t, timesteps=100)
        agent.record_transition(
            observations=observations, states=None, actions=actions, rewards=np.ones(2, np.float32),
            next_observations=observations, next_states=None, terminated=nowhere, truncated=nowhere, infos={},
            timestep=t, timesteps=100,
        )  # fmt: skip
        agent.post_interaction(t, 100)
    assert agent.updates == 2
    row = agent.read_metrics()
    assert row["policy/learning_rate"] == 2.5e-4
    assert row["loss/value"] == agent.metrics["loss/value"]
