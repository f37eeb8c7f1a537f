"""AnoTrans against its specification: sizes, the order of pixels, attention, skips, losses by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from make_networks import idle, images
from timm.models.swin_transformer import SwinTransformerBlock
from torch import nn

from adbench_plugins import anotrans
from adbench_plugins.anotrans import AnoTrans, Config, discriminator_loss, generator_loss
from adbench_plugins.swin_unet import Down, PatchExpand, SwinUNet, att_block
from adbench_tgan import AdbenchError, ImageSet, TrainSet, to_unit

SMALL = Config(patch=4, width=8, discriminator_width=8, latent=10, epochs=1, batch_size=8)


def built(shape=(3, 32, 32), **settings):
    torch.manual_seed(0)
    detector = AnoTrans(SMALL.model_copy(update=settings))
    detector.build(shape)
    return detector


def small_unet(**settings):
    torch.manual_seed(0)
    return SwinUNet(32, 3, **{"patch": 4, "width": 8, **settings})


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def large_unet(size=32, patch=4, channels=3, **settings) -> int:
    with torch.device("meta"):
        return parameters(SwinUNet(size, channels, patch=patch, **settings))


# sizes

INPUT_NORM = 2 * 3  # the BatchNorm in front of an embedding, of RGB images


def never_called(size: int, patch: int) -> int:
    """What the authors' code allocates besides: embeddings of the image at a half and a quarter of its size."""
    count = INPUT_NORM  # of the embedding that is used
    for factor, dim in ((2, 128), (4, 256)):
        tokens = (size // factor // patch) ** 2
        count += 3 * patch**2 * dim + dim + 2 * dim + tokens * dim + INPUT_NORM
    return count


@pytest.mark.parametrize(
    ("size", "patch", "authors", "ours"),
    [(32, 4, 12_549_039, 12_526_365), (32, 2, 12_554_182, 12_536_116), (64, 4, 12_570_607, 12_538_717)],
)
def test_the_authors_count_is_ours_and_what_they_never_call(size, patch, authors, ours):
    assert large_unet(size, patch) == ours
    assert ours + never_called(size, patch) == authors


def test_the_specifications_count_keeps_one_batch_norm_that_is_never_called():
    assert large_unet(32, 4) + INPUT_NORM == 12_526_371


def test_attention_over_all_tokens_is_the_authors():
    widths = (64, 128, 256, 64, 128, 512, 256, 128, 64)  # levels, two skips, bottom, and up again
    ours = large_unet(32, 4, attention="tf")
    assert ours == 12_509_781
    assert ours + never_called(32, 4) == 12_532_455
    blocks = 2 * len(widths)
    tables = (blocks - 2) * 9 * 4 + 2 * 1 * 4  # 3 x 3 offsets and 4 heads; the bottom's single token has one
    biases_and_norms = 5 * 2 * sum(widths)  # of queries, keys and values; and a second norm
    assert large_unet(32, 4) - ours == tables + biases_and_norms


@pytest.mark.parametrize(("size", "patch", "judge"), [(32, 2, 1_069_700), (64, 4, 3_577_476)])
def test_default_settings_build_the_networks_of_the_paper(size, patch, judge):
    detector = AnoTrans(Config(image_size=size))
    with torch.device("meta"):
        detector.device = "meta"
        detector.build((3, size, size))
    counts = detector.parameter_counts()
    assert counts == {"generator": large_unet(size, patch), "discriminator": judge}


def test_default_settings_train_as_the_authors_do():
    c = Config()
    assert (c.batch_size, c.epochs, c.lr, c.beta1) == (128, 25, 2e-4, 0.5)
    assert (c.w_adv, c.w_con, c.w_lat, c.score_lambda) == (1, 50, 1, 0.9)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_output_range(size, channels):
    detector = built((channels, size, size), patch=None)
    x = 1e4 * torch.randn(2, channels, size, size)
    x_hat = detector.generator(x)
    assert x_hat.shape == x.shape
    assert x_hat.abs().max() <= 1


def test_without_tanh_the_output_is_what_tanh_is_taken_of():
    bounded, free = small_unet(), small_unet(out_act="none")
    free.load_state_dict(bounded.state_dict())
    with torch.no_grad():
        for network in (bounded, free):
            network.mix.weight.mul_(1e3)
    x = torch.randn(2, 3, 32, 32)
    assert free(x).abs().max() > 1
    torch.testing.assert_close(free(x).tanh(), bounded(x))


@pytest.mark.parametrize(("size", "patch"), [(32, 8), (16, 4), (64, 16), (32, 3), (32, 6)])
def test_a_patch_that_leaves_too_few_tokens_to_halve_is_refused(size, patch):
    with pytest.raises(AdbenchError, match=f"anotrans: patch={patch} must be a power of two and at most"):
        built((3, size, size), patch=patch)
    with pytest.raises(AdbenchError, match=f"anotrans: patch={patch} must be a power of two and at most"):
        Config(image_size=size, patch=patch)


# the order of pixels


def lit_pixels(row: int, column: int, *, legacy_view: bool) -> list[tuple[int, int]]:
    """The (row, column) of the pixels that one token of the last 16 x 16 fills, at 32 pixels and patches of 4."""
    tokens = torch.zeros(1, 16, 16, 12)
    tokens[0, row, column] = 1
    image = small_unet(legacy_view=legacy_view).to_image(tokens)
    assert image.shape == (1, 3, 32, 32)
    assert all(torch.equal(image[0, 0], channel) for channel in image[0])
    return [tuple(place) for place in image[0, 0].nonzero().tolist()]


def test_the_authors_view_lays_a_tokens_pixels_out_in_a_row():
    assert lit_pixels(0, 0, legacy_view=True) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert lit_pixels(0, 8, legacy_view=True) == [(1, 0), (1, 1), (1, 2), (1, 3)]
    assert lit_pixels(1, 0, legacy_view=True) == [(2, 0), (2, 1), (2, 2), (2, 3)]


def test_ours_lays_them_out_as_a_square_where_the_token_is():
    assert lit_pixels(0, 0, legacy_view=False) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert lit_pixels(0, 8, legacy_view=False) == [(0, 16), (0, 17), (1, 16), (1, 17)]
    assert lit_pixels(5, 3, legacy_view=False) == [(10, 6), (10, 7), (11, 6), (11, 7)]


def test_with_patches_of_two_both_orders_are_the_same():
    tokens = torch.randn(2, 32, 32, 3)
    ours, theirs = small_unet(patch=2), small_unet(patch=2, legacy_view=True)
    assert torch.equal(ours.to_image(tokens), theirs.to_image(tokens))


def test_expanding_puts_a_tokens_channels_around_it():
    expand = PatchExpand(8)
    tokens = torch.zeros(1, 4, 4, 8)
    tokens[0, 1, 2] = 1
    expanded = expand(tokens)
    assert expanded.shape == (1, 8, 8, 4)
    assert expanded.abs().sum(-1)[0].nonzero().tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]
    torch.testing.assert_close(expanded[0, 2, 4], F.layer_norm(expand.expand.weight.sum(1)[0::4], (4,)))


# attention


def attend_by_hand(block: SwinTransformerBlock, tokens: torch.Tensor, shift: int) -> torch.Tensor:
    """Windows of 2 x 2, moved by `shift`: every token attends to those of its window, one at a time."""
    side, dim = tokens.shape[1], tokens.shape[3]
    attention = block.attn
    q, k, v = attention.qkv(block.norm1(tokens))[0].unflatten(-1, (3, 4, dim // 4)).permute(2, 0, 1, 3, 4)
    table = attention.relative_position_bias_table  # row 3 (dy + 1) + dx + 1
    places = [(y, x) for y in range(side) for x in range(side)]
    mixed = torch.zeros(side, side, dim)
    for y, x in places:
        window = [p for p in places if [(i + shift) // 2 for i in p] == [(y + shift) // 2, (x + shift) // 2]]
        logits = torch.stack(
            [
                (q[y, x] * k[j, i]).sum(-1) * (dim // 4) ** -0.5 + table[3 * (y - j + 1) + x - i + 1]
                for j, i in window
            ]
        )  # (n, heads)
        weights = logits.softmax(0)
        mixed[y, x] = sum(w[:, None] * v[j, i] for w, (j, i) in zip(weights, window, strict=True)).flatten()
    tokens = tokens + attention.proj(mixed)
    return tokens + block.mlp(block.norm2(tokens))


@torch.no_grad()
@pytest.mark.parametrize("number", [0, 1])
def test_blocks_attend_in_windows_of_two_the_second_shifted_by_one_and_masked(number):
    torch.manual_seed(0)
    block = att_block(8, 8, "window")[number]
    nn.init.normal_(block.attn.relative_position_bias_table)
    nn.init.normal_(block.attn.qkv.weight)
    tokens = torch.randn(1, 8, 8, 8)
    expected = attend_by_hand(block, tokens, shift=number)
    torch.testing.assert_close(block(tokens), expected, rtol=1e-4, atol=1e-4)
    other = attend_by_hand(block, tokens, shift=1 - number)
    assert (block(tokens) - other).abs().max() > 1e-2


def test_an_attention_block_is_two_blocks_a_norm_and_gelu():
    block = att_block(8, 4, "window")
    assert [type(part).__name__ for part in block] == [*["SwinTransformerBlock"] * 2, "LayerNorm", "GELU"]
    assert [part.shift_size for part in block[:2]] == [(0, 0), (1, 1)]
    assert all(part.attn.num_heads == 4 and part.attn.window_size == (2, 2) for part in block[:2])
    assert block[0].mlp.fc1.out_features == 32
    tokens = torch.randn(2, 4, 4, 8)
    expected = F.gelu(F.layer_norm(block[1](block[0](tokens)), (8,)))
    torch.testing.assert_close(block(tokens), expected)


@pytest.mark.parametrize("side", [1, 2])
def test_where_a_window_covers_all_it_shrinks_to_that_and_is_not_shifted(side):
    for block in att_block(8, side, "window")[:2]:
        assert block.window_size == (side, side)
        assert block.shift_size == (0, 0)
        assert block.attn_mask is None


@torch.no_grad()
def test_attention_over_all_tokens_reaches_all_of_them():
    torch.manual_seed(0)
    tokens = torch.randn(1, 8, 8, 8)
    moved = tokens.clone()
    moved[0, 0, 0] += 3 * torch.randn(8)
    reach = {}
    for attention in ("window", "tf"):
        block = att_block(8, 8, attention)
        reach[attention] = (block(tokens) != block(moved)).any(-1)[0]
    assert reach["tf"].all()
    assert reach["window"].nonzero().tolist() == [[y, x] for y in range(3) for x in range(3)]


# skips


def test_skips_of_the_code_come_from_before_the_levels_attention_and_the_third_is_bare():
    torch.manual_seed(0)
    tokens = torch.randn(1, 4, 4, 8)
    for deepest in (False, True):
        level = Down(8, 4, "window", "code", deepest=deepest)
        merged, skip = level(tokens)
        assert merged.shape == (1, 2, 2, 16)
        torch.testing.assert_close(merged, level.merge(level.attend(tokens)))
        torch.testing.assert_close(skip, tokens if deepest else level.skip(tokens))
        assert torch.equal(skip, tokens) == deepest


def test_skips_of_the_figure_come_from_behind_it_at_all_levels():
    torch.manual_seed(0)
    tokens = torch.randn(1, 4, 4, 8)
    for deepest in (False, True):
        level = Down(8, 4, "window", "figure", deepest=deepest)
        torch.testing.assert_close(level(tokens)[1], level.skip(level.attend(tokens)))
        assert level.skip is not level.attend
        assert parameters(level.skip) == parameters(level.attend)


def test_the_figure_normalises_its_input_and_the_code_has_no_batch_norm():
    code, figure = small_unet(), small_unet(skip="figure")
    norms = [[m for m in n.modules() if isinstance(m, nn.BatchNorm2d)] for n in (code, figure)]
    assert [len(found) for found in norms] == [0, 1]
    x = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(figure(x), figure(5 * x + 2), rtol=1e-4, atol=1e-6)
    third = parameters(att_block(4 * 8, 2, "window"))
    assert parameters(figure) == parameters(code) + third + INPUT_NORM


@pytest.mark.parametrize("skip", ["code", "figure"])
def test_every_skip_reaches_the_output_and_every_parameter_learns(skip):
    network = small_unet(skip=skip)
    network(torch.randn(2, 3, 32, 32)).square().sum().backward()
    idle_ones = [name for name, p in network.named_parameters() if p.grad is None]
    assert idle_ones == []
    for level, down in enumerate(network.downs):
        side, dim = 8 >> level, 8 << level
        given = []
        up = network.ups[2 - level]
        handle = up.register_forward_pre_hook(lambda _, args, given=given: given.append(args))
        network(torch.randn(2, 3, 32, 32))
        handle.remove()
        assert [t.shape for t in given[0]] == [(2, side, side, dim)] * 2
        assert down.merge.reduction.out_features == 2 * dim


def test_initial_weights():
    torch.manual_seed(0)
    network = SwinUNet(32, 3, patch=2)
    block = network.downs[0].attend[0]
    for weight in (block.attn.qkv.weight, block.mlp.fc1.weight, network.downs[1].merge.reduction.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    for tensor in (network.position, network.embed.proj.weight):
        assert tensor.std().item() == pytest.approx(0.02, rel=0.1)
    assert block.attn.relative_position_bias_table.std().item() == pytest.approx(0.02, rel=0.5)
    biases = [p for name, p in network.named_parameters() if name.endswith("bias")]
    assert biases
    assert not any(bias.any() for bias in biases)
    assert all((m.weight == 1).all() for m in network.modules() if isinstance(m, nn.LayerNorm))


# losses and steps


def test_generator_loss_by_hand():
    config = Config(w_adv=2, w_con=50, w_lat=3)
    x, x_hat = torch.zeros(2, 1, 2, 2), torch.full((2, 1, 2, 2), -0.5)
    f, f_hat = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [2.0]])
    parts = 2 * 0.693147 + 50 * 0.5  # and 3 * (4 + 0) / 2
    logit = torch.zeros(2)
    assert generator_loss(x, x_hat, f, f_hat, logit, config).item() == pytest.approx(parts + 6, abs=1e-4)
    twice = config.model_copy(update={"legacy_double_lat": True})
    assert generator_loss(x, x_hat, f, f_hat, logit, twice).item() == pytest.approx(parts + 12, abs=1e-4)
    sure = generator_loss(x, x_hat, f, f_hat, torch.full((2,), 20.0), config)
    assert sure.item() == pytest.approx(25 + 6, abs=1e-4)


def test_discriminator_loss_by_hand():
    f, f_hat = torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0, 1.0]])
    config = Config(w_lat=3)
    for twice in (False, True):
        config = config.model_copy(update={"legacy_double_lat": twice})
        loss = discriminator_loss(torch.zeros(1), torch.zeros(1), f, f_hat, config)
        assert loss.item() == pytest.approx(2 * 0.693147 + 3 * 2, abs=1e-4)
    loss = discriminator_loss(torch.full((1,), 20.0), torch.full((1,), -20.0), f, f, config)
    assert loss.item() < 1e-6


@pytest.mark.parametrize("twice", [False, True])
def test_the_generators_gradient_is_that_of_its_losses_with_the_latent_one_once_or_twice(twice):
    detector = built(legacy_double_lat=twice, w_adv=0, w_con=0)
    x = to_unit(images(8))
    detector.step(x, idle(), idle())  # leaves the gradients there
    got = [p.grad.clone() for p in detector.generator.parameters()]
    x_hat = detector.generator(x)
    distance = (detector.discriminator(x)[1] - detector.discriminator(x_hat)[1]).square().mean()
    expected = torch.autograd.grad((1 + twice) * distance, list(detector.generator.parameters()))
    assert max(gradient.abs().max() for gradient in expected) > 1e-3
    torch.testing.assert_close(got, list(expected), rtol=1e-3, atol=1e-6)


def test_a_discriminator_that_has_won_stays_as_it_is(monkeypatch):
    detector = built()
    before = [p.clone() for p in detector.discriminator.parameters()]
    monkeypatch.setattr(
        anotrans, "discriminator_loss", lambda logit, logit_hat, *_: (logit - logit_hat).mean() * 0 + 1e-6
    )
    losses = detector.step(to_unit(images(8)), idle(), detector.adam(detector.discriminator))
    assert losses["loss_d"] < 1e-5
    assert all(map(torch.equal, before, detector.discriminator.parameters()))


# scores


def test_state_holds_all_that_scores_need_with_every_option():
    for settings in ({}, {"skip": "figure"}, {"attention": "tf", "legacy_view": True, "out_act": "none"}):
        detector = built(**settings)
        detector.fit(TrainSet(ImageSet(images(16))))
        probe = images(5, seed=1)
        torch.manual_seed(9)
        twin = AnoTrans(detector.config).load_state(detector.state(), (3, 32, 32))
        assert torch.equal(twin.score(probe), detector.score(probe))
        parts = torch.cat([detector.score(image[None]) for image in probe])
        torch.testing.assert_close(parts, detector.score(probe), rtol=1e-5, atol=0)
