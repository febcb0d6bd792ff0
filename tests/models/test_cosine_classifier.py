from pathlib import Path

import pytest
import torch
from torch import Tensor

from unic.models.cosine_classifier import CosineClassifier, load_classifier, save_classifier


def make_classifier(seed: int = 0, temperature: float = 0.1) -> CosineClassifier:
    generator = torch.Generator().manual_seed(seed)
    return CosineClassifier(6, 4, temperature=temperature, generator=generator)


def draw_features(n_images: int = 7) -> Tensor:
    return torch.randn(n_images, 6, generator=torch.Generator().manual_seed(1))


def test_logits_are_cosines_over_the_temperature() -> None:
    classifier, features = make_classifier(temperature=0.25), draw_features()
    logits = classifier(features)
    assert logits.shape == (7, 4)
    for row, feature in zip(logits, features, strict=True):
        for logit, prototype in zip(row, classifier.weight, strict=True):
            cosine = (feature @ prototype) / (feature.norm() * prototype.norm())
            assert logit.item() == pytest.approx(cosine.item() / 0.25, abs=1e-5)


def test_no_length_counts() -> None:
    classifier, features = make_classifier(), draw_features()
    expected = classifier(features)
    with torch.no_grad():
        classifier.weight.mul_(torch.tensor([[0.1], [2.0], [30.0], [1.0]]))
    torch.testing.assert_close(classifier(5 * features), expected)


def test_first_prototypes_are_those_of_a_linear_layer_and_of_their_seed() -> None:
    generator = torch.Generator().manual_seed(0)
    large = CosineClassifier(64, 500, temperature=0.1, generator=generator).weight
    assert float(large.detach().abs().max()) <= 1 / 8
    assert float(large.detach().std()) == pytest.approx(1 / 8 / 3**0.5, rel=0.02)
    assert torch.equal(make_classifier().weight, make_classifier().weight)
    assert not torch.equal(make_classifier().weight, make_classifier(1).weight)


def test_a_saved_classifier_is_loaded_back(tmp_path: Path) -> None:
    classifier, path = make_classifier(temperature=0.07), tmp_path / "classifier.safetensors"
    save_classifier(path, classifier)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    loaded, features = load_classifier(path), draw_features()
    assert loaded.n_clusters == 4
    assert loaded.temperature == 0.07
    assert torch.equal(loaded(features), classifier(features))


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        load_classifier(tmp_path / "none.safetensors")
