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
PPO, LOSSES, RETURNS = "agents/ppo/torch.py", "ops/losses.py", "ops/returns/torch.py"
MEMORY, GYMNASIUM, TRAINER = "memories/torch.py", "envs/gymnasium.py", "trainers/base.py"


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
        ((PPO, "(-cfg.entropy_scale * shares)", "(cfg.entropy_scale * shares)"),),
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
            (PPO, "rollout.rewards, values, next_values, rollout.terminated, rollout.truncated,",
             "rollout.rewards, values, next_values, rollout.terminated | rollout.truncated, rollout.truncated,"),
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
        ((PPO, "returns = advantages + values", "returns = losses.standardize(torch, advantages) + values"),),
        ("agents/test_probes.py",),
    ),
    Bug(
        "old log-probabilities made anew in every epoch",
        (
            (PPO, "            # ---- shuffle\n",
             "            with torch.no_grad():\n"
             "                batch.log_probs = self.head.log_prob(self.policy.forward(batch.inputs), batch.actions)\n"),
        ),
        ("agents/test_ppo_torch.py",),
    ),
    Bug(
        "observation statistics folded before the epochs",
        (
            (PPO, "        rollout = self.memory.read()\n",
             "        rollout = self.memory.read()\n        self._fold_observations(rollout)\n"),
            (PPO, "        self._fold_observations(rollout)\n        return metrics", "        return metrics"),
        ),
        ("agents/test_ppo_torch.py",),
    ),
    Bug(
        "old values not re-expressed in the new statistics",
        ((PPO, "            values = normalizers.normalize(torch, self.value_moments, values)\n", ""),),
        ("agents/test_ppo_torch.py",),
    ),
    Bug(
        "rows that did not happen are learned from",
        ((PPO, "            weights=weights,\n", "            weights=None,\n"),),
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
         (GYMNASIUM, "np.where(self._done.reshape(-1, *[1] * (fresh.ndim - 1)), fresh, self._observations)", "fresh")),
        ("envs/test_gymnasium.py",),
    ),
    Bug(
        "evaluation explores",
        ((TRAINER, "explore = learn or self.stochastic_evaluation", "explore = True"),),
        ("trainers/test_call_order.py",),
    ),
    Bug(
        "evaluation acts with training's stream",
        (("agents/base.py", "actor = self._evaluation_actor if evaluation else self._actor", "actor = self._actor"),),
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
            ("models/torch.py", "return torch.addcmul(heads, noise, self.log_std.exp())",
             "return torch.addcmul(heads, noise, self.log_std.exp()).clamp(-1, 1)"),
        ),
        ("models/test_models_torch.py",),
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
