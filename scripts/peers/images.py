"""Tasks on images, and Stable-Baselines3 on them: PPO on Atari's Pong, and a DQN whose replay memory fills."""

import resource
import time
from typing import Any

Result = dict[str, Any]

PONG = {"copies": 8, "rollout": 128, "epochs": 4, "minibatch": 256, "learning_rate": 2.5e-4, "clip": 0.1, "entropy": 0.01}
WARMUP, TIMED = 2, 6  # rollouts of PPO; those timed unless told otherwise
MEMORY = 100_000  # transitions of DQN


def peak_mib() -> float:
    """Return the most main memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_pong() -> Any:
    """Return Pong prepared as `env=atari` prepares it."""
    import ale_py
    import gymnasium
    from gymnasium import wrappers

    gymnasium.register_envs(ale_py)
    env = gymnasium.make(
        "ALE/Pong-v5", frameskip=1, repeat_action_probability=0.0, obs_type="grayscale", max_num_frames_per_episode=108_000
    )
    env = wrappers.AtariPreprocessing(wrappers.StickyAction(env, 0.25), noop_max=30, frame_skip=4, screen_size=84)
    return wrappers.FrameStackObservation(env, 4)


def run(task: str, seed: int, rollouts: int) -> Result:
    """Train with Stable-Baselines3; return its figures."""
    import torch

    torch.set_num_threads(1)
    return _pong(seed, rollouts) if task == "pong" else _memory(seed)


def _pong(seed: int, rollouts: int) -> Result:
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

    class Clock(BaseCallback):
        times: list[float] = []  # noqa: RUF012

        def _on_rollout_start(self) -> None:
            self.times.append(time.perf_counter())

        def _on_step(self) -> bool:
            return True

    env = VecMonitor(DummyVecEnv([make_pong] * PONG["copies"]))
    model = PPO(
        "CnnPolicy", env, n_steps=PONG["rollout"], n_epochs=PONG["epochs"], batch_size=PONG["minibatch"], seed=seed,
        learning_rate=PONG["learning_rate"], clip_range=PONG["clip"], ent_coef=PONG["entropy"], device="cpu",
    )  # fmt: skip
    clock = Clock()
    steps = PONG["copies"] * PONG["rollout"]
    model.learn(steps * (WARMUP + rollouts), callback=clock)
    clock.times.append(time.perf_counter())
    returns = [episode["r"] for episode in model.ep_info_buffer]
    return {
        "env_steps_per_second": steps * rollouts / (clock.times[-1] - clock.times[WARMUP]),
        "mean_return": float(sum(returns) / len(returns)) if returns else None,
    }


def _memory(seed: int) -> Result:
    from stable_baselines3 import DQN
    from stable_baselines3.common.vec_env import DummyVecEnv

    from peers.noise_envs import Noise

    model = DQN(
        "CnnPolicy", DummyVecEnv([Noise]), buffer_size=MEMORY, learning_starts=1_000, train_freq=1000, batch_size=32, seed=seed,
        optimize_memory_usage=True, replay_buffer_kwargs={"handle_timeout_termination": False}, device="cpu",
    )  # fmt: skip
    model.learn(MEMORY + 1_000)
    return {"peak_mib": peak_mib()}
