"""A loop of one's own instead of a trainer: two agents learn and then play, each on its own copies of CartPole."""

import numpy as np

from rltrain.agents.base import Agent
from rltrain.agents.ppo.torch import PPO
from rltrain.envs.base import EnvWrapper
from rltrain.envs.gymnasium import GymnasiumEnv
from rltrain.evaluation import EpisodeCounter


def play(env: EnvWrapper, agents: dict[Agent, slice], timesteps: int, *, learn: bool) -> list[list[float]]:
    """Make so many timesteps, each agent on the copies of its scope; return the finished episodes' returns by copy."""
    counter, observations = EpisodeCounter(np.full(env.num_envs, timesteps)), env.reset()
    for timestep in range(timesteps):
        now = {"timestep": timestep, "timesteps": timesteps}
        seen = {agent: env.cut(observations, scope) for agent, scope in agents.items()}
        actions = {agent: agent.act(seen[agent], **now, explore=learn, evaluation=not learn) for agent in agents}
        step = env.step(np.concatenate(list(actions.values())))  # its next_observations are the true successors
        done = counter.record(step)
        for agent, scope in agents.items():
            if learn:
                own = {"observations": seen[agent], "actions": actions[agent], **env.cut(step, scope)._asdict()}
                agent.record_transition(**own, **now)
                agent.post_interaction(**now)
            else:
                agent.end_evaluation_episodes(done[scope])
        observations = env.reset_done()  # to act on next
    return counter.returns


if __name__ == "__main__":
    env, test = (GymnasiumEnv({"id": "CartPole-v1", "num_envs": 8}, seed=seed) for seed in (1, 2))
    spaces = env.observation_space, env.action_space
    agents = {Agent(PPO(*spaces, num_envs=4, seed=1, index=i), name=f"ppo_{i}"): slice(4 * i, 4 * i + 4) for i in range(2)}
    play(env, agents, 3_000, learn=True)
    returns = play(test, agents, 1_000, learn=False)
    print({agent.name: np.concatenate(returns[scope]).mean() for agent, scope in agents.items()})
