import json
from pathlib import Path

import pytest
import torch

from tests.inference.bundles import CPU, VIEW, make_bundle, make_trained_bundle, read_pixels
from unic.images.images import ArrayImages
from unic.inference.bundle import Bundle, Description, read_bundle, write_bundle
from unic.recipe.model import save_model
from unic.storage.tensor_files import read_tensors, save_tensors


def test_gives_back_all_that_was_written(labeled_bundle: Bundle, tmp_path: Path) -> None:
    write_bundle(tmp_path / "a.safetensors", labeled_bundle)
    found = read_bundle(tmp_path / "a.safetensors")
    assert found.description == labeled_bundle.description
    assert found.training_ids == labeled_bundle.training_ids
    tensors, wanted = (each.learned.take_apart() for each in (found, labeled_bundle))
    assert tensors.keys() == wanted.keys()
    assert all(torch.equal(tensors[name], wanted[name]) for name in wanted)
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(found.backbone(images), labeled_bundle.backbone(images))


@pytest.mark.parametrize(
    ("backbone", "head", "head_norm"),
    [
        ("test_resnet", "linear", "standardize"),
        ("test_resnet", "mlp", "center"),
        ("test_vit", "linear", "rms"),
        ("test_vit", "self_attention", None),
    ],
)
def test_so_does_one_of_a_training(
    backbone: str, head: str, head_norm: str | None, tmp_path: Path
) -> None:
    bundle = make_trained_bundle(backbone, head=head, head_norm=head_norm)
    write_bundle(tmp_path / "a.safetensors", bundle)
    found = read_bundle(tmp_path / "a.safetensors")
    assert found.description == bundle.description
    assert (found.learned.clusters == bundle.learned.clusters).all()
    assert (found.learned.known_labels == bundle.learned.known_labels).all()
    images = ArrayImages(list("abcdefgh"), read_pixels("test", 8))
    (features, seen), (wanted_features, wanted) = (
        each.learned.look(each.backbone, images, VIEW, batch_size=8, device=CPU, n_workers=1)
        for each in (found, bundle)
    )
    assert (features == wanted_features).all()
    assert torch.equal(seen.probs, wanted.probs)
    assert (seen.distances == wanted.distances).all()
    write_bundle(tmp_path / "b.safetensors", found)
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()


def test_equal_bundles_are_equal_byte_by_byte(bundle: Bundle, tmp_path: Path) -> None:
    write_bundle(tmp_path / "a", bundle)
    write_bundle(tmp_path / "b", make_bundle())
    write_bundle(tmp_path / "c", read_bundle(tmp_path / "a"))
    first = (tmp_path / "a").read_bytes()
    assert first == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_a_description_is_json(labeled_bundle: Bundle, trained_bundle: Bundle) -> None:
    said = labeled_bundle.description
    for each in (said, trained_bundle.description):
        assert Description.parse(json.loads(json.dumps(each.to_json()))) == each
    assert [said.name_of(cluster) for cluster in (0, 2, 3)] == ["zero", "two", ""]


def test_ids_may_have_any_characters(bundle: Bundle, tmp_path: Path) -> None:
    ids = [f"Fotos; \n {row}/ä,{chr(0x1F600)}.jpg" for row in range(len(bundle.training_ids))]
    write_bundle(tmp_path / "a", bundle._replace(training_ids=ids))
    assert read_bundle(tmp_path / "a").training_ids == ids


def test_is_found_by_its_folder(results: Path, bundle: Bundle) -> None:
    assert read_bundle(results).description == bundle.description
    assert read_bundle(str(results)).training_ids == bundle.training_ids


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is none at .*absent"):
        read_bundle(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="folder of a finished experiment"):
        read_bundle(tmp_path)
    (tmp_path / "metrics.json").touch()
    with pytest.raises(FileNotFoundError, match=r"run: snakemake --cores 8 .*model\.safetensors"):
        read_bundle(tmp_path)


def test_a_damaged_file_is_refused(results: Path) -> None:
    path = results / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged: its checksum differs"):
        read_bundle(results)
    path.write_bytes(content[:1000])
    with pytest.raises(ValueError, match="must be a safetensors file, cannot read it"):
        read_bundle(results)
    path.write_text("a text")
    with pytest.raises(ValueError, match="must be a safetensors file, cannot read it"):
        read_bundle(results)


def test_other_formats_are_refused(bundle: Bundle, results: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_model(other, bundle.learned.model, about={})
    with pytest.raises(ValueError, match=r"other.safetensors must be .* 'unic bundle 3', got 2"):
        read_bundle(other)
    save_tensors(other, {"a": torch.zeros(1)})
    with pytest.raises(ValueError, match="got None"):
        read_bundle(other)
    tensors, about = read_tensors(results / "model.safetensors")
    save_tensors(other, tensors, about=about | {"format": "unic bundle 1"})
    with pytest.raises(ValueError, match="got 'unic bundle 1'"):
        read_bundle(other)


def test_a_backbone_that_timm_lacks_is_refused(results: Path) -> None:
    tensors, about = read_tensors(results / "model.safetensors")
    about["description"]["backbone"] = "resnet_of_the_future"
    save_tensors(results / "model.safetensors", tensors, about=about)
    with pytest.raises(ValueError, match="timm has, cannot make resnet_of_the_future"):
        read_bundle(results)


def test_weights_of_another_head_are_refused(trained_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_bundle(path, trained_bundle)
    tensors, about = read_tensors(path)
    about["description"]["head"]["head"] = "mlp"
    save_tensors(path, tensors, about=about)
    with pytest.raises(ValueError, match=r"model.safetensors must fit ClusterHead, but .* do not"):
        read_bundle(path)


def test_weights_of_another_backbone_are_refused(results: Path) -> None:
    tensors, about = read_tensors(results / "model.safetensors")
    about["description"]["backbone"] = "test_convnext"
    save_tensors(results / "model.safetensors", tensors, about=about)
    with pytest.raises(ValueError, match="must fit ConvNeXt"):
        read_bundle(results)
