"""Forty ways to get Dreamer wrong, and the tests that notice: the table is checked, too.

Most are defects of public code. `make mutants` plants those that are more than a number.
"""

import ast
import re
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest
import tiny
import torch
from parity.parity_io import OURS, load
from test_world_model import Told, told

from dreamer_lite.distributions import OneHots
from dreamer_lite.presets import V1, V2, V3, diff
from dreamer_lite.world_model import kl_loss

HERE = Path(__file__).parent

# trap: (what goes wrong, {file: tests})
TRAPS = {
    "T1": (
        "the action or reward of another row",
        {
            "training": """
                test_the_action_the_observation_and_the_reward_of_a_step_meet
                test_the_world_model_learns_which_action_brings_the_reward
                test_actions_read_one_row_late_leave_the_reward_a_mystery
                test_training_sees_what_acting_saw""",
            "agent": "test_acting_row_by_row_remembers_what_training_remembers",
            "rssm": "test_the_first_action_is_the_one_that_led_to_the_first_row",
            "envs": "test_a_row_holds_the_action_that_led_to_its_observation",
        },
    ),
    "T2": (
        "a new episode remembers the old one, or its last action",
        {
            "rssm": """
                test_nothing_before_a_first_row_reaches_what_follows
                test_no_gradient_crosses_a_first_row
                test_a_first_row_is_an_empty_memory_without_an_action""",
        },
    ),
    "T3": (
        "the final observation is lost",
        {
            "envs": """
                test_three_steps_make_four_rows_and_the_final_observation_is_kept
                test_other_autoreset_modes_are_refused""",
        },
    ),
    "T4": (
        "a time limit counts as an end",
        {
            "envs": "test_a_truncation_is_not_terminal test_the_frame_limit_of_atari_truncates",
            "returns": "test_golden_numbers",
            "behavior": "test_a_truncated_episode_keeps_its_bootstrap_and_ends_the_trace",
        },
    ),
    "T5": (
        "the reset row has a reward or an action, or is not trained on",
        {"training": "test_a_reset_row_has_no_reward_and_no_action_and_is_trained_on"},
    ),
    "T6": (
        "windows cross an end unmarked, or the ring's seam",
        {
            "replay": """
                test_windows_are_consecutive_and_from_one_stream_after_wrap_around
                test_every_break_between_episodes_is_marked_first_when_streams_differ
                test_without_latents_the_first_row_reads_as_a_reset_but_memory_is_untouched
                test_windows_inside_an_episode_cross_no_end_even_after_wrap_around""",
        },
    ),
    "T7": (
        "short episodes are dropped in silence",
        {
            "training": "test_episodes_shorter_than_a_batch_are_learned_from",
            "replay": "test_short_episodes_are_never_seen_and_the_running_one_counts",
            "papers": "test_a_run_that_could_never_learn_says_so",
        },
    ),
    "T8": (
        "windows are drawn from another distribution",
        {
            "replay": """
                test_starts_are_uniform_over_rows_and_streams
                test_online_windows_come_first_and_cover_every_row_once
                test_episodes_are_drawn_alike_however_long_they_are_and_starts_alike_inside
                test_the_last_window_of_an_episode_is_drawn_more_often_on_request""",
        },
    ),
    "T9": (
        "the train ratio counts frames, or streams wrongly",
        {
            "training": """
                test_updates_are_ratio_times_steps_over_batch_times_length
                test_the_pace_counts_steps_of_the_agent_over_all_streams_and_survives_a_resume""",
        },
    ),
    "T10": (
        "stored latents are reset, shifted or not written back",
        {
            "training": """
                test_an_update_starts_from_the_context_row_and_rewrites_the_rows_after_it
                test_a_sample_goes_on_from_what_the_agent_thought_one_row_earlier""",
            "replay": """
                test_start_is_the_latent_of_the_context_row_and_write_back_spares_that_row
                test_with_latents_the_first_row_is_not_forced""",
        },
    ),
    "T11": (
        "free nats at another place of the mean or of the sum",
        {
            "world_model": """
                test_the_floor_of_v3_acts_on_every_step_and_leaves_the_large_one_its_gradient
                test_the_floor_of_v1_and_v2_acts_on_the_mean_and_leaves_no_gradient
                test_groups_are_summed_before_the_floor
                test_below_one_nat_nothing_moves""",
            "traps": "test_the_first_code_of_v1_subtracts_its_floor_from_every_step",
            "parity_v1": "test_model_loss",
            "parity_v2": "test_kl_loss",
            "parity_v3": "test_rssm_loss",
        },
    ),
    "T12": (
        "KL balancing the wrong way round",
        {
            "world_model": """
                test_dyn_pulls_the_prior_and_rep_the_posterior
                test_the_weights_share_out_one_gradient
                test_the_numbers_of_the_papers_kl_losses""",
            "routing": "test_routing",
        },
    ),
    "T13": (
        "the uniform share is missing somewhere",
        {
            "distributions": """
                test_mixing_leaves_every_class_a_share_and_bounds_the_kl
                test_no_action_is_less_likely_than_its_share_of_the_mixture""",
            "world_model": "test_extreme_logits_cost_at_most_the_bound_of_the_mixture",
            "presets": "test_the_recipe_of_v3_is_that_of_the_authors",
        },
    ),
    "T14": (
        "a sample that is not one-hot, or has another gradient",
        {
            "distributions": """
                test_samples_are_exactly_one_hot_even_with_a_gradient
                test_the_straight_through_gradient_is_that_of_the_mixed_probabilities""",
            "parity_v2": "test_onehots",
            "parity_v3": "test_categorical",
        },
    ),
    "T15": (
        "the block GRU's gates, blocks, bias or divisor",
        {
            "networks": """
                test_the_block_gru_is_its_formulas
                test_the_block_gru_has_the_parameters_of_the_formula
                test_a_block_sees_its_own_slice_only
                test_without_weights_a_block_gru_forgets_a_quarter_per_step
                test_the_reset_gate_multiplies_the_candidate_and_not_the_memory
                test_the_divisor_of_far_actions_carries_no_gradient
                test_the_fan_in_of_a_block_is_that_of_the_whole_layer""",
            "parity_v3": "test_rssm_cell_and_prior",
        },
    ),
    "T16": (
        "norms and first weights with the defaults of the library",
        {
            "networks": """
                test_initial_weights_have_variance_one_over_fan_in_and_no_outliers
                test_glorot_weights_are_uniform_within_the_limit_of_keras
                test_glorot_counts_the_pixels_of_a_kernel_in_both_fans
                test_rms_norm_divides_by_the_root_mean_square_and_does_not_shift
                test_layer_norm_has_the_epsilon_of_keras""",
            "world_model": "test_a_fresh_model_predicts_no_reward_and_pays_the_flat_price",
            "behavior": """
                test_a_fresh_critic_values_everything_at_exactly_zero
                test_a_fresh_policy_is_nearly_indifferent""",
        },
    ),
    "T17": (
        "reconstruction averaged over pixels",
        {
            "heads": """
                test_pixels_are_summed_without_a_half
                test_pixels_of_v1_and_v2_have_a_half_and_a_constant""",
            "world_model": "test_reconstruction_is_summed_over_pixels_and_averaged_over_rows",
        },
    ),
    "T18": (
        "images scaled otherwise when acting",
        {
            "networks": "test_the_encoder_sees_pixels_from_minus_to_plus_a_half",
            "agent": "test_acting_row_by_row_remembers_what_training_remembers",
            "guard": "test_bad_input_is_refused_by_name",
        },
    ),
    "T19": (
        "twohot: bins, sum, clipping, target",
        {
            "transforms": """
                test_golden_bins
                test_bins_are_exactly_antisymmetric_and_do_not_fall
                test_two_neighbors_share_the_weight_linearly
                test_beyond_the_range_all_weight_sits_on_the_end
                test_targets_carry_no_gradient""",
            "heads": """
                test_a_flat_distribution_predicts_exactly_zero
                test_a_flat_distribution_costs_the_logarithm_of_the_number_of_bins
                test_the_target_decodes_to_itself
                test_a_random_target_decodes_to_its_mean
                test_the_first_release_of_v3_decodes_a_random_target_too_low""",
        },
    ),
    "T20": (
        "γ twice, or a continue loss that does not fall",
        {
            "world_model": """
                test_the_label_of_continue_is_the_discount_and_ends_with_the_episode
                test_without_a_continue_predictor_the_discount_is_a_constant
                test_the_continue_loss_is_weighted_and_its_label_is_the_discount""",
            "heads": """
                test_the_continue_head_learns_the_discount
                test_the_loss_falls_when_the_prediction_improves""",
            "distributions": "test_a_soft_label_is_learned_as_the_probability",
        },
    ),
    "T21": (
        "a branch that nobody ever ran",
        {
            "presets": "test_every_preset_learns_from_a_batch",
            "papers": "test_every_paper_runs_from_end_to_end",
            "behavior": "test_every_estimator_moves_every_kind_of_continuous_policy",
            "world_model": "test_gaussian_latents_learn_as_well",
        },
    ),
    "T22": (
        "gradients leak into the model, or do not reach it",
        {
            "routing": """
                test_routing
                test_what_flows_through_the_model_is_applied_to_the_actor_only
                test_where_every_row_starts_an_episode_the_prior_learns_alone""",
        },
    ),
    "T23": (
        "λ-returns off by one",
        {
            "returns": """
                test_golden_numbers
                test_lambda_zero_is_one_step_td
                test_lambda_one_is_monte_carlo_with_a_bootstrap
                test_it_is_the_weighted_average_of_all_n_step_returns
                test_the_form_of_v1_and_v2_gives_its_own_golden_numbers
                test_relabeling_turns_returns_of_v3_into_those_of_v1_and_v2""",
            "behavior": """
                test_rewards_and_discounts_are_read_on_arriving_and_values_everywhere
                test_returns_follow_the_value_of_the_state_arrived_at""",
        },
    ),
    "T24": (
        "one dreamed step too few",
        {
            "behavior": (
                "test_a_dream_of_15_steps_has_16_states_and_15_of_everything_that_follows_an_action"
            ),
            "traps": "test_the_authors_count_states_targets_and_actor_terms_in_three_ways",
        },
    ),
    "T25": (
        "steps are not weighted by the discount, or with a gradient",
        {
            "returns": """
                test_weights_are_the_product_of_the_continue_flag_and_discounts
                test_nothing_counts_after_the_end
                test_weights_carry_no_gradient""",
            "behavior": "test_terminal_starts_train_neither_actor_nor_critic",
        },
    ),
    "T26": (
        "the return scale is inert, debiased, or magnifies",
        {
            "behavior": """
                test_the_scale_starts_at_zero_and_is_not_debiased
                test_small_returns_are_not_magnified
                test_rewards_a_thousand_times_larger_leave_the_actor_gradient_alone
                test_rewards_a_thousand_times_smaller_shrink_the_actor_gradient
                test_the_scale_divides_the_advantage_not_the_target_of_the_critic""",
        },
    ),
    "T27": (
        "a path that ends at a sample without a gradient",
        {
            "behavior": """
                test_every_estimator_moves_every_kind_of_policy
                test_every_estimator_moves_every_kind_of_continuous_policy""",
        },
    ),
    "T28": (
        "REINFORCE with another action, state or sign",
        {
            "behavior": """
                test_reinforce_is_the_softmax_minus_the_action_times_the_advantage
                test_reinforce_finds_the_better_arm_of_a_bandit
                test_an_action_is_judged_in_the_state_it_was_taken_in""",
        },
    ),
    "T29": (
        "the slow critic is trained, too early, or used for the wrong thing",
        {
            "behavior": """
                test_the_slow_copy_starts_equal_and_follows_by_two_percent
                test_a_hard_copy_happens_every_so_many_updates
                test_values_of_the_slow_copy_are_used_only_on_request
                test_targets_and_baseline_of_v2_are_those_of_the_slow_copy
                test_no_optimizer_knows_the_slow_copy_and_it_needs_no_gradient""",
            "agent": """
                test_the_slow_critic_follows_after_the_step
                test_v2_copies_its_critic_after_the_first_step_and_every_hundredth""",
        },
    ),
    "T30": (
        "the log-probability of another distribution than was sampled",
        {
            "distributions": """
                test_its_samples_leave_the_box_and_their_log_probability_is_not_corrected
                test_its_entropy_lies_between_those_of_its_limits
                test_v1_squashes_a_normal_as_the_library_does
                test_an_action_on_the_border_has_a_finite_log_probability
                test_v2_truncates_a_normal_as_scipy_does
                test_gradients_of_v2_samples_ignore_the_cut""",
            "parity_v1": "test_log_probability_of_actions",
            "parity_v2": "test_truncated_normal",
        },
    ),
    "T31": (
        "replayed values bootstrapped from another row",
        {
            "behavior": """
                test_replayed_returns_by_hand
                test_the_bootstrap_belongs_to_the_same_row""",
            "agent": "test_replayed_values_are_bootstrapped_by_the_dream_of_the_same_state",
        },
    ),
    "T32": (
        "dreams that begin after the end train somebody",
        {
            "returns": "test_a_terminal_start_trains_nobody",
            "behavior": "test_terminal_starts_train_neither_actor_nor_critic",
            "agent": "test_every_replayed_state_starts_a_dream_with_its_own_flag",
        },
    ),
    "T33": (
        "clipping and momentum in another order, or per unit",
        {
            "optim": """
                test_laprop_is_its_formula
                test_adam_is_that_of_keras
                test_the_order_of_normalizing_and_momentum_matters
                test_no_tensor_gets_a_gradient_above_its_share_of_the_weights
                test_weights_that_are_zero_may_move_by_the_floor
                test_the_first_step_of_a_warm_up_moves_nothing_and_the_last_is_full""",
            "parity_v1": "test_adam",
            "parity_v2": "test_adam_with_weight_decay",
            "parity_v3": "test_laprop",
        },
    ),
    "T34": (
        "one optimizer or several: a loss moves what belongs to another",
        {
            "routing": "test_what_flows_through_the_model_is_applied_to_the_actor_only",
            "agent": "test_separate_optimizers_move_their_own_part_by_their_own_loss",
        },
    ),
    "T35": (
        "half precision where it overflows; fast layers that compute something else",
        {
            "agent": """
                test_half_precision_computes_the_same_losses_within_two_percent
                test_rewards_of_ten_thousand_stay_finite_for_a_thousand_updates""",
            "distributions": "test_half_precision_logits_are_computed_in_full",
            "heads": "test_half_precision_outputs_are_computed_in_full",
            "fast": "test_losses_states_and_gradients_are_those_of_the_reference",
        },
    ),
    "T36": (
        "a replay that needs more memory than it says",
        {
            "replay": """
                test_memory_is_what_the_arithmetic_says
                test_bytes_and_floats_come_back_exactly
                test_too_little_memory_is_refused_with_both_numbers""",
        },
    ),
    "T37": (
        "a resumed run that forgot something",
        {
            "training": """
                test_a_run_killed_at_any_moment_continues_bit_for_bit
                test_a_resumed_run_holds_what_the_stopped_one_held
                test_a_run_can_be_made_longer""",
            "replay": "test_sampling_goes_on_bit_for_bit_after_a_restart",
        },
    ),
    "T38": (
        "evaluated by samples or modes, nobody knows",
        {
            "papers": ("test_v1_and_v2_are_evaluated_by_their_likeliest_action_and_v3_by_samples"),
            "training": "test_the_most_likely_action_can_be_evaluated",
        },
    ),
    "T39": (
        "settings that nothing reads",
        {
            "presets": """
                test_an_unknown_field_is_refused_by_name
                test_a_field_that_nothing_would_read_or_a_number_out_of_range_is_refused""",
            "traps": "test_what_two_papers_disagree_on_is_printed_as_a_table",
            "networks": "test_settings_that_nothing_reads_are_refused",
            "cli": "test_what_makes_no_sense_exits_with_status_2",
        },
    ),
    "T40": (
        "what looks like a bug, and is meant, is repaired",
        {
            "agent": """
                test_the_posterior_is_sampled_even_where_the_action_is_the_likeliest
                test_the_actor_reads_features_without_a_gradient""",
            "traps": """
                test_the_reward_of_a_first_row_is_learned_like_any_other
                test_both_kl_losses_have_one_value_and_two_gradients
                test_the_advantage_of_v3_asks_the_critic_and_that_of_v2_its_slow_copy""",
            "training": "test_a_reset_row_has_no_reward_and_no_action_and_is_trained_on",
            "papers": "test_v1_and_v2_are_evaluated_by_their_likeliest_action_and_v3_by_samples",
        },
    ),
}
SEEN_ELSEWHERE = {"in place": {"rssm": "test_inputs_are_not_written_into"}}  # no number, yet seen


@cache
def functions(file):
    tree = ast.parse((HERE / f"test_{file}.py").read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_trap_has_its_tests():
    numbers = [f"T{i}" for i in range(1, 41)]
    assert list(TRAPS) == numbers


@pytest.mark.parametrize("trap", [*TRAPS, *SEEN_ELSEWHERE])
def test_the_tests_of_a_trap_exist(trap):
    tests = SEEN_ELSEWHERE.get(trap) or TRAPS[trap][1]
    assert tests
    for file, names in tests.items():
        assert names.split() and set(names.split()) <= functions(file), file


def test_a_test_that_does_not_exist_is_noticed():
    assert "test_routing" in functions("routing") and "test_rooting" not in functions("routing")


def test_the_authors_count_states_targets_and_actor_terms_in_three_ways():
    """Ours: H + 1 states, H targets, H actor terms, in every preset."""
    v1 = next(iter(load("v1_actor_value_loss", OURS).values()))
    assert len(v1.out["returns"]) == len(v1.out["weight"]) == len(v1.x["reward"]) - 1
    v2 = next(iter(load("v2_actor_critic", OURS).values()))
    assert len(v2.out["target"]) == len(v2.x["reward"]) - 1
    assert len(v2.x["policy_raw"]) == len(v2.x["reward"]) - 2
    v3 = next(iter(load("v3_imag_loss", OURS).values()))
    assert v3.out["policy_loss"].shape[-1] == v3.x["rew"].shape[-1] - 1


def test_the_first_code_of_v1_subtracts_its_floor_from_every_step():
    """max(0, KL - 1) of each row (`google-research/dreamer@d517542`): V3's, less a constant."""
    kl = told()
    first = (kl - 1).clamp(min=0).mean()
    floored = kl_loss(Told(kl), Told(kl), dyn=1.0, rep=0.0, free=1.0, per_step=True)
    assert first.item() == 0.5 and floored.item() == 1.5
    assert torch.equal(*(torch.autograd.grad(loss, kl)[0] for loss in (first, floored)))


def test_what_two_papers_disagree_on_is_printed_as_a_table():
    found = diff(V1, V2)
    lines = str(found).splitlines()
    assert lines[0].split() == ["setting", "v1", "v2"] and len(lines) == 1 + len(found)
    assert [line.split()[0] for line in lines[1:]] == list(found)
    starts = [{m.start() for m in re.finditer(r"\S+", line)} for line in lines]
    assert all(columns == starts[0] for columns in starts), "columns are not aligned"
    assert "| `model.cell` | @GRU | @NormGRU |" in found._repr_markdown_().splitlines()


def test_settings_without_a_name_are_called_a_and_b_and_equal_ones_have_no_row():
    other = replace(V3, envs=1)
    assert str(diff(other, replace(other, envs=2))) == "setting  a  b\nenvs     1  2"
    assert str(diff(V3, V3)) == "setting  v3  v3" and diff(V3, V3) == {}


# --- T40: intended, not bugs ---------------------------------------------------------------------


@pytest.mark.parametrize("name", tiny.PAPERS)
def test_the_reward_of_a_first_row_is_learned_like_any_other(name):
    model, batch = tiny.agent(cfg=tiny.PAPERS[name]).world_model, tiny.batch()
    found = []
    for where in (batch.is_first, ~batch.is_first):
        torch.manual_seed(0)
        reward = batch.reward + 10 * where
        found.append(model.loss(batch._replace(reward=reward))[0]["reward"])
    torch.manual_seed(0)
    plain = model.loss(batch)[0]["reward"]
    assert all(abs(x - plain) > 1e-3 for x in found)


def test_both_kl_losses_have_one_value_and_two_gradients():
    q, p = ((torch.randn(2, 3, 4, 5)).requires_grad_() for _ in range(2))
    kl = partial(kl_loss, OneHots.of(q), OneHots.of(p), free=0.0, per_step=True)
    dyn, rep = kl(dyn=1.0, rep=0.0), kl(dyn=0.0, rep=1.0)
    assert dyn == rep
    gradient = partial(torch.autograd.grad, retain_graph=True, materialize_grads=True)
    moved = {k: gradient(x, [q, p]) for k, x in {"dyn": dyn, "rep": rep}.items()}
    assert not moved["dyn"][0].any() and moved["dyn"][1].any()
    assert moved["rep"][0].any() and not moved["rep"][1].any()


@pytest.mark.parametrize("name, asked", [("V2", True), ("V3", False)])
def test_the_advantage_of_v3_asks_the_critic_and_that_of_v2_its_slow_copy(name, asked):
    agent, batch, found = tiny.agent(cfg=tiny.PAPERS[name]), tiny.batch(), []
    for _ in range(2):
        torch.manual_seed(0)
        agent.behavior.scale.range.zero_()
        found.append(agent.losses(batch, None)[0]["actor"])
        for p in agent.behavior.slow_critic.parameters():
            torch.nn.init.normal_(p)
    assert bool(found[0] != found[1]) == asked
