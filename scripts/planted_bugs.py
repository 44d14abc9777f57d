"""Plants bugs of the kind that raise no error into a copy of the package, one at a time, and tells which ones the tests catch.

    .venv/bin/python scripts/planted_bugs.py              all of them
    .venv/bin/python scripts/planted_bugs.py clip seeds   those whose name holds one of the words

A bug is an exact replacement of text. Where the text is no longer there, the script stops and says so: mend the entry. Exit
status 0 if every bug is caught, 1 if one isn't, 2 if an entry doesn't fit or the tests fail without a bug.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PPO, A2C, ON_POLICY = "agents/ppo/torch.py", "agents/a2c/torch.py", "agents/on_policy/torch.py"
LOSSES, RETURNS, OPTIMIZERS = "ops/losses.py", "ops/returns/torch.py", "optimizers/torch.py"
DISTRIBUTIONS, NETWORKS, INPUTS = "models/distributions/torch.py", "models/networks/torch.py", "models/inputs/torch.py"
BY_HAND, ENCODERS, IMAGES = "models/engines/by_hand/torch.py", "models/encoders/torch.py", "models/images.py"
MEMORY, GYMNASIUM, TRAINER = "memories/rollout/staged.py", "envs/gymnasium.py", "trainers/base.py"
BASE, LAYERS = "agents/algorithm/torch.py", "models/layers/torch.py"
OFF_POLICY, DQN, DDQN = "agents/off_policy/torch.py", "agents/dqn/torch.py", "agents/ddqn/torch.py"
DDPG, TD3, SAC = "agents/ddpg/torch.py", "agents/td3/torch.py", "agents/sac/torch.py"
REPLAY, RING, PRIORITIES = "memories/replay/host.py", "memories/replay/ring.py", "memories/replay/priorities.py"
MEMORY_TESTS, SEQUENCE_TESTS = ("agents/test_memory.py",), ("agents/test_memory_off_policy.py",)
OFF_POLICY_TESTS, REPLAY_TESTS = ("agents/test_off_policy_torch.py",), ("memories/test_replay_memory.py",)


@dataclass(frozen=True)
class Bug:
    """What is planted (file under rltrain/, text, text instead) and the tests, under tests/, that should notice."""

    name: str
    edits: tuple[tuple[str, str, str], ...]
    tests: tuple[str, ...]


BUGS = [
    Bug(
        "sign of the policy's gradient",
        ((LOSSES, "xp.where(plain <= clipped, -plain, 0.0)", "xp.where(plain <= clipped, plain, 0.0)"),),
        ("agents/test_probes.py",),
    ),
    Bug(
        "sign of the entropy bonus",
        ((LOSSES, "entropies=-entropy_scale * shares", "entropies=entropy_scale * shares"),),
        ("agents/test_probes.py",),
    ),
    Bug(
        "swapped clip: maximum for minimum",
        (
            (LOSSES, "return -xp.minimum(plain, clipped)", "return -xp.maximum(plain, clipped)"),
            (LOSSES, "xp.where(plain <= clipped,", "xp.where(plain >= clipped,"),
        ),
        ("ops/test_losses.py",),
    ),
    Bug(
        "clip bounds swapped",
        ((LOSSES, "xp.clip(ratios, 1 - ratio_clip, 1 + ratio_clip)", "xp.clip(ratios, 1 + ratio_clip, 1 - ratio_clip)"),),
        ("ops/test_losses.py",),
    ),
    Bug(
        "termination bootstraps",
        ((RETURNS, "discount_factor * next_values * ~terminated", "discount_factor * next_values"),),
        ("ops/test_returns.py",),
    ),
    Bug(
        "truncation does not cut the trace",
        ((RETURNS, "~(terminated | truncated)", "~terminated"),),
        ("ops/test_returns.py",),
    ),
    Bug(
        "truncation taken for termination",
        (
            (ON_POLICY, "            rollout.terminated,\n            rollout.truncated,",
             "            rollout.terminated | rollout.truncated,\n            rollout.truncated,"),
        ),
        ("test_constant_reward.py",),
    ),
    Bug(
        "bootstraps from the next episode's first observation",
        ((MEMORY, "if last else transition.truncated,", "if last else np.zeros(self.num_envs, bool),"),),
        ("agents/test_probes.py",),
    ),
    Bug(
        "successor is the observation after the reset",
        ((TRAINER, "next_observations=step.next_observations,", "next_observations=env.reset_done(),"),),
        ("trainers/test_call_order.py",),
    ),
    Bug(
        "returns made of standardised advantages",
        ((ON_POLICY, "returns = advantages + values", "returns = losses.standardize(torch, advantages) + values"),),
        ("agents/test_probes.py",),
    ),
    Bug(
        "old log-probabilities made anew in every epoch",
        (
            (PPO, "            # ---- shuffle\n",
             "            with torch.no_grad():\n"
             "                logits = self._masked(self.networks.logits(batch.inputs), batch.action_masks)\n"
             "                batch.log_probs = self.distribution.log_prob(logits, batch.actions)\n"),
        ),
        ("agents/test_ppo_torch.py",),
    ),
    Bug(
        "observation statistics folded before the epochs",
        (
            (ON_POLICY, "        rollout = self.memory.read()\n",
             "        rollout = self.memory.read()\n        self._fold_observations(rollout)\n"),
            (ON_POLICY, "        self._fold_observations(rollout)\n        return metrics", "        return metrics"),
        ),
        ("agents/test_ppo_torch.py",),
    ),
    Bug(
        "old values not re-expressed in the new statistics",
        ((ON_POLICY, "            values = normalizers.normalize(torch, self.value_moments, values)\n", ""),),
        ("agents/test_ppo_torch.py",),
    ),
    Bug(
        "rows that did not happen are learned from",
        ((ON_POLICY, "            weights=weights,\n", "            weights=None,\n"),),
        ("test_constant_reward.py",),
    ),
    Bug(
        "dummy rows are not marked",
        ((GYMNASIUM, "if self._resets_copies or not self._done.any() else ~self._done", ""),),
        ("envs/test_gymnasium.py",),
    ),
    Bug(
        "all copies are reset when one ends",
        ((GYMNASIUM, 'options={"reset_mask": self._done.copy()}', 'options={"reset_mask": np.ones_like(self._done)}'),
         (GYMNASIUM, "spaces.choose_rows(self._done, self._arrange(fresh), self._observations)", "self._arrange(fresh)")),
        ("envs/test_gymnasium.py",),
    ),
    Bug(
        "evaluation explores",
        ((TRAINER, "explore = learn or self.stochastic_evaluation", "explore = True"),),
        ("trainers/test_call_order.py",),
    ),
    Bug(
        "evaluation acts with training's stream",
        (("agents/base.py", "actor = self._evaluation_actor if evaluation else self.actor", "actor = self.actor"),),
        ("agents/test_base.py",),
    ),
    Bug(
        "quota by finish order",
        (
            ("evaluation.py", "if len(self.returns[i]) < self.quota[i]:", "if sum(map(len, self.returns)) < sum(self.quota):"),
            ("evaluation.py", "return all(len(done) >= quota for done, quota in zip(self.returns, self.quota, strict=True))",
             "return sum(map(len, self.returns)) >= sum(self.quota)"),
        ),
        ("test_evaluation.py",),
    ),
    Bug(
        "one seed for all copies",
        (("seeding.py", "seed32(seed, role, first + i)", "seed32(seed, role, first)"),),
        ("test_seeding.py",),
    ),
    Bug(
        "seeds 1 and 2 share streams",
        (("seeding.py", "seed32(seed, role, first + i)", "seed32(0, role, seed + first + i)"),),
        ("test_seeding.py",),
    ),
    Bug(
        "parts of an environment count their copies from 0",
        ((GYMNASIUM, '"first_copy": first}', '"first_copy": 0}'),),
        ("envs/test_gymnasium.py",),
    ),
    Bug(
        "density of the clipped action",
        (
            (DISTRIBUTIONS, "return torch.addcmul(means, noise, log_std.exp())",
             "return torch.addcmul(means, noise, log_std.exp()).clamp(-1, 1)"),
        ),
        ("models/test_distributions_torch.py",),
    ),
    Bug(
        "KL of Gaussians from the new to the old",
        ((DISTRIBUTIONS, "= old.chunk(2, -1), new.chunk(2, -1)", "= new.chunk(2, -1), old.chunk(2, -1)"),),
        ("models/test_distributions_torch.py",),
    ),
    Bug(
        "KL of bits from the new to the old",
        ((DISTRIBUTIONS, "(torch.sigmoid(old) * (old - new) - softplus(old) + softplus(new))",
          "(torch.sigmoid(new) * (new - old) - softplus(new) + softplus(old))"),),
        ("models/test_distributions_torch.py",),
    ),
    Bug(
        "learning rate adapted by the KL from the new to the old",
        ((PPO, "self.distribution.kl(minibatch.statistics, self.distribution.statistics(logits))",
          "self.distribution.kl(self.distribution.statistics(logits), minibatch.statistics)"),),
        ("agents/test_ppo_options_torch.py",),
    ),
    Bug(
        "sign of the squashed density's correction",
        ((DISTRIBUTIONS, "(logits, actions) - _log_derivative(actions)", "(logits, actions) + _log_derivative(actions)"),),
        ("models/test_distributions_torch.py",),
    ),
    Bug(
        "squashed entropy is the Gaussian's",
        ((DISTRIBUTIONS, "(0.5 + LOG_SQRT_2PI) + correction", "(0.5 + LOG_SQRT_2PI) + 0 * correction"),),
        ("models/test_distributions_torch.py",),
    ),
    Bug(
        "sign of the entropy of bits",
        ((DISTRIBUTIONS, "(softplus(logits) - logits * torch.sigmoid(logits))",
          "(logits * torch.sigmoid(logits) - softplus(logits))"),),
        ("models/test_distributions_torch.py",),
    ),
    Bug(
        "choices of another dimension's logits",
        ((DISTRIBUTIONS, "index[row, :n] = np.arange(first, first + n)", "index[row, :n] = np.arange(n)"),),
        ("models/test_distributions_torch.py",),
    ),
    Bug(
        "deviation of the state without its start",
        ((DISTRIBUTIONS, "torch.clamp(self.initial_log_std + log_stds,", "torch.clamp(log_stds,"),),
        ("models/test_distributions_torch.py",),
    ),
    Bug(
        "masks ignored when acting",
        ((BASE, "return actor, self._logits(inputs, action_masks)", "return actor, self._logits(inputs, None)"),),
        ("trainers/test_call_order.py",),
    ),
    Bug(
        "masks ignored when learning",
        ((ON_POLICY, "logits = self._masked(outputs, batch.action_masks)", "logits = outputs"),),
        ("agents/test_ppo_options_torch.py",),
    ),
    Bug(
        "masks upside down",
        ((DISTRIBUTIONS, "(B, n) bool can be chosen.\"\"\"\n        return logits.masked_fill(~masks,",
          "(B, n) bool can be chosen.\"\"\"\n        return logits.masked_fill(masks,"),),
        ("models/test_distributions_torch.py",),
    ),
    Bug(
        "states recorded are those after the step",
        ((TRAINER, "states=states,\n                actions=", "states=env.state(),\n                actions="),),
        ("trainers/test_call_order.py",),
    ),
    Bug(
        "running return not reset at an episode's end",
        ((RETURNS, "(discount_factor * ~starts)", "(discount_factor * torch.ones_like(starts))"),),
        ("ops/test_running_returns.py",),
    ),
    Bug(
        "running return not reset between rollouts",
        ((RETURNS, "return sums, sums[-1] * ~done[-1]", "return sums, sums[-1]"),),
        ("ops/test_running_returns.py",),
    ),
    Bug(
        "a dummy row's reward in the running return",
        ((ON_POLICY, "rewards if rollout.valid is None else rewards * rollout.valid", "rewards"),),
        ("agents/test_ppo_torch.py",),
    ),
    Bug(
        "rewards normalised by their own deviation",
        ((ON_POLICY, "self.reward_moments, sums.view(-1), weights", "self.reward_moments, rewards.view(-1), weights"),),
        ("agents/test_ppo_options_torch.py",),
    ),
    Bug(
        "mean taken off normalised rewards",
        ((ON_POLICY, "rewards = rewards / normalizers.scale(torch, self.reward_moments)",
          "rewards = normalizers.normalize(torch, self.reward_moments, rewards)"),),
        ("agents/test_ppo_options_torch.py",),
    ),
    Bug(
        "sign of A2C's policy gradient",
        ((A2C, "actor_critic_gradients(-batch.advantages,", "actor_critic_gradients(batch.advantages,"),),
        ("agents/test_a2c_torch.py",),
    ),
    Bug(
        "value's gain for the policy's outputs",
        ((NETWORKS, "(policy, value), cfg", "((outputs, VALUE_GAIN), value), cfg"),),
        ("models/test_networks_torch.py",),
    ),
    Bug(
        "layer norm after the activation",
        (
            (LAYERS, "nn.functional.layer_norm(x, x.shape[1:],", "nn.functional.layer_norm(activate(x), x.shape[1:],"),
            (LAYERS, "            x = activate(x)\n", "            x = x if normalizes else activate(x)\n"),
        ),
        ("models/test_networks_torch.py",),
    ),
    Bug(
        "gradient of elu taken at its output",
        ((BY_HAND, "aten.elu_backward(g, 1.0, 1.0, 1.0, False, z)", "aten.elu_backward(g, 1.0, 1.0, 1.0, False, h)"),),
        ("models/test_engines_torch.py",),
    ),
    Bug(
        "gradients by hand overwrite those of the pass before",
        ((BY_HAND, "gradient.addmm_(g.t(), h)", "gradient.copy_(g.t() @ h)"),),
        ("models/test_engines_torch.py",),
    ),
    Bug(
        "gradient of the observations for that of the actions",
        ((BY_HAND, "g.mm(self.layers[0][0])[:, -count:]", "g.mm(self.layers[0][0])[:, :count]"),),
        ("models/test_engines_torch.py",),
    ),
    Bug(
        "value's gradient in place of the advantages' in a dueling network",
        ((NETWORKS, "torch.cat((q - q.mean(1, keepdim=True),", "torch.cat((q,"),),
        ("models/test_engines_torch.py",),
    ),
    Bug(
        "gradients that autograd put elsewhere are not learned from",
        ((OPTIMIZERS, "        self.gather_gradients()\n", ""),),
        ("models/test_autograd_torch.py",),
    ),
    Bug(
        "gradients that somebody left are learned from",
        ((OPTIMIZERS, "        self.gradients.zero_()\n", ""),),
        ("models/test_autograd_torch.py",),
    ),
    Bug(
        "bytes of an image as they are",
        ((IMAGES, "        return 255.0\n", "        return 1.0\n"),),
        ("models/test_encoders.py",),
    ),
    Bug(
        "images upside down: height for width",
        ((ENCODERS, "images.movedim(-1, -3)", "images.movedim(-1, -3).mT"),),
        ("models/test_encoders.py",),
    ),
    Bug(
        "residual blocks without what went in",
        ((ENCODERS, 'x = x + before if layer.residual == "second" else x', "x = x"),),
        ("models/test_encoders.py",),
    ),
    Bug(
        "RMSProp's epsilon under the root",
        ((OPTIMIZERS, "moments.sqrt().add_(self.epsilon)", "(moments + self.epsilon).sqrt()"),),
        ("optimizers/test_optimizers_torch.py",),
    ),
    Bug(
        "one-hot columns counted from 0, not from start",
        ((INPUTS, "(first - np.ravel(space.start), first, first", "(first, first, first"),),
        ("models/test_inputs_torch.py",),
    ),
    Bug(
        "replay: a time limit taken for an end",
        ((REPLAY, 'self.powers.take(steps) * ~flat["terminated"].take(last)',
          'self.powers.take(steps) * ~(flat["terminated"] | flat["truncated"]).take(last)'),),
        REPLAY_TESTS,
    ),
    Bug(
        "replay: successors of the next episode",
        ((RING, "if np.count_nonzero(transition.terminated) or np.count_nonzero(transition.truncated):", "if False:"),),
        REPLAY_TESTS,
    ),
    Bug(
        "replay: a slot freed too late",
        ((RING, ".tolist()\n            slots[:] = 0\n", ".tolist()\n"),),
        REPLAY_TESTS,
    ),
    Bug(
        "replay: n-step sums over the newest row",
        ((REPLAY, " & (last // ring.num_envs != newest)", ""),),
        REPLAY_TESTS,
    ),
    Bug(
        "replay: n-step sums over a time limit",
        ((REPLAY, '~(flat["terminated"].take(last) | flat["truncated"].take(last))', '~flat["terminated"].take(last)'),),
        REPLAY_TESTS,
    ),
    Bug(
        "replay: always gamma^n",
        ((REPLAY, "steps += going", "steps += 1"),),
        REPLAY_TESTS,
    ),
    Bug(
        "replay: rows that did not happen are drawn",
        ((REPLAY, "        if self.ring.any_invalid:\n            wrong", "        if False:\n            wrong"),),
        REPLAY_TESTS,
    ),
    Bug(
        "replay: priorities of old rows stay",
        ((RING, "priorities.add(self._rows_of(t), np.zeros(self.num_envs, bool))", "pass"),),
        REPLAY_TESTS,
    ),
    Bug(
        "replay: weights without the size",
        ((REPLAY, "(count * probabilities) ** -importance_exponent",
          "(self.count * probabilities) ** importance_exponent"),),
        REPLAY_TESTS,
    ),
    Bug(
        "replay: new rows have priority 1",
        ((PRIORITIES, "self.largest**self.exponent", "1.0"),),
        REPLAY_TESTS,
    ),
    Bug(
        "replay: signed errors",
        ((PRIORITIES, "np.abs(errors.astype(np.float64))", "errors.astype(np.float64)"),),
        REPLAY_TESTS,
    ),
    Bug(
        "off-policy: the first update makes up for the warm-up",
        ((OFF_POLICY, "max(1, min(self.env_steps, cfg.update_interval * self.num_envs))", "max(1, self.env_steps)"),),
        OFF_POLICY_TESTS,
    ),
    Bug(
        "off-policy: evaluations warm up too",
        ((OFF_POLICY, "if not actor.trains:", "if False:"),),
        OFF_POLICY_TESTS,
    ),
    Bug(
        "off-policy: targets never move by polyak",
        ((OFF_POLICY, "else self._step_moves_targets()", "else False"),),
        OFF_POLICY_TESTS,
    ),
    Bug(
        "off-policy: unweighted gradients",
        ((OFF_POLICY, "errors * batch.weights, gradients * batch.weights", "errors * batch.weights, gradients"),),
        OFF_POLICY_TESTS,
    ),
    Bug(
        "off-policy: noise goes on in the next episode",
        ((BASE, "return torch.where(done.view(-1, *[1] * (carry.ndim - 1)), torch.zeros_like(carry), carry)", "return carry"),),
        OFF_POLICY_TESTS,
    ),
    Bug(
        "memory: a true successor read as the first row of an episode",
        (
            (
                ON_POLICY,
                "last_values = parts[-1].step(self._read_last(rollout), known)",
                "last_values = parts[-1].step(self._read_last(rollout), parts[-1].init_carry(len(known[0])))",
            ),
        ),
        MEMORY_TESTS,
    ),
    Bug(
        "memory: it goes on from episode to episode in learning",
        (("models/engines/remembering/torch.py", "state = tuple(part * goes_on[t] for part in state)", "state = tuple(state)"),),
        MEMORY_TESTS,
    ),
    Bug(
        "memory: acting doesn't say where it began anew",
        ((BASE, "return starts | done, *(", "return starts, *("),),
        MEMORY_TESTS,
    ),
    Bug(
        "memory: rows that didn't happen are remembered",
        (("structures.py", "return ended if valid is None else ended | ~valid", "return ended"),),
        MEMORY_TESTS,
    ),
    Bug(
        "memory: sequences begin with nothing",
        ((ON_POLICY, "befores += [_by_copy(each)[::", "befores += [0 * _by_copy(each)[::"),),
        MEMORY_TESTS,
    ),
    Bug(
        "sequences: a successor read with what was remembered a row earlier",
        ((OFF_POLICY, "after = sample.last * count", "after = (sample.last - 1).clamp(0) * count"),),
        SEQUENCE_TESTS,
    ),
    Bug(
        "sequences: the same in JAX",
        (("agents/off_policy/jax.py", "after = sample.last * count", "after = jnp.maximum(sample.last - 1, 0) * count"),),
        ("agents/test_twins_off_policy.py",),
    ),
    Bug(
        "sequences: they begin with nothing, though a state is stored",
        ((OFF_POLICY, "burn_in + length), sample.carry)", "burn_in + length), None)"),),
        SEQUENCE_TESTS,
    ),
    Bug(
        "sequences: nothing is remembered while actions are random",
        ((OFF_POLICY, "if self.remembers:\n                actor, _", "if False:\n                actor, _"),),
        SEQUENCE_TESTS,
    ),
    Bug(
        "sequences: rows that didn't happen are learned from",
        ((OFF_POLICY, "shares(torch, batch.returns, batch.happened)", "shares(torch, batch.returns, None)"),),
        SEQUENCE_TESTS,
    ),
    Bug(
        "sequences: they reach beyond the newest row",
        ((REPLAY, "self.filled - self.window.timesteps + 1", "self.filled - self.window.timesteps + 2"),),
        REPLAY_TESTS,
    ),
    Bug(
        "sequences: the action before is another copy's",
        ((BASE, '"starts": starts, "actions_before": actions}', '"starts": starts, "actions_before": actions.roll(1, 0)}'),),
        SEQUENCE_TESTS,
    ),
    Bug(
        "DQN: the network instead of its target",
        ((DQN, "learner.target.values(batch.next_inputs), batch", "learner.network.values(batch.next_inputs), batch"),),
        OFF_POLICY_TESTS,
    ),
    Bug(
        "double DQN: the target chooses",
        ((DDQN, "chosen = self._choose(batch.next_inputs, batch.next_action_masks)",
          "chosen = learner.target.values(batch.next_inputs).argmax(1)"),),
        OFF_POLICY_TESTS,
    ),
    Bug(
        "DDPG: the policy moves the critic",
        ((BY_HAND, "return outputs, functools.partial(self._to_actions, kept, actions.shape[1])",
          "return outputs, lambda g: (self._to_parameters(kept, g), self._to_actions(kept, actions.shape[1], g))[1]"),),
        OFF_POLICY_TESTS,
    ),
    Bug(
        "DDPG: the policy climbs down",
        ((DDPG, "-self.shares(batch)[None]", "self.shares(batch)[None]"),),
        OFF_POLICY_TESTS,
    ),
    Bug(
        "TD3: unclipped smoothing",
        ((TD3, "noise.clamp_(-cfg.target_noise_clip, cfg.target_noise_clip)", "noise"),),
        OFF_POLICY_TESTS,
    ),
    Bug(
        "SAC: log p without tanh",
        ((DISTRIBUTIONS, "- LOG_SQRT_2PI - _log_derivative(samples)).sum(-1)", "- LOG_SQRT_2PI).sum(-1)"),),
        OFF_POLICY_TESTS,
    ),
    Bug(
        "SAC: alpha moves the wrong way",
        ((SAC, "excess = entropy - self._target_entropy(batch)", "excess = self._target_entropy(batch) - entropy"),),
        OFF_POLICY_TESTS,
    ),
    Bug(
        "SAC: the greater critic",
        ((SAC, "critics.target.values(batch.next_inputs, actions).amin(0)",
          "critics.target.values(batch.next_inputs, actions).amax(0)"),),
        OFF_POLICY_TESTS,
    ),
    Bug(
        "SAC: no entropy in the target",
        ((SAC, ".amin(0) - coefficient * log_probs", ".amin(0)"),),
        OFF_POLICY_TESTS,
    ),
]  # fmt: skip


def main(words: list[str]) -> int:
    """Plant, test, tell."""
    chosen = [bug for bug in BUGS if not words or any(word in bug.name for word in words)]
    misfits = [f"{bug.name}: {problem}" for bug in chosen for problem in misfit(bug)]
    if misfits:
        print("entries that don't fit the source any more:", *misfits, sep="\n  ")
        return 2
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        copy = Path(folder)
        for name in ("rltrain", "tests", "conf", "scripts"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, copy / name)
        suite = sorted({test for bug in chosen for test in bug.tests})
        status, failed, seconds = run(copy, suite)
        if status:
            print(f"without a bug the tests fail already: {failed}")
            return 2
        print(f"without a bug: {len(suite)} files of tests pass in {seconds:.0f} s\n")
        caught = 0
        for bug in chosen:
            for file, old, new in bug.edits:
                path = copy / "rltrain" / file
                path.write_text(path.read_text().replace(old, new))
            status, failed, seconds = run(copy, bug.tests)
            caught += status == 1
            verdict = {0: "NOT CAUGHT", 1: "caught"}.get(status, "BROKEN")
            print(f"{verdict:10}  {bug.name:55} {seconds:4.0f} s  {failed}", flush=True)
            for file in {file for file, _, _ in bug.edits}:
                shutil.copy(ROOT / "rltrain" / file, copy / "rltrain" / file)
    print(f"\n{caught} of {len(chosen)} caught")
    return 0 if caught == len(chosen) else 1


def misfit(bug: Bug) -> list[str]:
    """Say which texts are not there exactly once, as the edits before them leave the file."""
    problems, texts = [], {}
    for file, old, new in bug.edits:
        text = texts.setdefault(file, (ROOT / "rltrain" / file).read_text())
        if text.count(old) != 1:
            problems.append(f"rltrain/{file} holds {text.count(old)} times {old!r}")
        texts[file] = text.replace(old, new)
    return problems


def run(copy: Path, tests: tuple[str, ...] | list[str]) -> tuple[int, str, float]:
    """Run tests against the copy until the first fails; return pytest's exit status, that test, and the seconds it took."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *(f"tests/{test}" for test in tests)]
    started = time.monotonic()
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return done.returncode, failed[1].removeprefix("tests/") if failed else "", time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
