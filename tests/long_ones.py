"""Tests that take seconds and whose kind the default run has in another form: `slow` by their names, measured by --durations."""

LONG = {
    "agents/test_probes.py": ["test_actions_by_observation[td3+]"],
    "envs/test_functional.py": ["test_agents_draw_what_is_allowed_and_their_critics_read_states[true]"],
    "test_asymmetric.py": ["test_a_critic_with_states_explains_what_the_observation_hides[A2C-60]"],
    "test_beside.py": ["test_evaluations_beside_a_run_that_keeps_one"],
    "test_cli.py": ["test_a_launcher_that_fails_is_one_sentence", "test_a_worker_that_dies_or_hangs_ends_the_run[kill]"],
    "test_constant_reward.py": ["test_the_learned_value_is_ten_everywhere[async-3-False]"],
    "test_exact_returns.py": ["test_through_workers[shared]"],
    "test_exits.py": [
        "test_a_script_ends_by_it_and_signals_stay_signals",
        "test_a_worker_s_agent_or_environment_quits[act:5:exit-: act, timestep 4: SystemExit: 0]",
    ],
    "test_generators.py": ["test_the_same_again_and_after_a_stop_and_whatever_is_evaluated_or_kept[async]"],
    "test_history.py": ["test_a_job_of_a_sweep_has_a_history_too"],
    "test_manual.py": [
        "test_the_manual_loop_is_the_sequential_trainer[jax-CartPole-v1-two]",
        "test_the_script_trains_and_evaluates[jax]",
    ],
    "test_resume_refused.py": ["test_a_signal_that_the_shell_ignores_stays_ignored"],
    "test_signals.py": ["test_a_script_ends_with_the_first_of_two_trainings[4-15]"],
    "test_step_cli.py": ["test_the_curriculum", "test_a_callback_may_end_the_run[finish-0-finished]"],
    "trainers/test_cut_episodes.py": [
        "test_a_cut_is_what_a_time_limit_of_the_environments_own_is[jax team]",
        "test_parallel_cuts_as_sequential_does[partitioned]",
    ],
    "trainers/test_fused.py": [
        "test_an_agent_with_a_hook_of_its_own_is_stepped",
        "test_evaluations_wait_for_whole_iterations",
        "test_fused_equals_stepped[discrete-two]",
        "test_resumed_in_mid_rollout_equals_fused[56]",
    ],
    "trainers/test_fused_off_policy.py": [
        "test_a_chunk_is_as_long_as_its_learning_and_nothing_is_compiled_after_the_first",
    ],
    "trainers/test_fused_teams.py": ["test_what_the_stepped_loop_began_the_fused_one_ends_as_it_would_have"],
    "trainers/test_off_policy.py": ["test_parallel_is_sequential[partitioned-True]"],
    "trainers/test_parallel.py": [
        "test_a_signal_stops_all_at_one_timestep_and_either_trainer_goes_on[partitioned]",
        "test_parallel_is_sequential[partitioned-jax]",
    ],
    "trainers/test_parallel_faults.py": [
        "test_a_fault_of_one_worker_ends_the_run[partitioned-kill]",
        "test_a_fault_of_one_worker_ends_the_run[partitioned-raise]",
        "test_a_worker_killed_from_outside_and_a_second_interrupt",
    ],
    "trainers/test_step.py": [
        "test_jax_on_its_own_environment_acts_step_by_step_and_equals_the_fused_run",
        "test_step_by_step_is_sequential[jax-CartPole-v1-two]",
    ],
}
NAMES = {f"tests/{file}::{name}" for file, names in LONG.items() for name in names}
