"""Stable-Baselines3's DQN and SAC on the off-policy tasks."""

from typing import Any

from peers.off_policy import DQN, SAC, Result, Task, make_timed, rate, total


def run(task: Task, seed: int) -> Result:
    """Train in this process, with no Monitor wrapper and no logging."""
    import stable_baselines3 as sb3
    import torch

    torch.set_num_threads(1)
    return train(task, seed, sb3.DQN, sb3.SAC, torch.nn.ReLU)


def train(task: Task, seed: int, dqn: Any, sac: Any, activation: Any) -> Result:
    """Train with classes of Stable-Baselines3's interface; SBX's are."""
    from stable_baselines3.common.vec_env import DummyVecEnv

    env = make_timed(task)
    common = {"env": DummyVecEnv([lambda: env]), "learning_starts": task.starts, "device": "cpu", "seed": seed, "verbose": 0}
    if task.algorithm == "dqn":
        agent = dqn(
            "MlpPolicy", learning_rate=DQN["learning_rate"], buffer_size=DQN["memory"], batch_size=DQN["batch"],
            train_freq=DQN["every"], gradient_steps=1, target_update_interval=DQN["target_every"], tau=1.0,
            exploration_fraction=0.5, exploration_final_eps=0.05,
            policy_kwargs={"net_arch": DQN["sizes"], "activation_fn": activation}, **common,
        )  # fmt: skip
    else:
        agent = sac(
            "MlpPolicy", learning_rate=SAC["learning_rate"], buffer_size=SAC["memory"], batch_size=SAC["batch"],
            train_freq=1, gradient_steps=1, tau=SAC["polyak"], policy_kwargs={"net_arch": SAC["sizes"]}, **common,
        )  # fmt: skip
    agent.learn(total(task), log_interval=None, progress_bar=False)
    return {"env_steps_per_second": rate(task, env)}
