import pytest
import torch

from training.layers import Framing, ProjectionHead


def card(size, left, top, width, height):
    """One picture [1, 3, H, W]: a red card on white."""
    picture = torch.ones(1, 3, size, size)
    picture[:, 1:, top : top + height, left : left + width] = -1
    return picture


def place(picture):
    """(left, top, right, bottom) of what is more red than white."""
    red = (picture[0, 1] < 0).nonzero()
    (top, left), (bottom, right) = red.amin(0).tolist(), red.amax(0).tolist()
    return left, top, right + 1, bottom + 1


def test_framing_brings_what_is_drawn_to_where_targets_have_it():
    sources = torch.cat([card(64, 8, 8, 40, 40), card(64, 16, 16, 40, 40), torch.ones(1, 3, 64, 64)])
    targets = torch.cat([card(64, 2, 12, 60, 30), card(64, 2, 22, 60, 30)])
    framing = Framing()
    torch.testing.assert_close(framing(sources), sources)
    framing.fit(sources, targets)
    made = framing(card(64, 12, 12, 40, 40))
    assert place(made) == (2, 17, 62, 47)
    torch.testing.assert_close(made.amax((0, 2, 3)), torch.ones(3))  # white from outside
    back = Framing()
    back.fit(targets, sources)
    assert place(back(made)) == (12, 12, 52, 52)


def test_framing_that_is_fitted_is_kept_with_the_weights():
    framing = Framing()
    framing.fit(card(32, 4, 4, 8, 8), card(32, 2, 6, 16, 20))
    other = Framing()
    other.load_state_dict(framing.state_dict())
    picture = torch.rand(2, 3, 32, 32)
    assert torch.equal(other(picture), framing(picture))
    assert not torch.equal(framing(picture), picture)


@pytest.mark.parametrize(("bounded", "match"), [(False, 3.5), (True, 7.0)])
def test_the_match_is_the_product_of_class_and_features(bounded, match):
    head = ProjectionHead(4, 2, bounded=bounded)
    with torch.no_grad():
        head.embedding.weight[1] = torch.tensor([1.0, 0, 2, 0])
    assert head(torch.tensor([[3.0, 9, 2, 9]]), torch.tensor([1]))[1].item() == match
