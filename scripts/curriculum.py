"""A curriculum: CartPole's gravity grows as the agent gets better, which takes a hand between timesteps.

    python scripts/curriculum.py
    cd scripts && rltrain train trainer=step plugins=[curriculum] trainer.callback=curriculum:make_harder

The level stands in the environment, so that a checkpoint keeps it and a resume goes on exactly.
"""

from rltrain.agents.base import Agent
from rltrain.agents.ppo.torch import PPO
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.trainers import StepResult, StepTrainer

GOAL, GOOD_ENOUGH = 30.0, 60.0  # gravity in m/s^2, mean return of the last 100 episodes


def make_harder(trainer: StepTrainer, result: StepResult) -> None:
    """Look every 256 timesteps; a level that is mastered is left for the next one, in new episodes."""
    if trainer.timestep % 256:
        return
    gravity = trainer.env.get_attr("gravity")[0]
    mean = trainer.agents[0].statistics.summary()["episode_return_mean"] or 0.0
    if mean >= GOOD_ENOUGH and gravity < GOAL:
        trainer.env.set_attr("gravity", gravity + 5.0)
        trainer.reset(trainer.timestep)
        trainer.run.say(f"timestep {trainer.timestep:,}: return {mean:.0f}, gravity {gravity:.1f} -> {gravity + 5:.1f}")


if __name__ == "__main__":
    env = GymnasiumEnv({"id": "CartPole-v1", "num_envs": 8}, seed=1)
    agent = Agent(PPO(env.observation_space, env.action_space, num_envs=8, seed=1), name="ppo")
    trainer = StepTrainer(env, agent, cfg={"timesteps": 6_000, "disable_progressbar": True})
    while not trainer.is_finished and env.get_attr("gravity")[0] < GOAL:
        make_harder(trainer, trainer.train())
    trainer.finish()
    print(f"gravity {env.get_attr('gravity')[0]:.1f} m/s^2 after {trainer.timestep:,} timesteps")
