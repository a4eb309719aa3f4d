"""Memory: what a new episode forgets, what a dream may know, and that both paths agree."""

import pytest
import torch

from dreamer_lite.distributions import Categorical, Gaussian, OneHots
from dreamer_lite.networks import GRU, BlockGRU, NormGRU, Style
from dreamer_lite.rssm import RSSM, State, stack

T, B, A, E = 6, 3, 2, 5
LATENTS = {"categorical": Categorical(4, 3, 0.01), "gaussian": Gaussian(6)}


def rssm(latent=LATENTS["categorical"], cell=BlockGRU):
    style = Style()
    return RSSM(cell(16, 8, latent.size, A, style), latent, 16, 8, E, 2, 1, style)


def inputs():
    return torch.randn(T, B, E), torch.randn(T, B, A), torch.zeros(T, B, dtype=torch.bool)


def random_state(model, batch=B):
    s = model.initial(batch)
    return s.map(torch.rand_like)


def observe(model, embed, action, first, start, seed=0):
    torch.manual_seed(seed)
    return model.observe(embed, action, first, start)[0]


@pytest.mark.parametrize("latent", LATENTS.values(), ids=LATENTS)
@pytest.mark.parametrize("cell", [BlockGRU, NormGRU, GRU])
def test_nothing_before_a_first_row_reaches_what_follows(latent, cell):
    model, (embed, action, first), k = rssm(latent, cell), inputs(), 3
    first[k] = True
    start = random_state(model)
    plain = observe(model, embed, action, first, start)
    other_embed, other_action = embed.clone(), action.clone()
    other_embed[:k], other_action[: k + 1] = 7.0, -7.0  # the action into the first row as well
    other = observe(model, other_embed, other_action, first, start.map(lambda x: x + 1))
    assert torch.equal(plain.feat[k:], other.feat[k:])
    assert not torch.equal(plain.feat[:k], other.feat[:k])


def test_no_gradient_crosses_a_first_row():
    model, (embed, action, first), k = rssm(), inputs(), 3
    first[k] = True
    start = random_state(model).map(lambda x: x.requires_grad_())
    embed.requires_grad_()
    action.requires_grad_()
    states = observe(model, embed, action, first, start)
    past = torch.autograd.grad(states.feat[k:].sum(), [embed, action, *start])
    assert not past[0][:k].any() and past[0][k:].any()
    assert not past[1][: k + 1].any() and past[1][k + 1 :].any()
    assert not past[2].any() and not past[3].any()


def test_a_first_row_concerns_its_own_stream_only():
    model, (embed, action, first) = rssm(), inputs()
    start = random_state(model)
    plain = observe(model, embed, action, first, start)
    first[0, 1] = True
    reset = observe(model, embed, action, first, start)
    assert torch.equal(plain.feat[:, [0, 2]], reset.feat[:, [0, 2]])
    assert not torch.equal(plain.feat[0, 1], reset.feat[0, 1])


def test_a_first_row_is_an_empty_memory_without_an_action():
    model, (embed, action, first) = rssm(), inputs()
    reset = observe(model, embed[:1], action[:1], ~first[:1], random_state(model))
    empty = observe(model, embed[:1], 0 * action[:1], first[:1], model.initial(B))
    assert torch.equal(reset.feat, empty.feat)


def test_observing_a_sequence_is_observing_row_by_row():
    model, (embed, action, first) = rssm(), inputs()
    first[2, 1] = True
    start = s = random_state(model)
    together = observe(model, embed, action, first, start)
    torch.manual_seed(0)
    states = []
    for e, a, f in zip(embed, action, first, strict=True):
        s, _ = model.step(s, a, e, f)
        states.append(s)
    assert torch.equal(stack(states).feat, together.feat)


def test_the_posterior_over_all_rows_is_the_one_sampled_from():
    model, (embed, action, first) = rssm(), inputs()
    states, q = model.observe(embed, action, first, model.initial(B))
    torch.testing.assert_close(q.probs, model.latent(model.post_params(states.h, embed)).probs)
    assert (q.log_prob(states.z) > -100).all()


def test_the_first_action_is_the_one_that_led_to_the_first_row():
    model, (embed, action, first) = rssm(), inputs()
    start = random_state(model)
    states = observe(model, embed, action, first, start)
    torch.testing.assert_close(states.h[0], model.recur(start, action[0]))
    before = states.map(lambda x: x[0])
    torch.testing.assert_close(states.h[1], model.recur(before, action[1]))


def test_inputs_are_not_written_into():
    model, (embed, action, first) = rssm(), inputs()
    first[2] = True
    copies = [x.clone() for x in (embed, action, first)]
    start = random_state(model)
    kept = start.map(torch.clone)
    observe(model, embed, action, first, start)
    for x, copy in zip((embed, action, first, *start), (*copies, *kept), strict=True):
        assert torch.equal(x, copy)


class Fixed:
    """A policy that writes down what it sees."""

    def __init__(self):
        self.seen = []

    def __call__(self, feat):
        self.seen.append(feat)
        return OneHots.of(torch.zeros(len(feat), 1, A))


def test_a_dream_of_h_steps_has_h_plus_1_states_and_h_actions():
    model = rssm()
    start = random_state(model)
    states, actions = model.imagine(Fixed(), start, 7)
    assert states.h.shape == (8, B, 16) and states.z.shape == (8, B, 12)
    assert actions.shape == (7, B, A)
    assert torch.equal(states.h[0], start.h) and torch.equal(states.z[0], start.z)


def test_the_policy_acts_on_the_state_it_leaves_and_sees_no_graph():
    model, policy = rssm(), Fixed()
    states, actions = model.imagine(policy, random_state(model), 3)
    assert len(policy.seen) == 3 and not any(x.requires_grad for x in policy.seen)
    assert torch.equal(torch.stack(policy.seen), states.feat[:-1])
    for t in range(3):
        now = states.map(lambda x: x[t])  # noqa: B023
        torch.testing.assert_close(states.h[t + 1], model.recur(now, actions[t]))


def test_following_given_actions_is_the_same_dream():
    model = rssm()
    start = random_state(model)
    actions = torch.randn(4, B, A)
    states = model.follow(start, actions)
    assert states.h.shape == (4, B, 16)
    torch.testing.assert_close(states.h[0], model.recur(start, actions[0]))
    first = states.map(lambda x: x[0])
    torch.testing.assert_close(states.h[1], model.recur(first, actions[1]))


def test_an_empty_memory_is_zero():
    s = rssm().initial(4)
    assert s.h.shape == (4, 16) and s.z.shape == (4, 12) and not s.feat.any()


def test_features_are_memory_then_latent():
    s = State(torch.ones(2, 3), torch.zeros(2, 4))
    assert s.feat[0].tolist() == [1, 1, 1, 0, 0, 0, 0]


def test_flags_that_are_not_boolean_or_not_time_major_are_refused():
    model, (embed, action, first) = rssm(), inputs()
    with pytest.raises(ValueError, match=r"is_first must be bool \[6, 3\], got float32 \[6, 3\]"):
        model.observe(embed, action, first.float(), model.initial(B))
    with pytest.raises(ValueError, match=r"got bool \[3, 6\].*time first"):
        model.observe(embed, action, first.T, model.initial(B))
