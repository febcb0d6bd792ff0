import argparse
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from unic.models.backbones import Backbone, load_backbone
from unic.models.weights import load_pretrained, load_weights, read_weights

VIT: dict[str, Any] = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 2}
DINOV3: dict[str, Any] = {"img_size": 32, "depth": 2, "embed_dim": 64, "num_heads": 2}
DINOV3 |= {"global_pool": "token"}
State = dict[str, Tensor]


def make_vit(name: str = "vit_tiny_patch16_224", seed: int = 5, **options: Any) -> nn.Module:
    """A model none of whose weights are the first ones."""
    model = timm.create_model(name, num_classes=0, **(VIT | options)).eval()
    return scramble(model, seed)


def scramble(model: nn.Module, seed: int = 5) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
    return model.eval()


def images(size: int = 32) -> Tensor:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


def projector(prefix: str) -> State:
    """A DINO head; weight normalization keeps two tensors."""
    shapes = {"mlp.0.weight": (8, 48), "mlp.0.bias": (8,), "last_layer.weight_g": (9, 1)}
    shapes["last_layer.weight_v"] = (9, 8)
    return {prefix + key: torch.rand(shape) for key, shape in shapes.items()}


def load(path: Path, name: str, options: dict[str, Any], **further: Any) -> Backbone:
    return load_backbone(name, weights=str(path), options=options, image_size=32, **further)


@torch.no_grad()
def assert_same_features(backbone: Backbone, source: nn.Module) -> None:
    expected = source.to(memory_format=torch.channels_last)(
        images().contiguous(memory_format=torch.channels_last)
    )
    assert torch.equal(backbone(images()), expected.flatten(1))
    assert expected.std() > 1e-3


# Vision transformers, as their projects release them

OPTIONS = argparse.Namespace(arch="vit_base", lr=0.1, output_dir="somewhere", crops=(0.4, 1.0))


def dino_full(state: State) -> dict[str, Any]:
    teacher = prefixed(state, "backbone.")
    student = {key: -tensor for key, tensor in prefixed(state, "module.backbone.").items()}
    return {
        "student": student | projector("module.head."),
        "teacher": teacher | projector("head."),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]},
        "epoch": 100,
        "args": OPTIONS,
        "dino_loss": {"center": torch.zeros(1, 9)},
        "fp16_scaler": {"scale": 65536.0, "growth_factor": 2.0},
    }


def ibot_full(state: State) -> dict[str, Any]:
    full = dino_full(state)
    full["student"]["module.backbone.masked_embed"] = torch.zeros(1, 48)
    full["teacher"] |= projector("head.mlp2.")
    return full


def dinov2_teacher(state: State) -> dict[str, Any]:
    teacher = prefixed(state | {"mask_token": torch.zeros(1, 48)}, "backbone.")
    return {"teacher": teacher | projector("dino_head.") | projector("ibot_head.")}


VIT_FILES = {
    "dino_pretrain": lambda state: state,
    "dino_full": dino_full,
    "ibot_teacher": lambda state: {"state_dict": state},
    "ibot_with_head": lambda state: {"state_dict": state | projector("head.")},
    "ibot_full": ibot_full,
    "dinov2_teacher": dinov2_teacher,
    "deit": lambda state: {"model": state | {"head.weight": torch.ones(3, 48)}},
    "gcd": lambda state: prefixed(state, "module."),
    "simgcd": lambda state: {
        "model": prefixed(state, "0.") | projector("1."),
        "optimizer": {"state": {}},
        "epoch": 200,
    },
    "compiled": lambda state: prefixed(state, "_orig_mod."),
}


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("form", VIT_FILES)
def test_reads_released_vision_transformers(form: str, is_zip: bool, tmp_path: Path) -> None:
    source = make_vit()
    held = VIT_FILES[form](source.state_dict())
    torch.save(held, tmp_path / "vit.pth", _use_new_zipfile_serialization=is_zip)
    assert_same_features(load(tmp_path / "vit.pth", "vit_tiny_patch16_224", VIT), source)


def test_the_setting_chooses_the_network(tmp_path: Path) -> None:
    source, other = make_vit(), make_vit(seed=6)
    full = dino_full(source.state_dict())
    full["student"] = prefixed(other.state_dict(), "module.backbone.") | projector("module.head.")
    torch.save(full, tmp_path / "full.pth")
    for network, expected in (("student", other), ("teacher", source), ("auto", source)):
        backbone = load(tmp_path / "full.pth", "vit_tiny_patch16_224", VIT, network=network)
        assert_same_features(backbone, expected)


def test_a_student_alone_is_taken(tmp_path: Path) -> None:
    source = make_vit()
    torch.save({"student": source.state_dict(), "epoch": 3}, tmp_path / "student.pth")
    assert_same_features(load(tmp_path / "student.pth", "vit_tiny_patch16_224", VIT), source)


def test_what_is_left_out_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(dino_full(make_vit().state_dict()), tmp_path / "full.pth")
    with caplog.at_level(logging.INFO, "unic"):
        load(tmp_path / "full.pth", "vit_tiny_patch16_224", VIT)
    assert "teacher is taken of student, teacher, optimizer, epoch, args" in caplog.text
    assert "backbone.* is taken, 4 entries beside it are left out" in caplog.text


# DINOv2: another grid, a mask token, registers with names of their own

DINOV2 = "vit_small_patch14_dinov2"
REGISTERS = "vit_small_patch14_reg4_dinov2"
SMALL: dict[str, Any] = {"depth": 2, "embed_dim": 48, "num_heads": 2}


def dinov2_state(source: nn.Module, *, registers: bool) -> State:
    """The weights under DINOv2's names, where position 0 is that of the class token."""
    state = {"mask_token": torch.zeros(1, 48)} | source.state_dict()
    if registers:
        position = torch.rand(1, 1, 48)
        state["register_tokens"] = state.pop("reg_token")
        state["pos_embed"] = torch.cat([position, state["pos_embed"]], dim=1)
        state["cls_token"] = state["cls_token"] - position
    return state


@pytest.mark.parametrize("name", [DINOV2, REGISTERS])
def test_reads_dinov2_of_the_same_grid(name: str, tmp_path: Path) -> None:
    options = SMALL | {"img_size": 42}
    source = scramble(timm.create_model(name, num_classes=0, **options))
    torch.save(dinov2_state(source, registers=name == REGISTERS), tmp_path / "dinov2.pth")
    backbone = load_backbone(
        name, weights=str(tmp_path / "dinov2.pth"), options=options, image_size=42
    )
    found = backbone.model.state_dict()
    for key, tensor in source.state_dict().items():
        torch.testing.assert_close(found[key], tensor, rtol=0, atol=1e-7, msg=key)
    assert backbone.model.blocks[0].ls1.gamma.equal(source.blocks[0].ls1.gamma)


@torch.no_grad()
@pytest.mark.parametrize("name", [DINOV2, REGISTERS])
def test_positions_are_resampled_to_the_grid(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = SMALL | {"img_size": 70}
    source = scramble(timm.create_model(name, num_classes=0, **options))
    torch.save(dinov2_state(source, registers=name == REGISTERS), tmp_path / "dinov2.pth")
    with caplog.at_level(logging.INFO, "unic"):
        backbone = load_backbone(
            name,
            weights=str(tmp_path / "dinov2.pth"),
            options=SMALL | {"img_size": 42},
            image_size=42,
        )
    if name == DINOV2:
        assert "pos_embed is resampled from shape (1, 26, 48) to (1, 10, 48)" in caplog.text
    n_others = 0 if name == REGISTERS else 1
    others, grid = source.pos_embed[:, :n_others], source.pos_embed[:, n_others:]
    square = grid.transpose(1, 2).unflatten(2, (5, 5))  # (1, d, 5, 5)
    plain = nn.functional.interpolate(square, (3, 3), mode="bicubic", antialias=True)
    expected = torch.cat([others, plain.flatten(2).transpose(1, 2)], dim=1)
    torch.testing.assert_close(backbone.model.pos_embed, expected, rtol=0, atol=1e-6)
    by_timm = resample_abs_pos_embed(source.pos_embed, [3, 3], num_prefix_tokens=n_others)
    torch.testing.assert_close(backbone.model.pos_embed, by_timm, rtol=0, atol=0)


# DINOv3: rotary positions, storage tokens, no bias of the keys


def dinov3_state(source: nn.Module, *, bias: bool) -> State:
    """The weights under DINOv3's names."""
    state: State = {"mask_token": torch.zeros(1, 64), "rope_embed.periods": torch.rand(16)}
    for key, tensor in source.state_dict().items():
        if key.endswith("q_bias"):
            bias_of_keys = torch.zeros_like(tensor)
            value = source.state_dict()[key.replace("q_bias", "v_bias")]
            key = key.replace("q_bias", "qkv.bias")
            tensor = torch.cat([tensor, bias_of_keys, value])
        key = re.sub(r"gamma_(\d)", r"ls\1.gamma", key).replace("reg_token", "storage_tokens")
        if not key.endswith("v_bias"):
            state[key] = tensor
    for block in range(2):
        prefix = f"blocks.{block}.attn.qkv.bias"
        state.setdefault(prefix, torch.zeros(192))
        state[f"{prefix}_mask"] = torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(64)
    assert bias == state["blocks.0.attn.qkv.bias"].any()
    return state


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "vit_small_patch16_dinov3_qkvb"])
def test_reads_dinov3(name: str, tmp_path: Path) -> None:
    source = scramble(timm.create_model(name, num_classes=0, **DINOV3))
    torch.save(dinov3_state(source, bias=name.endswith("b")), tmp_path / "dinov3.pth")
    assert_same_features(load(tmp_path / "dinov3.pth", name, DINOV3), source)


def test_refuses_a_dinov3_bias_that_the_model_lacks(tmp_path: Path) -> None:
    name = "vit_small_patch16_dinov3"
    source = scramble(timm.create_model(f"{name}_qkvb", num_classes=0, **DINOV3))
    torch.save(dinov3_state(source, bias=True), tmp_path / "dinov3.pth")
    with pytest.raises(ValueError, match=r"blocks\.\d\.attn\.qkv\.bias is not zero .* qkvb has"):
        load(tmp_path / "dinov3.pth", name, DINOV3)


# ResNet; resnet18 has the names of resnet50 but for the third convolution of a block


def moco(state: State) -> dict[str, Any]:
    query = state | {"fc.0.weight": torch.ones(3, 512), "fc.2.bias": torch.ones(3)}
    other = {key: -tensor for key, tensor in query.items()}
    queue = {"module.queue": torch.ones(4, 9), "module.queue_ptr": torch.zeros(1).long()}
    both = prefixed(query, "module.encoder_q.") | prefixed(other, "module.encoder_k.") | queue
    return {"epoch": 800, "arch": "resnet50", "state_dict": both, "optimizer": {"state": {}}}


def swav(state: State) -> dict[str, Any]:
    beside = {"projection_head.0.weight": torch.ones(3, 512), "prototypes.weight": torch.ones(9, 3)}
    return prefixed(state | beside, "module.")


def dino_resnet_full(state: State) -> dict[str, Any]:
    teacher = prefixed(state, "module.backbone.") | projector("module.head.")
    return {"student": {k: -v for k, v in teacher.items()}, "teacher": teacher, "args": OPTIONS}


RESNET_FILES = {
    "dino_pretrain": lambda state: state,
    "torchvision": lambda state: (
        state | {"fc.weight": torch.ones(9, 512), "fc.bias": torch.ones(9)}
    ),
    "moco": moco,
    "swav": swav,
    "swav_full": lambda state: {"epoch": 9, "state_dict": swav(state), "amp": {"scale": 1.0}},
    "dino_full": dino_resnet_full,
}


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    model = torchvision.models.resnet18()
    model.fc = nn.Identity()
    return scramble(model)


@pytest.mark.parametrize("form", RESNET_FILES)
def test_reads_released_resnets(form: str, resnet: nn.Module, tmp_path: Path) -> None:
    torch.save(RESNET_FILES[form](resnet.state_dict()), tmp_path / "resnet.pth.tar")
    backbone = load(tmp_path / "resnet.pth.tar", "resnet18", {})
    assert_same_features(backbone, resnet)


def test_timm_names_the_parts_of_resnet50_as_torchvision_does() -> None:
    with torch.device("meta"):
        ours, theirs = timm.create_model("resnet50"), torchvision.models.resnet50()
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }


# Weights of timm itself


@pytest.mark.parametrize("kind", ["safetensors", "pth", "bin"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_resnet", {}),
        ("test_vit", {"img_size": 32}),
        ("convnext_atto", {}),
        ("test_byobnet", {}),
        ("test_efficientnet", {}),
        ("eva02_tiny_patch14_224", {"img_size": 28, "depth": 2}),
    ],
)
def test_reads_weights_and_drops_the_classifier(
    name: str, options: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    path = tmp_path / f"weights.{kind}"
    state = timm.create_model(name, num_classes=7, **options).state_dict()
    save_file(state, path) if kind == "safetensors" else torch.save(state, path)
    model = timm.create_model(name, num_classes=0, **options)
    load_pretrained(model, read_weights(str(path)), origin=str(path))
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[key]), key


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embed_dim": 96}, r"must fit VisionTransformer, but .*\(48,"),
        ({"depth": 3}, r"missing blocks\.2\.norm1\.weight"),
        ({"depth": 1}, r"unexpected blocks\.1\.norm1\.weight"),
        ({"patch_size": 16}, r"weight is of shape \(48, 3, 8, 8\) where \(48, 3, 16, 16\)"),
    ],
)
def test_refuses_weights_of_another_model(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    torch.save(dino_full(make_vit().state_dict()), tmp_path / "full.pth")
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "full.pth", "vit_tiny_patch16_224", VIT | options)


def test_refuses_a_resnet_for_a_transformer(resnet: nn.Module, tmp_path: Path) -> None:
    torch.save(moco(resnet.state_dict()), tmp_path / "moco.pth")
    with pytest.raises(ValueError, match=r"must fit VisionTransformer, but .* missing cls_token"):
        load(tmp_path / "moco.pth", "vit_tiny_patch16_224", VIT)


def test_refuses_a_projector_alone(tmp_path: Path) -> None:
    torch.save(projector(""), tmp_path / "head.pth")
    with pytest.raises(
        ValueError, match=r"head\.pth must fit VisionTransformer.*missing cls_token"
    ):
        load(tmp_path / "head.pth", "vit_tiny_patch16_224", VIT)


def test_refuses_half_a_checkpoint(tmp_path: Path) -> None:
    state = make_vit().state_dict()
    half = {key: tensor for key, tensor in state.items() if not key.startswith("blocks.1.")}
    torch.save({"teacher": prefixed(half, "backbone.")}, tmp_path / "half.pth")
    with pytest.raises(ValueError, match=r"12 entries do not: missing blocks\.1\.norm1\.weight"):
        load(tmp_path / "half.pth", "vit_tiny_patch16_224", VIT)


def test_refuses_positions_that_are_no_square(tmp_path: Path) -> None:
    state = make_vit().state_dict() | {"pos_embed": torch.zeros(1, 13, 48)}
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"odd\.pth must fit .*timm cannot convert them"):
        load(tmp_path / "odd.pth", "vit_tiny_patch16_224", VIT)


@pytest.mark.parametrize("network", ["momentum", "epoch"])
def test_refuses_a_network_that_is_not_there(network: str, tmp_path: Path) -> None:
    torch.save(dino_full(make_vit().state_dict()), tmp_path / "full.pth")
    message = {"momentum": "got momentum of student, teacher", "epoch": "tensors.*got int"}
    with pytest.raises(ValueError, match=message[network]):
        load(tmp_path / "full.pth", "vit_tiny_patch16_224", VIT, network=network)


def make_resnet(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model("test_resnet", num_classes=0)


def test_a_mismatch_lists_keys_and_shapes() -> None:
    state = make_resnet().state_dict()
    del state["conv1.0.weight"]
    state["layer9.weight"] = torch.zeros(1)
    state["bn1.weight"] = torch.zeros(3)
    with pytest.raises(
        ValueError, match=r"weights in a\.pth must fit ResNet, but 3 entries"
    ) as raised:
        load_weights(make_resnet(), state, origin="a.pth")
    assert "missing conv1.0.weight; unexpected layer9.weight; " in str(raised.value)
    assert re.search(r"bn1\.weight of shape \(3,\) where \(\d+,\) is needed", str(raised.value))


def test_a_mismatch_lists_no_more_than_four_keys() -> None:
    with pytest.raises(ValueError, match="must fit ResNet") as raised:
        load_weights(make_resnet(), {}, origin="a.pth")
    assert str(raised.value).count("missing") == 4


def test_a_mismatch_changes_no_weight() -> None:
    model, state = make_resnet(), make_resnet(seed=1).state_dict()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    del state["layer4.0.conv1.weight"]
    with pytest.raises(ValueError, match="missing layer4"):
        load_weights(model, state, origin="a.pth")
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key]), key


class Bomb:
    def __init__(self, path: str):
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


def test_refuses_checkpoints_that_run_code(tmp_path: Path) -> None:
    made = tmp_path / "made by the checkpoint"
    torch.save({"weight": Bomb(str(made))}, tmp_path / "bomb.pth")
    with pytest.raises(
        ValueError, match=r"bomb\.pth must be a torch checkpoint that holds tensors.*mkdir"
    ):
        read_weights(str(tmp_path / "bomb.pth"))
    assert not made.exists()


def test_refuses_checkpoints_of_whole_modules(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(ValueError, match=r"module\.pth must be a torch checkpoint that holds"):
        read_weights(str(tmp_path / "module.pth"))


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
@pytest.mark.parametrize("kept", [0, 5, 60, 0.5, 0.99])
def test_refuses_truncated_files(kind: str, kept: float, tmp_path: Path) -> None:
    whole, broken = tmp_path / f"whole.{kind}", tmp_path / f"broken.{kind}"
    state = {"weight": torch.randn(500)}
    save_file(state, whole) if kind == "safetensors" else torch.save(state, whole)
    content = whole.read_bytes()
    broken.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(ValueError, match=re.escape(str(broken))):
        read_weights(str(broken))


@pytest.mark.parametrize("name", ["notes.pth", "notes.safetensors"])
def test_refuses_files_of_another_kind(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("hello world\n")
    with pytest.raises(ValueError, match=name):
        read_weights(str(tmp_path / name))


@pytest.mark.parametrize(
    ("held", "got"),
    [
        ({"epoch": 3, "weights": {"weight": torch.zeros(1)}}, "got epoch, weights"),
        ({"state_dict": {"weight": 1}}, "got weight"),
        ({}, "got dict"),
        ([torch.zeros(1)], "got list"),
    ],
)
def test_refuses_checkpoints_that_are_no_state_dict(held: Any, got: str, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=f"must hold a dictionary of tensors, .*, {got}"):
        read_weights(str(tmp_path / "other.pth"))


@pytest.mark.parametrize("weights", ["absent.pth", "absent.safetensors", "bundled:absent"])
def test_refuses_missing_files(weights: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"backbone\.weights must be a file.*absent"):
        read_weights(weights)


def test_refuses_code_beside_options_of_a_command(tmp_path: Path) -> None:
    made = tmp_path / "made by the checkpoint"
    held = {"teacher": {"weight": torch.zeros(1)}, "args": argparse.Namespace(a=Bomb(str(made)))}
    torch.save(held, tmp_path / "bomb.pth")
    with pytest.raises(ValueError, match=r"bomb\.pth must be a torch checkpoint.*mkdir"):
        read_weights(str(tmp_path / "bomb.pth"))
    assert not made.exists()
    assert argparse.Namespace not in torch.serialization.get_safe_globals()  # once read
