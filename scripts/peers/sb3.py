"""Stable-Baselines3's PPO on task T1."""

from peers.t1 import BATCH, EPOCHS, MINIBATCHES, NUM_ENVS, ROLLOUT, Clock, Result, gradient_steps, mean_return


def run(env_steps: int, seed: int) -> Result:
    """Train Stable-Baselines3's PPO in this process.

    DummyVecEnv is its synchronous vector environment. No Monitor wrapper and no logging: that is its quickest setting.
    """
    import gymnasium
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv

    torch.set_num_threads(1)
    clock = Clock()

    class TimedPPO(PPO):
        def train(self) -> None:
            super().train()
            clock.update_done()

    env = DummyVecEnv([lambda: gymnasium.make("CartPole-v1") for _ in range(NUM_ENVS)])
    ppo = TimedPPO(
        "MlpPolicy",
        env,
        n_steps=ROLLOUT,
        batch_size=BATCH // MINIBATCHES,
        n_epochs=EPOCHS,
        learning_rate=2.5e-4,
        gamma=0.99,
        gae_lambda=0.95,
        clip_range=0.2,
        clip_range_vf=None,
        ent_coef=0.01,
        vf_coef=0.5,
        max_grad_norm=0.5,
        policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": torch.nn.Tanh},
        device="cpu",
        seed=seed,
        verbose=0,
    )
    clock.start()
    ppo.learn(env_steps, log_interval=None, progress_bar=False)
    clock.stop()
    return {
        "env_steps": ppo.num_timesteps,
        "gradient_steps": gradient_steps(ppo.policy.optimizer),
        "mean_return": mean_return(lambda observations: ppo.predict(observations, deterministic=True)[0]),
        **clock.seconds(),
    }
