"""The search of a latent space: each image walks as it would alone, from where its own pixels say."""

import pytest
import torch
from torch import nn

from adbench_baselines.latent_search import Ends, Found, better, clipped, in_groups, search, starts, walk
from adbench_tgan.testing import smooth_images


def images(count=6, seed=0):
    return smooth_images(count, (1, 16, 16), seed)


def bowl(z, centre, scale):
    """A loss of each image, as steep as `scale` says."""
    return scale * ((z - centre).square() * torch.tensor([1.0, 5.0, 0.2])).sum(1) + 1


def bowls(count=5):
    draw = torch.Generator().manual_seed(0)
    centre = torch.randn(count, 3, generator=draw)
    return torch.randn(count, 3, generator=draw), (centre, 10.0 ** torch.arange(-2, count - 2))


def reference(z0, targets, rates, clip=None):
    """One image at a time, with torch's own Adam and its own clipping."""
    ends = []
    for row in range(len(z0)):
        z = z0[row : row + 1].clone().requires_grad_()
        optimizer = torch.optim.Adam([z])
        for rate in rates:
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            bowl(z, *(rows[row : row + 1] for rows in targets)).sum().backward()
            if clip is not None:
                nn.utils.clip_grad_norm_([z], clip)
            optimizer.step()
        ends.append(z.detach())
    return torch.cat(ends)


@pytest.mark.parametrize("clip", [None, 0.3])
def test_a_walk_is_that_of_torchs_adam_for_each_image_alone(clip):
    z0, targets = bowls()
    rates = [0.1] * 8 + [0.02] * 8 + [0.5]
    torch.testing.assert_close(
        walk(bowl, targets, z0, rates, clip=clip), reference(z0, targets, rates, clip), rtol=1e-4, atol=1e-5
    )


def test_gradients_are_clipped_one_image_at_a_time():
    gradient = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    expected = torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]])
    torch.testing.assert_close(clipped(gradient, 1.0), expected)


def test_companions_change_nothing():
    z0, targets = bowls()
    together = walk(bowl, targets, z0, [0.1] * 20, clip=1.0)
    for row in range(len(z0)):
        alone = walk(bowl, [rows[row : row + 1] for rows in targets], z0[row : row + 1], [0.1] * 20, clip=1.0)
        assert torch.equal(together[row : row + 1], alone)


def test_a_search_reports_the_loss_at_the_z_it_returns_and_leaves_its_start_alone():
    z0, targets = bowls()
    before = z0.clone()
    found = search(bowl, targets, [z0], [0.1] * 5)
    assert torch.equal(found.loss, bowl(found.z, *targets))
    assert (found.loss < bowl(z0, *targets)).all()
    assert torch.equal(z0, before)
    assert not found.z.requires_grad
    assert not found.loss.requires_grad


def test_a_search_without_a_start_is_refused():
    with pytest.raises(ValueError, match="no starting point"):
        search(bowl, bowls()[1], [], [0.1])


def test_a_search_runs_under_no_grad_and_leaves_no_gradient_in_a_network():
    network = nn.Linear(3, 2)
    z0 = torch.ones(4, 3)
    with torch.no_grad():
        found = search(lambda z: network(z).square().sum(1), (), [z0], [0.05] * 10)
    assert not torch.equal(found.z, z0)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())


def two_wells(z, depth):
    """Minima at -1 and at 1, the second one `depth` deeper."""
    return (z.square() - 1).square().sum(1) - depth * z.sum(1) + 9


def test_restarts_keep_the_lowest_loss_of_each_image():
    depth = torch.tensor([0.2, -0.2, 0.2])
    left, right = torch.full((3, 1), -0.9), torch.full((3, 1), 0.9)
    found = search(two_wells, [depth], [left, right], [0.01] * 60)
    assert found.z.sign().flatten().tolist() == [1, -1, 1]
    for start in (left, right):
        assert (found.loss <= search(two_wells, [depth], [start], [0.01] * 60).loss).all()


def test_better_takes_the_lower_of_each():
    one = Found(torch.zeros(3, 2), torch.tensor([1.0, 2.0, 3.0]))
    other = Found(torch.ones(3, 2), torch.tensor([2.0, 1.0, 3.0]))
    assert better(one, other).loss.tolist() == [1, 1, 3]
    assert better(one, other).z[:, 0].tolist() == [0, 1, 0]


def counted(loss):
    sizes = []

    def count(z, *targets):
        sizes.append(len(z))
        return loss(z, *targets)

    return count, sizes


def test_early_exit_lets_images_go_one_by_one_and_leaves_the_others_as_they_were():
    centre = torch.zeros(3, 3)
    z0 = torch.tensor([[0.0] * 3, [0.5] * 3, [50.0] * 3])  # at its goal, near it, and far from it
    loss, sizes = counted(bowl)
    targets = (centre, torch.ones(3))
    end = walk(loss, targets, z0, [0.1] * 100, patience=10, tolerance=0.01)
    assert sizes[:11] == [3] * 11
    assert sizes[11] == 2  # the first look back is after step 10
    assert sizes[-1] == 1
    assert len(sizes) == 100
    assert sizes == sorted(sizes, reverse=True)
    assert torch.equal(end[2], walk(bowl, targets, z0, [0.1] * 100)[2])


def test_early_exit_ends_where_the_walk_stood():
    targets = (torch.zeros(1, 3), torch.ones(1))
    z0 = torch.full((1, 3), 0.5)
    loss, sizes = counted(bowl)
    end = walk(loss, targets, z0, [0.1] * 500, patience=10, tolerance=0.01)
    looks = len(sizes) - 1
    assert looks % 10 == 0
    assert 10 < looks < 200
    assert torch.equal(end, walk(bowl, targets, z0, [0.1] * looks))


def test_starts_come_from_the_seed_and_the_images_own_pixels():
    batch = images()
    (z0,) = starts(batch, 50, seed=3)
    assert z0.shape == (6, 50)
    assert torch.equal(starts(batch.flip(0), 50, seed=3)[0], z0.flip(0))
    assert torch.equal(starts(batch[2:3], 50, seed=3)[0], z0[2:3])
    assert not torch.equal(starts(batch, 50, seed=4)[0], z0)
    changed = batch.clone()
    changed[0, 0, 0, 0] += 1
    other = starts(changed, 50, seed=3)[0]
    assert not torch.equal(other[0], z0[0])
    assert torch.equal(other[1:], z0[1:])


def test_more_restarts_begin_with_the_same_starts():
    batch = images()
    for prior in ("normal", "truncated"):
        three = starts(batch, 50, 0, 3, prior=prior)
        assert len(three) == 3
        assert torch.equal(three[0], starts(batch, 50, 0, 1, prior=prior)[0])
        assert not torch.equal(three[0], three[1])


def test_starts_follow_their_prior():
    (normal,) = starts(images(20), 1000, 0)
    (truncated,) = starts(images(20), 1000, 0, prior="truncated")
    assert normal.abs().max() > 3
    assert normal.std().item() == pytest.approx(1, abs=0.02)
    assert truncated.abs().max() <= 2
    assert truncated.std().item() == pytest.approx(0.88, abs=0.02)  # of a normal cut at two sigma
    assert truncated.mean().item() == pytest.approx(0, abs=0.02)


def test_starts_draw_nothing_from_the_global_random_numbers():
    dice = torch.get_rng_state()
    starts(images(), 50, 0, 2, prior="truncated")
    assert torch.equal(dice, torch.get_rng_state())


@pytest.mark.parametrize("count", [1, 3, 4, 6])
def test_groups_are_filled_up_and_come_back_in_order(count):
    sizes = []

    def find(part):
        sizes.append(len(part))
        return Found(part.float().flatten(1), part.float().mean((1, 2, 3)))

    batch = images(count)
    found = in_groups(find, batch, 3)
    assert sizes == [3] * -(-count // 3)
    assert torch.equal(found.z, batch.float().flatten(1))
    assert torch.equal(found.loss, batch.float().mean((1, 2, 3)))
    sizes.clear()
    assert torch.equal(in_groups(find, batch, None).loss, found.loss)
    assert sizes == [count]


def test_a_search_is_repeatable_and_leaves_no_setting_behind():
    settings = []

    def loss(z):
        settings.append(torch.are_deterministic_algorithms_enabled())
        return z.square().sum(1)

    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )
    search(loss, (), [torch.ones(2, 3)], [0.1] * 3)
    with pytest.raises(ZeroDivisionError):
        search(lambda z: 1 / 0, (), [torch.ones(2, 3)], [0.1])
    after = (
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )
    assert settings == [True] * 4  # three steps, and the loss at their end
    assert after == before == (False, True)


def counted_find():
    """A made-up search, and the sizes of the batches that it was asked for."""
    sizes = []

    def find(images):
        sizes.append(len(images))
        z = images.flatten(1).float()
        return Found(z, z.sum(1))

    return find, sizes


def test_an_image_whose_walk_ended_walks_no_second_time_for_its_map():
    ends, (find, sizes) = Ends(nn.Linear(1, 1).eval()), counted_find()
    images = torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2)
    ends.new(images[:3], find)
    z = ends.known(images.flip(0), find)
    assert torch.equal(z, images.flip(0).flatten(1).float())
    assert torch.equal(ends.known(images, find), z.flip(0))
    assert sizes == [3, 3]
    ends.new(images[:2], find)  # a score is asked for: it walks
    assert sizes == [3, 3, 2]


def test_ends_of_train_mode_are_not_remembered():
    network = nn.Linear(1, 1)
    ends, (find, sizes) = Ends(network), counted_find()
    images = torch.arange(8, dtype=torch.uint8).view(2, 1, 2, 2)
    ends.new(images, find)
    ends.known(images, find)
    network.eval()
    ends.known(images, find)
    assert sizes == [2, 2, 2]


def test_images_that_differ_in_one_pixel_have_ends_of_their_own():
    ends, (find, _) = Ends(nn.Linear(1, 1).eval()), counted_find()
    images = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    images[1, 0, 1, 1] = 1  # the last pixel
    ends.new(images, find)
    assert torch.equal(ends.known(images, find), images.flatten(1).float())


def test_every_pixel_has_a_say_in_the_start():
    batch = images()
    changed = batch.clone()
    changed[0, -1, -1, -1] += 1
    assert not torch.equal(starts(changed, 50, seed=3)[0][0], starts(batch, 50, seed=3)[0][0])
