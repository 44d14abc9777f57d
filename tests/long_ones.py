"""Tests that take seconds and whose kind the default run has in another form: `slow` by their names, measured by --durations."""

LONG = {
    "agents/test_a2c_torch.py": [
        "test_advantage[rmsprop-400]",
        "test_continuous_target",
    ],
    "agents/test_probes.py": [
        "test_actions_by_observation[sac+]",
        "test_actions_by_observation[td3+]",
        "test_continuous_target[normalised]",
        "test_continuous_target[plain]",
        "test_policy_from_observation[normalised]",
        "test_values_at_a_time_limit[sac+]",
        "test_values_of_a_constant_and_of_an_observation[sac+]",
        "test_values_of_a_constant_and_of_an_observation[sac]",
        "test_values_of_a_later_reward[sac+]",
    ],
    "agents/test_probes_jax.py": [
        "test_actions_by_observation[sac]",
        "test_choices_by_observation[dqn+]",
    ],
    "agents/test_twins.py": [
        "test_updates_agree[ppo-action_space1-cfg1]",
        "test_updates_agree[ppo-action_space2-cfg2]",
        "test_updates_agree[ppo-action_space3-cfg3]",
    ],
    "agents/test_twins_off_policy.py": [
        "test_policies_convert_both_ways[ddpg-action_space3]",
        "test_updates_agree[td3-action_space2-cfg2]",
    ],
    "envs/test_atari.py": [
        "test_a_run_says_its_protocol_and_goes_on_to_the_bit",
        "test_games_go_on_exactly[MsPacman-settings2]",
    ],
    "envs/test_functional.py": [
        "test_a_first_observation_that_is_not_finite_names_its_copy[false]",
        "test_agents_draw_what_is_allowed_and_their_critics_read_states[true]",
        "test_nothing_left_to_do_is_an_error[true-timestep 7: copy 0]",
    ],
    "envs/test_infos.py": [
        "test_nothing_forbidden_is_ever_done[A2C-multi discrete-3-async]",
        "test_nothing_forbidden_is_ever_done[PPO-discrete-3-async]",
        "test_resumed_equals_uninterrupted[A2C-async]",
    ],
    "envs/test_wrapping.py": [
        "test_a_run_uses_its_wrappers_again",
        "test_async_copies_go_on_exactly",
        "test_wrappers_go_around_each_copy_in_order_and_pictures_stay_uint8[async]",
    ],
    "models/test_autograd_torch.py": [
        "test_func_grad_is_autograds[ppo]",
    ],
    "models/test_encoders.py": [
        "test_an_encoder_of_ones_own_is_named_or_handed_over[jax-rows, wider-dqn-named]",
        "test_initial_weights_are_of_the_same_kind_in_both[default]",
        "test_outputs_and_gradients_are_those_of_the_twin[a list]",
        "test_outputs_and_gradients_are_those_of_the_twin[minatar]",
    ],
    "models/test_networks_jax.py": [
        "test_acting_in_numpy_gives_the_compiled_numbers[gelu-False]",
        "test_unrolled_rows_are_those_of_steps_and_of_forward[policy]",
        "test_unrolled_rows_are_those_of_steps_and_of_forward[shared]",
        "test_unrolled_rows_are_those_of_steps_and_of_forward[value]",
    ],
    "test_agents_config.py": [
        "test_a_preset_names_agents",
        "test_sweeps[overrides0-jobs0]",
        "test_sweeps[overrides1-jobs1]",
        "test_sweeps[overrides3-jobs3]",
    ],
    "test_asymmetric.py": [
        "test_a_critic_with_states_explains_what_the_observation_hides[A2C-60]",
    ],
    "test_beside.py": [
        "test_evaluations_beside_a_run_that_keeps_one",
    ],
    "test_checkpoints.py": [
        "test_a_real_limit_of_the_kernel",
    ],
    "test_cli.py": [
        "test_a_job_that_is_wrong_is_told_without_a_traceback",
        "test_a_launcher_that_fails_is_one_sentence",
        "test_a_package_that_is_not_installed[blocked1-arguments1-[classic]']",
        "test_a_package_that_is_not_installed[blocked2-arguments2-[box2d]']",
        "test_a_package_that_is_not_installed[blocked3-arguments3-[mujoco]']",
        "test_a_sweep_goes_on_after_a_failed_job",
        "test_a_worker_that_dies_or_hangs_ends_the_run[kill]",
        "test_an_environment_that_raises_in_a_step[sync]",
        "test_jobs_take_whole_numbers_as_single_runs_do",
        "test_numbers_of_a_sweep_are_checked_as_they_are_composed",
    ],
    "test_closed_streams.py": [
        "test_a_run_without_any_stream",
    ],
    "test_confidential.py": [
        "test_errors_say_none[step-async]",
        "test_numbers_choices_and_defaults_are_data",
    ],
    "test_config.py": [
        "test_an_environment_of_ones_own_in_the_working_directory[how0]",
        "test_an_environment_of_ones_own_in_the_working_directory[how1]",
    ],
    "test_constant_reward.py": [
        "test_the_learned_value_is_ten_everywhere[async-3-False]",
        "test_the_learned_value_is_ten_everywhere[native-3-False]",
        "test_the_learned_value_is_ten_everywhere[native-3-True]",
    ],
    "test_encoders_cli.py": [
        "test_a_module_of_flaxs_other_kind",
        "test_an_encoder_of_ones_own_is_trained_evaluated_and_resumed",
        "test_encoders_of_ones_own_that_cannot_be_used[integers-jax]",
    ],
    "test_exact_returns.py": [
        "test_through_workers[shared]",
    ],
    "test_exits.py": [
        "test_a_script_ends_by_it_and_signals_stay_signals",
        "test_a_sweep_s_job_quits",
        "test_a_worker_s_agent_or_environment_quits[act:5:exit-: act, timestep 4: SystemExit: 0]",
    ],
    "test_finite_policies.py": [
        "test_a_policy_that_gives_no_numbers_names_its_agent[dqn CartPole-v1-jax-3e+38]",
        "test_a_policy_that_gives_no_numbers_names_its_agent[dqn CartPole-v1-jax-nan]",
        "test_a_policy_that_gives_no_numbers_names_its_agent[ppo Pendulum-v1-jax-3e+38]",
        "test_a_policy_that_gives_no_numbers_names_its_agent[ppo Pendulum-v1-jax-nan]",
        "test_a_policy_that_gives_no_numbers_names_its_agent[sac CartPole-v1-jax-3e+38]",
        "test_a_policy_that_gives_no_numbers_names_its_agent[sac CartPole-v1-jax-nan]",
    ],
    "test_generators.py": [
        "test_the_same_again_and_after_a_stop_and_whatever_is_evaluated_or_kept[async]",
    ],
    "test_hangs.py": [
        "test_a_hang_ends_the_run_also_after_a_signal[step-held]",
        "test_a_hang_ends_the_run_also_after_a_signal[step-sleep]",
        "test_only_calls_of_the_environment_count_and_faulthandler_s_timer_stays",
    ],
    "test_history.py": [
        "test_a_job_of_a_sweep_has_a_history_too",
    ],
    "test_images.py": [
        "test_where_the_spot_stands_is_learned[dqn-torch]",
    ],
    "test_manual.py": [
        "test_the_manual_loop_is_the_sequential_trainer[jax-CartPole-v1-one]",
        "test_the_manual_loop_is_the_sequential_trainer[jax-CartPole-v1-two]",
        "test_the_script_trains_and_evaluates[jax]",
    ],
    "test_modules.py": [
        "test_nothing_in_the_current_directory_shadows_what_is_installed[command1]",
    ],
    "test_resume.py": [
        "test_a_second_interrupt_or_term_quits_at_once[SIGINT-SIGTERM]",
        "test_a_second_interrupt_or_term_quits_at_once[SIGTERM-SIGINT]",
        "test_exit_status_of_a_process[SIGHUP]",
        "test_exit_status_of_a_process[SIGUSR1]",
        "test_killed_with_checkpoints[80]",
        "test_where_no_checkpoint_verifies_all_stays_as_it_is[aside]",
        "test_where_no_checkpoint_verifies_all_stays_as_it_is[half]",
    ],
    "test_resume_refused.py": [
        "test_a_signal_that_the_shell_ignores_stays_ignored",
    ],
    "test_rewards.py": [
        "test_fused_equals_stepped",
        "test_twice_the_reward_is_learned_as_by_reward_scale_and_reported_returns_are_raw[ippo-torch]",
        "test_what_is_made_must_be_finite_in_either_loop[true]",
    ],
    "test_run_directory.py": [
        "test_a_directory_that_is_lost_is_said_once_and_ends_the_run_with_4[delete-the directory was deleted, renamed or replaced while the run went on-left1-overrides1]",  # noqa: E501
        "test_a_directory_that_is_lost_is_said_once_and_ends_the_run_with_4[replace-the directory was deleted, renamed or replaced while the run went on-left2-overrides2]",  # noqa: E501
    ],
    "test_saved_runs.py": [
        "test_a_saved_run_goes_on[sac_jax]",
    ],
    "test_signals.py": [
        "test_a_script_ends_with_the_first_of_two_trainings[4-15]",
    ],
    "test_step_cli.py": [
        "test_a_callback_may_end_the_run[finish-0-finished]",
        "test_the_curriculum",
    ],
    "test_sweep_results.py": [
        "test_a_killed_sweep_goes_on_in_its_directory",
        "test_a_subdir_of_ones_own_is_respected",
    ],
    "test_teams_cli.py": [
        "test_every_trainer_comes_to_the_same[trainer1]",
    ],
    "test_transfer.py": [
        "test_an_encoder_of_one_backend_only_is_told_at_a_switch",
    ],
    "trainers/test_cut_episodes.py": [
        "test_a_cut_is_what_a_time_limit_of_the_environments_own_is[jax team]",
        "test_parallel_cuts_as_sequential_does[partitioned]",
    ],
    "trainers/test_fused.py": [
        "test_a_row_is_not_written_twice_where_a_signal_ends_it",
        "test_a_second_training_draws_other_noise",
        "test_an_agent_with_a_hook_of_its_own_is_stepped",
        "test_an_observation_outside_its_space_names_copy_part_and_timestep",
        "test_evaluations_wait_for_whole_iterations",
        "test_fused_equals_stepped[discrete-two]",
        "test_resumed_in_mid_rollout_equals_fused[56]",
        "test_the_last_timestep_that_can_be_counted_is_made[false]",
    ],
    "trainers/test_fused_off_policy.py": [
        "test_a_chunk_is_as_long_as_its_learning_and_nothing_is_compiled_after_the_first",
    ],
    "trainers/test_fused_teams.py": [
        "test_what_the_stepped_loop_began_the_fused_one_ends_as_it_would_have",
    ],
    "trainers/test_off_policy.py": [
        "test_parallel_is_sequential[partitioned-True]",
        "test_resumed_is_uninterrupted[12-CartPole-v1-ddqn+]",
        "test_resumed_is_uninterrupted[12-CartPole-v1-dqn]",
        "test_resumed_is_uninterrupted[12-CartPole-v1-sac]",
        "test_resumed_is_uninterrupted[12-Pendulum-v1-ddpg]",
        "test_resumed_is_uninterrupted[12-Pendulum-v1-sac+]",
        "test_resumed_is_uninterrupted[12-Pendulum-v1-td3]",
        "test_resumed_is_uninterrupted[41-CartPole-v1-ddqn+]",
        "test_resumed_is_uninterrupted[41-CartPole-v1-dqn]",
        "test_resumed_is_uninterrupted[41-CartPole-v1-sac]",
        "test_resumed_is_uninterrupted[41-Pendulum-v1-ddpg]",
        "test_resumed_is_uninterrupted[41-Pendulum-v1-sac+]",
        "test_resumed_is_uninterrupted[41-Pendulum-v1-td3]",
    ],
    "trainers/test_parallel.py": [
        "test_a_script_without_a_main_guard_is_told_once",
        "test_a_signal_stops_all_at_one_timestep_and_either_trainer_goes_on[partitioned]",
        "test_parallel_is_sequential[partitioned-jax]",
    ],
    "trainers/test_parallel_faults.py": [
        "test_a_fault_of_one_worker_ends_the_run[partitioned-hang]",
        "test_a_fault_of_one_worker_ends_the_run[partitioned-kill]",
        "test_a_fault_of_one_worker_ends_the_run[partitioned-raise]",
        "test_a_worker_killed_from_outside_and_a_second_interrupt",
        "test_a_worker_that_fails_to_start_ends_the_run",
        "test_an_environment_that_fails_in_a_worker_names_agent_and_copy",
        "test_an_environment_that_only_fails_to_close_costs_no_checkpoint[raise-False]",
    ],
    "trainers/test_simultaneous.py": [
        "test_resumed_is_uninterrupted[25-CartPole-v1]",
        "test_resumed_is_uninterrupted[25-Pendulum-v1]",
        "test_resumed_is_uninterrupted[49-CartPole-v1]",
        "test_resumed_is_uninterrupted[49-Pendulum-v1]",
    ],
    "trainers/test_step.py": [
        "test_jax_on_its_own_environment_acts_step_by_step_and_equals_the_fused_run",
        "test_resumed_is_uninterrupted_across_trainers[24-SequentialTrainer-StepTrainer]",
        "test_resumed_is_uninterrupted_across_trainers[24-StepTrainer-SequentialTrainer]",
        "test_resumed_is_uninterrupted_across_trainers[24-StepTrainer-StepTrainer]",
        "test_step_by_step_is_sequential[jax-CartPole-v1-two]",
    ],
}
NAMES = {f"tests/{file}::{name}" for file, names in LONG.items() for name in names}
