"""Folded normalizations, against the network as it was."""

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unic.models.folding import fold_norms


def images(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(3, 3, 64, 64, generator=generator, dtype=torch.float64)


def used(network: nn.Module) -> nn.Module:
    """A network whose normalizations have met images: no statistics as they were made."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return network.double().eval()


def count_runs(network: nn.Module) -> int:
    """How often the network normalizes by batch statistics it has kept."""
    calls = []
    original = torch.nn.functional.batch_norm
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch.nn.functional, "batch_norm", lambda *a, **k: calls.append(1) or original(*a, **k)
        )
        with torch.no_grad():
            network(images())
    return len(calls)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_050", "regnetx_002", "test_vit"])
@torch.no_grad()
def test_a_folded_network_is_the_same_function(name: str) -> None:
    options = {"img_size": 64} if name == "test_vit" else {}
    network = used(timm.create_model(name, num_classes=0, **options))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    folded = fold_norms(network, images())
    expected = network(images(2))
    error = (folded(images(2)) - expected).abs().max() / expected.abs().max()
    assert float(error) < 1e-12
    assert count_runs(folded) == 0
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_network_without_normalizations_is_not_copied() -> None:
    network = timm.create_model("test_vit", num_classes=0, img_size=64).double().eval()
    assert fold_norms(network, images()) is network


class _Shared(nn.Module):
    """A convolution that two normalizations read, and one that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
        self.one, self.two, self.three = (nn.BatchNorm2d(4) for _ in range(3))

    def forward(self, pixels: Tensor) -> Tensor:
        middle = self.first(pixels)
        both = self.one(middle) + self.two(middle)
        return self.three(self.second(self.second(both)))


@torch.no_grad()
def test_what_is_used_twice_is_not_folded() -> None:
    network = used(_Shared())
    folded = fold_norms(network, images())
    torch.testing.assert_close(folded(images(2)), network(images(2)))
    assert count_runs(folded) == 3


@torch.no_grad()
def test_normalizations_of_the_batch_itself_stay() -> None:
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), norm).double().eval()
    torch.testing.assert_close(fold_norms(network, images())(images(2)), network(images(2)))
