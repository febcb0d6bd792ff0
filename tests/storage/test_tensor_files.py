import re
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from unic.storage.tensor_files import read_tensors, save_tensors

TENSORS = {
    "weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "turned": torch.arange(6.0).reshape(2, 3).T,
    "half": torch.ones(2, dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "none": torch.empty(0, 5),
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_tensors(tmp_path / "new" / "w.safetensors", TENSORS, about={"name": "vit", "size": 32})
    return tmp_path / "new" / "w.safetensors"


def test_tensors_come_back_bit_for_bit(saved: Path) -> None:
    tensors, about = read_tensors(saved)
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert about == {"name": "vit", "size": 32}
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_equal_tensors_give_equal_bytes(saved: Path) -> None:
    first = saved.read_bytes()
    turned = dict(sorted(TENSORS.items(), reverse=True))
    save_tensors(saved, turned, about={"size": 32, "name": "vit"})
    assert saved.read_bytes() == first


def test_the_checksum_is_that_of_names_dtypes_shapes_and_bytes(tmp_path: Path) -> None:
    save_tensors(tmp_path / "w.safetensors", {"b": torch.tensor([1.5]), "a": torch.tensor(2)})
    with safe_open(str(tmp_path / "w.safetensors"), framework="pt") as file:
        described = file.metadata()["unic"]
    content = b"null" + b"a torch.int64 ()" + (2).to_bytes(8, "little")
    content += b"b torch.float32 (1,)" + bytes.fromhex("0000c03f")
    assert described == f'{{"about": null, "checksum": "{zlib.crc32(content):08x}"}}'


def test_reads_a_foreign_file(tmp_path: Path) -> None:
    save_file({"weight": TENSORS["weight"]}, tmp_path / "w.safetensors", metadata={"format": "pt"})
    tensors, about = read_tensors(tmp_path / "w.safetensors")
    assert torch.equal(tensors["weight"], TENSORS["weight"])
    assert about is None


# Refusals


def test_refuses_every_changed_byte_of_a_tensor(saved: Path) -> None:
    content = saved.read_bytes()
    n_bytes = sum(tensor.nbytes for tensor in TENSORS.values())
    message = re.escape(f"{saved} is damaged: its checksum differs")
    for at in range(len(content) - n_bytes, len(content)):
        saved.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(ValueError, match=message):
            read_tensors(saved)


@pytest.mark.parametrize(
    ("found", "other"),
    [(b"vit", b"wit"), (b'"F32"', b'"I32"'), (b'"turned"', b'"burned"'), (b"[3,4]", b"[4,3]")],
)
def test_refuses_a_changed_header(saved: Path, found: bytes, other: bytes) -> None:
    content = saved.read_bytes()
    assert found in content
    saved.write_bytes(content.replace(found, other, 1))
    with pytest.raises(ValueError, match=re.escape(f"{saved} is damaged: its checksum differs")):
        read_tensors(saved)


@pytest.mark.parametrize("described", ["", "[]", "3", "{", '{"about": 1}', '{"checksum": "0"}'])
def test_refuses_a_description_that_is_not_ours(tmp_path: Path, described: str) -> None:
    tensors: dict[str, Tensor] = {"weight": TENSORS["weight"]}
    metadata: dict[str, Any] = {"unic": described}
    save_file(tensors, tmp_path / "w.safetensors", metadata=metadata)
    with pytest.raises(ValueError, match="is damaged"):
        read_tensors(tmp_path / "w.safetensors")


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_refuses_a_truncated_file(saved: Path, kept: int) -> None:
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(ValueError, match=re.escape(f"{saved} must be a safetensors file")):
        read_tensors(saved)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors"):
        read_tensors(tmp_path / "absent.safetensors")
