"""CartPole without velocities, and sb3-contrib's recurrent PPO on it."""

import time
from typing import Any

Result = dict[str, Any]

SEEN = [0, 2]  # place and angle
SETTINGS = {
    "copies": 8,
    "rollout": 32,
    "epochs": 20,
    "learning_rate": 1e-3,
    "gamma": 0.98,
    "lambda": 0.8,
    "cell": 64,
    "hidden": 64,
}
WARMUP, TIMED = 8, 72  # rollouts


def make_cartpole() -> Any:
    """Return CartPole that shows place and angle."""
    import gymnasium

    class Partial(gymnasium.ObservationWrapper):
        def __init__(self, env: Any) -> None:
            super().__init__(env)
            space = env.observation_space
            self.observation_space = gymnasium.spaces.Box(space.low[SEEN], space.high[SEEN], dtype=space.dtype)

        def observation(self, observation: Any) -> Any:
            return observation[SEEN]

    return Partial(gymnasium.make("CartPole-v1"))


def run(seed: int) -> Result:
    """Train with sb3-contrib; return its figures."""
    import numpy as np
    import torch
    from sb3_contrib import RecurrentPPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    torch.set_num_threads(1)
    rollout = SETTINGS["copies"] * SETTINGS["rollout"]

    class Clock(BaseCallback):
        times: list[float] = []  # noqa: RUF012

        def _on_rollout_start(self) -> None:
            self.times.append(time.perf_counter())

        def _on_step(self) -> bool:
            return True

    env = VecNormalize(make_vec_env(make_cartpole, SETTINGS["copies"], seed=seed), gamma=SETTINGS["gamma"])
    model = RecurrentPPO(
        "MlpLstmPolicy",
        env,
        n_steps=SETTINGS["rollout"],
        batch_size=rollout,
        n_epochs=SETTINGS["epochs"],
        learning_rate=lambda left: SETTINGS["learning_rate"] * left,
        clip_range=lambda left: 0.2 * left,
        gamma=SETTINGS["gamma"],
        gae_lambda=SETTINGS["lambda"],
        ent_coef=0.0,
        seed=seed,
        device="cpu",
        policy_kwargs={
            "ortho_init": False,
            "activation_fn": torch.nn.ReLU,
            "lstm_hidden_size": SETTINGS["cell"],
            "enable_critic_lstm": True,
            "net_arch": {"pi": [SETTINGS["hidden"]], "vf": [SETTINGS["hidden"]]},
        },
    )
    clock = Clock()
    model.learn(rollout * (WARMUP + TIMED), callback=clock)
    seconds = time.perf_counter() - clock.times[WARMUP]
    returns = [episode["r"] for episode in model.ep_info_buffer]
    return {"env_steps_per_second": rollout * TIMED / seconds, "episode_return": float(np.mean(returns))}
