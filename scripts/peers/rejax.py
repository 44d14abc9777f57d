"""rejax's PPO on the tasks J1a and J1b."""

from collections.abc import Callable
from typing import Any

from peers.fused import EPOCHS, MINIBATCHES, Result, Shape, time_parts


def run(shape: Shape, env_steps: int, seed: int) -> Result:
    """Train rejax's PPO, without evaluations.

    It also clips values, and gradients by element. gymnax 1.0.1 tells terminated and truncated apart, which rejax 0.1.3
    doesn't know: they are one flag again for it.
    """
    import jax
    from gymnax.environments.environment import Environment
    from rejax import get_algo

    step = Environment.step

    def step_with_one_flag(self: Any, key: Any, state: Any, action: Any, params: Any = None) -> tuple[Any, ...]:
        observation, state, reward, terminated, truncated, info = step(self, key, state, action, params)
        return observation, state, reward, terminated | truncated, info

    Environment.step = step_with_one_flag

    def prepare() -> Callable[[int], Any]:
        algorithm = get_algo("ppo").create(
            env="CartPole-v1",
            num_envs=shape.num_envs,
            num_steps=shape.rollout,
            num_epochs=EPOCHS,
            num_minibatches=MINIBATCHES,
            learning_rate=2.5e-4,
            gamma=0.99,
            gae_lambda=0.95,
            clip_eps=0.2,
            ent_coef=0.01,
            vf_coef=0.5,
            max_grad_norm=0.5,
            total_timesteps=env_steps,
            agent_kwargs={"activation": "tanh", "hidden_layer_sizes": (64, 64)},
        )
        held = [jax.jit(algorithm.init_state)(jax.random.PRNGKey(seed))]

        def train(state: Any, iterations: Any) -> Any:
            return jax.lax.fori_loop(0, iterations, lambda _, state: algorithm.train_iteration(state), state)

        train = jax.jit(train, donate_argnums=0)

        def run(env_steps: int) -> Any:
            held[0] = train(held[0], env_steps // (shape.num_envs * shape.rollout))
            return held[0].actor_ts.params

        return run

    return time_parts(env_steps, prepare, shape.first)
