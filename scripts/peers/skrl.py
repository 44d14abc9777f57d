"""skrl's PPO on task T1."""

from typing import Any

from peers.t1 import EPOCHS, MINIBATCHES, NUM_ENVS, ROLLOUT, Clock, Result, gradient_steps, mean_return


def run(env_steps: int, seed: int) -> Result:
    """Train skrl's PPO with its SequentialTrainer in this process, on Gymnasium's SyncVectorEnv.

    `write_interval=0` and `checkpoint_interval=0` also spare it the episode statistics: that is its quickest setting.
    """
    import gymnasium
    import torch
    from skrl.agents.torch.ppo import PPO, PPO_CFG
    from skrl.envs.wrappers.torch import wrap_env
    from skrl.memories.torch import RandomMemory
    from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model
    from skrl.trainers.torch import SequentialTrainer
    from skrl.utils import set_seed

    torch.set_num_threads(1)
    set_seed(seed)
    clock = Clock()

    class TimedPPO(PPO):
        def update(self, *, timestep: int, timesteps: int) -> None:
            super().update(timestep=timestep, timesteps=timesteps)
            clock.update_done()

    class Network(Model):
        def __init__(self, num_outputs: int, **spaces: gymnasium.Space) -> None:
            Model.__init__(self, **spaces, device="cpu")
            self.net = torch.nn.Sequential(
                torch.nn.Linear(self.num_observations, 64),
                torch.nn.Tanh(),
                torch.nn.Linear(64, 64),
                torch.nn.Tanh(),
                torch.nn.Linear(64, num_outputs),
            )

        def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[torch.Tensor, dict[str, Any]]:
            return self.net(inputs["observations"]), {}

    class Policy(CategoricalMixin, Network):
        def __init__(self, **spaces: gymnasium.Space) -> None:
            Network.__init__(self, 2, **spaces)
            CategoricalMixin.__init__(self, unnormalized_log_prob=True)

    class Value(DeterministicMixin, Network):
        def __init__(self, **spaces: gymnasium.Space) -> None:
            Network.__init__(self, 1, **spaces)
            DeterministicMixin.__init__(self)

    env = wrap_env(gymnasium.make_vec("CartPole-v1", num_envs=NUM_ENVS, vectorization_mode="sync"), verbose=False)
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    agent = TimedPPO(
        models={"policy": Policy(**spaces), "value": Value(**spaces)},
        memory=RandomMemory(memory_size=ROLLOUT, num_envs=NUM_ENVS, device="cpu"),
        cfg=PPO_CFG(
            rollouts=ROLLOUT,
            learning_epochs=EPOCHS,
            mini_batches=MINIBATCHES,
            learning_rate=2.5e-4,
            discount_factor=0.99,
            gae_lambda=0.95,
            ratio_clip=0.2,
            value_clip=0.0,
            entropy_loss_scale=0.01,
            value_loss_scale=0.5,
            grad_norm_clip=0.5,
            experiment={"write_interval": 0, "checkpoint_interval": 0},
        ),
        device="cpu",
        **spaces,
    )
    cfg = {"timesteps": env_steps // NUM_ENVS, "headless": True, "disable_progressbar": True}
    trainer = SequentialTrainer(env=env, agents=agent, cfg=cfg)
    clock.start()
    trainer.train()
    clock.stop()

    def choose(observations: object) -> object:
        with torch.no_grad():
            return agent.policy.net(torch.as_tensor(observations)).argmax(dim=-1).numpy()

    return {
        "env_steps": trainer.cfg.timesteps * NUM_ENVS,
        "gradient_steps": gradient_steps(agent.optimizer),
        "mean_return": mean_return(choose),
        **clock.seconds(),
    }
