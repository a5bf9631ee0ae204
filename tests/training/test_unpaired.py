import pytest
import torch

from training.__main__ import build
from training.config import RecipeError
from training.datasets import Domains
from training.methods import Progress
from training.pool import Pool
from training.recipe import parse_recipe
from training.ties import TIES, Bridge
from training.ties.cycle import Cycle


def domains(a: int, b: int) -> Domains:
    def numbered(n: int) -> torch.Tensor:
        return torch.arange(n, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 16, 16)

    return Domains(numbered(a), numbered(b), tuple(map(str, range(a))), tuple(map(str, range(b))))


@pytest.mark.parametrize(("a", "b"), [(20, 12), (12, 20)])
def test_an_epoch_passes_over_the_larger_set_and_the_other_is_drawn_beside_it(a, b):
    data = domains(a, b)
    assert (len(data), data.size) == (20, 32)
    torch.manual_seed(0)
    first = data.batch(torch.arange(20))
    again = data.batch(torch.arange(20))
    torch.manual_seed(0)
    resumed = data.batch(torch.arange(20))
    larger, smaller = (0, 1) if a > b else (1, 0)
    assert torch.equal(first[larger], again[larger])
    assert not torch.equal(first[smaller], again[smaller])
    assert torch.equal(first[smaller], resumed[smaller])
    assert first[0].shape == (20, 3, 16, 16)
    assert first[larger].amin() == -1


def test_the_fingerprint_depends_on_both_sets():
    data = domains(4, 4)
    other = Domains(data.a, data.b + 1, data.a_keys, data.b_keys)
    assert data.fingerprint != other.fingerprint
    assert data.fingerprint == domains(4, 4).fingerprint


def bridge():
    """Generators that add to what they are given: B adds 0.3, A takes 0.1 away."""
    a, b = torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), 0.5)
    return Bridge(a=a, b=b, a_to_b=a + 0.3, b_to_a=b - 0.1, to_b=lambda x: x + 0.3, to_a=lambda x: x - 0.1)


def test_cycle_is_the_distance_there_and_back_and_identity_what_should_stay():
    losses = Cycle(weight=7, identity_weight=2).losses(bridge())
    assert losses["loss/cycle"][0] == 7
    torch.testing.assert_close(losses["loss/cycle"][1], torch.tensor(0.2 + 0.2))
    assert losses["loss/identity"][0] == 2
    torch.testing.assert_close(losses["loss/identity"][1], torch.tensor(0.3 + 0.1))


def test_a_weight_of_zero_spares_the_identity():
    assert set(Cycle(identity_weight=0).losses(bridge())) == {"loss/cycle"}


@pytest.mark.parametrize("name", TIES)
def test_every_tie_takes_a_step(name, unpaired_tables):
    unpaired_tables["tie"] = {"name": name}
    recipe = parse_recipe(unpaired_tables, "the recipe")
    data = recipe.data.load("train")
    method = build(recipe, data)
    before = {key: [p.clone() for p in network.parameters()] for key, network in method.networks.items()}
    scalars = method.step(lambda: data.batch(torch.arange(8)), Progress(0, 80, 8))
    assert all(value.isfinite() for value in scalars.values())
    assert ("loss/cycle" in scalars) == (name == "cycle")
    for key, network in method.networks.items():
        moved = any(not torch.equal(p, q) for p, q in zip(network.parameters(), before[key], strict=True))
        assert moved or key.endswith("_ema"), key


def test_a_full_pool_hands_out_the_past_and_loses_nothing():
    torch.manual_seed(0)
    pool = Pool(4)
    first = torch.arange(4.0).view(4, 1)
    assert torch.equal(pool.exchange(first), first)
    handed_out, seen = [], list(range(4))
    for start in range(4, 40, 4):
        seen += range(start, start + 4)
        handed_out += pool.exchange(torch.arange(start, start + 4.0).view(4, 1)).flatten().tolist()
    assert sorted([*handed_out, *pool.items.flatten().tolist()]) == seen
    of_the_past = sum(value < 4 + index // 4 * 4 for index, value in enumerate(handed_out))
    assert of_the_past > 5


def test_a_pool_of_none_hands_out_what_comes_in():
    new = torch.rand(3, 2)
    assert torch.equal(Pool(0).exchange(new), new)


def test_held_out_partners_are_found_by_key(unpaired_tables):
    recipe = parse_recipe(unpaired_tables, "the recipe")
    method = build(recipe, recipe.data.load("train"))
    for way in ("ab", "ba"):
        examples = method.examples[way]
        torch.testing.assert_close(examples.targets, -examples.sources)  # B is A inverted


def test_z_is_refused(unpaired_tables):
    unpaired_tables["generator"]["z_dim"] = 2
    recipe = parse_recipe(unpaired_tables, "the recipe")
    with pytest.raises(RecipeError, match="takes no z"):
        build(recipe, recipe.data.load("train"))
