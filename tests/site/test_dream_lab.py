"""dream-lab plays Flicker-Catch as the package does and looks up the dreams the page packed."""

import ast

import lint_book
import pytest
import torch
from conftest import mounted

from dreamer_lite import toys
from dreamer_lite.returns import discount_weights, lambda_return

LAB = "dream-lab"
DEPTH, AFTER = 2, 2  # of the tree made up here: 9 leaves
NODES = 1 + 3 + 9 + 9 * AFTER
BALLS = [(c, v) for c in (0, 1, 7, 13, 14) for v in (-1, 0, 1)]


def games():
    """Balls and random actions, up to two more than a game has."""
    torch.manual_seed(0)
    for n, (column, velocity) in enumerate(BALLS):
        yield column, velocity, torch.randint(3, (n % (toys.STEPS + 3),)).tolist()


def played(column, velocity, actions):
    """The package's game after these actions: its frame and the last reward."""
    world = toys.Catch()
    frame, _ = world.reset(seed=0)
    world.column, world.velocity, reward = column, velocity, 0.0
    for action in actions[: toys.STEPS]:
        frame, reward, *_ = world.step(action)
    return frame, reward


def test_the_game_of_dream_lab_is_that_of_the_package(js):
    cases = list(games())
    found = js(LAB, "game", cases)
    pictures = js(LAB, "picture", [(state,) for state in found])
    for case, got, pixels in zip(cases, found, pictures, strict=True):
        frame, reward = played(*case)
        assert got["reward"] == reward and got["time"] == min(len(case[2]), toys.STEPS)
        if case[2]:  # the first frame of `played` is that of another ball
            assert pixels == (frame.flatten() / toys.INK).tolist()


def test_weights_and_worth_are_those_of_the_package(js):
    torch.manual_seed(0)
    reward, discount = torch.randn(7, dtype=torch.float64), torch.rand(7, dtype=torch.float64)
    value = torch.zeros(7, dtype=torch.float64)
    value[-1] = 2.5
    (weight,) = js(LAB, "weights", [(discount.tolist(),)])
    start = torch.ones(1, dtype=torch.float64)
    expected = discount_weights(start, discount[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(weight[:-1], dtype=torch.float64), expected)
    (worth,) = js(LAB, "worth", [(reward.tolist(), discount.tolist(), 2.5)])
    assert worth == pytest.approx(float(lambda_return(reward, discount, value, 1.0)[0]), abs=1e-9)


def sequences():
    """Every sequence of actions of the small tree; past its leaves, those that differ inside."""
    found = [[]]
    for _ in range(DEPTH):
        found += [[*s, a] for s in found for a in range(3) if [*s, a] not in found]
    leaves = [s for s in found if len(s) == DEPTH]
    return found + [[*s, *[1] * k] for s in leaves for k in range(1, AFTER + 1)]


def test_every_sequence_of_actions_has_a_place_of_its_own(js):
    cases = [(s, DEPTH, AFTER) for s in sequences()]
    assert sorted(js(LAB, "place", cases)) == list(range(NODES))
    same = [([0, 2, 0, 0], DEPTH, AFTER), ([0, 2, 1, 2], DEPTH, AFTER)]
    assert len(set(js(LAB, "place", same))) == 1  # past the leaves actions do not count


def test_disagreement_is_the_share_of_light_in_one_picture_only(js):
    one, other = [1.0, 0.5] + [0.0] * 254, [0.0] * 254 + [1.0, 0.5]
    half = [1.0] + [0.0] * 255
    cases = [(one, one), (one, other), (one, half), ([0.0] * 256, [0.0] * 256)]
    assert js(LAB, "disagreement", cases) == [0, 1, pytest.approx(0.5 / 2.5), 0]


def functions_of_the_page():
    """What chapter 8 defines and imports, without running its cells."""
    (page,) = [page for page in lint_book.pages(["08"])]
    kinds = ast.FunctionDef | ast.Import | ast.ImportFrom
    nodes = [n for cell in page.code for n in lint_book.parsed(cell).body]
    nodes = [n for n in nodes if isinstance(n, kinds) or ast.unparse(n).startswith("LEVELS")]
    names = {}
    for node in nodes:
        exec(ast.unparse(node), names)
    return names


def random_tree():
    """Frames, rewards, discounts and values of a made-up tree, as `report.predict` gives them."""
    torch.manual_seed(1)
    frames = (torch.rand(NODES, 16, 16, 1) ** 8 * 255).byte().numpy()
    numbers = torch.rand(3, NODES)
    return frames, (2 * numbers[0] - 1).numpy(), numbers[1].numpy(), (2 * numbers[2] - 1).numpy()


def data(tree):
    """The tree as the page packs it."""
    page = functions_of_the_page()
    game = dict(name="made up", column=9, velocity=-1, blank=[0, 0, 0, 1, 0])
    shape = dict(games=[game], context=5, depth=DEPTH, after=AFTER, gamma=0.9)
    return page["packed"](*tree) | shape | dict(nodes=NODES)


def test_the_lab_looks_up_what_the_page_packed(js):
    tree = random_tree()
    frames, reward, discount, value = tree
    packed, levels = data(tree), functions_of_the_page()["LEVELS"]
    asked = sequences()
    places = js(LAB, "place", [(s, DEPTH, AFTER) for s in asked])
    found = js(LAB, "lookUp", [(packed, 0, s) for s in asked])
    assert len(found) == NODES
    for at, got in zip(places, found, strict=True):
        want = frames[at].flatten() / 255
        assert max(abs(want - got["pixels"])) <= 0.5 / (levels - 1) + 1e-6
        assert got["reward"] == pytest.approx(reward[at], abs=0.0101)
        assert got["discount"] == pytest.approx(discount[at], abs=0.0021)
        assert got["value"] == pytest.approx(value[at], abs=0.0101)


@pytest.fixture
def lab(browser):
    words = "a game and the dream of it, side by side"
    with mounted(browser, LAB, data(random_tree()), words) as tab:
        tab.get_by_text("0 of 4 steps").first.wait_for()
        yield tab


def said(tab):
    return tab.locator(".dl-said").inner_text()


def test_arrow_keys_drive_both_and_go_back(lab):
    stage = lab.get_by_role("group", name="The world and the dream")
    stage.focus()
    for key, words in [("ArrowLeft", "1 of 4"), ("ArrowDown", "2 of 4"), ("ArrowUp", "1 of 4")]:
        stage.press(key)
        assert words in said(lab)
    stage.press("ArrowRight")
    assert "2 of 4" in said(lab) and "paddle from column 6" in said(lab).split("The dream")[0]


def test_the_horizon_stops_the_dream_and_keys_on_its_slider_do_not_drive(lab):
    slider = lab.get_by_label("horizon H")
    slider.focus()
    slider.press("ArrowLeft")
    assert "0 of 3 steps" in said(lab)
    for _ in range(5):
        if lab.get_by_role("button", name="stay").is_enabled():
            lab.get_by_role("button", name="stay").click()
    assert "3 of 3 steps" in said(lab) and "the critic is asked" in said(lab)


def test_without_the_continue_head_steps_past_the_end_count(lab):
    weight = []
    for _ in range(2):
        if (again := lab.get_by_role("button", name="Start again")).is_enabled():
            again.click()
        for _ in range(4):
            lab.get_by_role("button", name="stay").click()
        weight.append(float(said(lab).split("weighs it with ")[1].split(";")[0]))
        lab.get_by_role("button", name="Without the continue head").click()
    assert weight[0] < weight[1] == pytest.approx(0.9**3, abs=0.005)
