"""Made the runs in this folder, by rltrain 0.3.0: each was stopped half-way; `whole.npz` holds the parameters at its end.

python tests/saved_runs/make.py FOLDER
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

COMMON = [
    "env.num_envs=2",
    "tracking.tensorboard=false",
    "checkpoints.keep=1",
    "checkpoints.memory=true",
    "seed=7",
]
ON = ["agents={0}", "agents.{0}.rollout_length=16", "agents.{0}.network.policy_sizes=[8]"]
OFF = ["agents={0}", "agents.{0}.learning_starts=8", "agents.{0}.batch_size=8", "agents.{0}.memory_size=200"]
CONTINUOUS = [*OFF, "env=Pendulum-v1", "agents.{0}.network.policy_sizes=[8]", "agents.{0}.network.critic_sizes=[8]"]
CHOICES = [*OFF, "env=pixel_envs:Spot", "agents.{0}.network.sizes=[8]"]
PICTURES = ["env=pixel_envs:Spot"]
RUNS = {
    "ppo_torch": ["ppo", "backend=torch", *ON, *PICTURES, "agents.{0}.normalize_observations=true"],
    "ppo_jax": ["ppo", "backend=jax", *ON, *PICTURES, "agents.{0}.network.shared=true"],
    "a2c_torch": [
        "a2c",
        "backend=torch",
        *ON,
        "env=Pendulum-v1",
        "agents.{0}.network.layer_norm=true",
        "agents.{0}.optimizer=rmsprop",
    ],
    "a2c_jax": ["a2c", "backend=jax", *ON, *PICTURES],
    "dqn_torch": ["dqn", "backend=torch", *CHOICES, "agents.{0}.network.dueling=true", "agents.{0}.prioritized=true"],
    "ddqn_jax": ["ddqn", "backend=jax", *CHOICES],
    "sac_torch": ["sac", "backend=torch", *CONTINUOUS],
    "sac_jax": ["sac", "backend=jax", *CONTINUOUS],
    "td3_torch": ["td3", "backend=torch", *CONTINUOUS],
    "ddpg_jax": ["ddpg", "backend=jax", *CONTINUOUS, "agents.{0}.noise=ornstein_uhlenbeck"],
    "mappo_torch": ["mappo", "backend=torch", *ON, "env=pettingzoo", "env.id=mpe/simple_spread_v3"],
}
HALF, END = 40, 80


def main() -> None:
    """Make every run in a folder."""
    folder = Path(sys.argv[1]).resolve()
    here = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")])}
    for name, (agent, *settings) in RUNS.items():
        arguments = [one.format(agent) for one in settings]
        (folder / name).mkdir(parents=True, exist_ok=True)
        for what, timesteps in (("half", HALF), ("whole", END)):
            command = [
                *COMMON,
                *arguments,
                f"run.dir={what}",  # relative: the configurations that are kept name no place
                f"trainer.timesteps={timesteps}",
                f"schedule.horizon={END}",
            ]
            subprocess.run(
                [sys.executable, "-m", "rltrain", "train", *command],
                check=True,
                env=environment,
                cwd=folder / name,
                stdout=subprocess.DEVNULL,
            )
        from rltrain import checkpoints

        run = folder / name
        last = run / "whole" / "checkpoints"
        path = last / (last / "latest").read_text().strip()
        manifest = checkpoints.verify(path)
        policy = checkpoints.read_part(path, f"agents/{agent}/policy", manifest)
        groups = policy.get("groups", {"": policy})
        np.savez_compressed(
            run / "whole.npz",
            **{f"{group}/{key}": array for group, part in groups.items() for key, array in part["parameters"].items()},
        )
        shutil.rmtree(run / "whole")


if __name__ == "__main__":
    main()
