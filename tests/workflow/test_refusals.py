"""Wrong inputs: one clear error before anything is computed."""

import pytest
import torch

from tests.workflow.project import Project

pytestmark = pytest.mark.workflow
TARGET = "results/tiny/metrics.json"


def test_missing_imagenet_is_one_clear_error(fresh_project: Project) -> None:
    finished = fresh_project.snakemake("--cores", "2", "results/imagenet200/metrics.json")
    assert finished.returncode != 0
    said = "unic: error: imagenet200 needs ImageNet (ILSVRC2012), but 200 of its 200 class folders"
    assert finished.stderr.count(said) == 2  # when it happens, and last
    last = finished.stderr.rpartition("unic: error: ")[2]
    assert "are missing in data/imagenet/train" in last
    assert last.endswith("folder. (index_images, log in logs/imagenet200/index_images.log)\n")
    assert "Traceback" not in finished.stderr
    assert "data/imagenet/val/n01440764/ILSVRC2012_val_00000293.JPEG" in finished.stderr
    assert "image-net.org" in finished.stderr
    assert not list(fresh_project.folder.glob("results/**/*.zarr/zarr.json"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("cleaning: {max_union_sice: 3}", "did you mean max_union_size?"),
        ("neighbors: {far_rank: 1438}", "must be below the 1438 training images, got 1438"),
    ],
)
def test_wrong_settings(fresh_project: Project, setting: str, message: str) -> None:
    # Of another image size, so that it shares no features, which digits would make meanwhile.
    own = "base: digits\n    seeds: [0]\n    data: {image_size: 36}"
    text = f"experiments:\n  tiny:\n    {own}\n    {setting}\n"
    (fresh_project.folder / "config" / "tiny.yaml").write_text(text)
    check_refusal(fresh_project, message)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_without_a_gpu(fresh_project: Project) -> None:
    settings = fresh_project.folder / "config/experiments/digits.yaml"
    settings.write_text(settings.read_text().replace("device: cpu", "device: cuda"))
    check_refusal(fresh_project, "cpu or auto on a machine without a CUDA GPU, got cuda")


def check_refusal(project: Project, message: str) -> None:
    finished = project.snakemake("--cores", "2", TARGET)
    assert finished.returncode != 0
    assert message in finished.stdout + finished.stderr
    assert not list(project.folder.glob("results/**/features.zarr/zarr.json"))
