"""SBX's PPO (Stable-Baselines3 in JAX) on task T1."""

from peers.t1 import BATCH, EPOCHS, MINIBATCHES, NUM_ENVS, ROLLOUT, Clock, Result, mean_return


def run(env_steps: int, seed: int) -> Result:
    """Train SBX's PPO in this process, as Stable-Baselines3's: DummyVecEnv, no Monitor wrapper, no logging.

    It has no value clip. Its first rollouts compile all but one program, which the first episode that reaches the time
    limit would compile in the middle of the timed part; that is done before the clock starts.
    """
    import gymnasium
    import torch
    from flax import linen
    from sbx import PPO
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
        ent_coef=0.01,
        vf_coef=0.5,
        max_grad_norm=0.5,
        policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": linen.tanh},
        device="cpu",
        seed=seed,
        verbose=0,
    )
    one = ppo.policy.prepare_obs(env.observation_space.sample())[0]
    ppo.vf.apply(ppo.policy.vf_state.params, one).flatten()
    clock.start()
    ppo.learn(env_steps, log_interval=None, progress_bar=False)
    clock.stop()
    return {
        "env_steps": ppo.num_timesteps,
        "gradient_steps": int(ppo.policy.actor_state.step),
        "mean_return": mean_return(lambda observations: ppo.predict(observations, deterministic=True)[0]),
        **clock.seconds(),
    }
