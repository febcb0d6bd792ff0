"""Rows of cached views, against bytes put together by numpy."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from unic.features.token_layout import DTYPES, TokenLayout
from unic.models.trunk_output import TrunkOutput

SHAPES = [(5, 7), (1, 6), (3, 2, 5)]  # tokens of transformers and frozen backbones, a map


def make_layout(shape: tuple[int, ...], dtype: str, class_token: int = 0) -> TokenLayout:
    return TokenLayout(n_images=4, n_views=3, shape=shape, class_token=class_token, dtype=dtype)


def outputs_of(layout: TokenLayout, n_views: int = 6) -> TrunkOutput:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(n_views, *layout.shape, generator=generator) * 3
    token = torch.randn(n_views, layout.class_token, generator=generator)
    return TrunkOutput(tokens, token if layout.class_token else None)


def reference(tokens: NDArray[np.float32], token: NDArray[np.float32], dtype: str) -> bytes:
    """A record: class token, a scale for each entry of the first axis, tokens, zeros up to 8."""
    scales = np.empty(0, dtype=np.float32)
    if dtype == "int8":
        scales = np.abs(tokens).reshape(len(tokens), -1).max(1) / np.float32(127)
        tokens = np.rint(tokens / scales.reshape(-1, *(1 for _ in tokens.shape[1:])))
    record = token.tobytes() + scales.tobytes() + tokens.astype(dtype).tobytes()
    return record + bytes(-len(record) % 8)


@pytest.mark.parametrize("class_token", [0, 7])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_records_are_those_of_numpy(shape: tuple[int, ...], dtype: str, class_token: int) -> None:
    layout = make_layout(shape, dtype, class_token)
    output = outputs_of(layout)
    tokens = output.class_token if output.class_token is not None else torch.empty(6, 0)
    records = layout.pack(output)
    assert (records.dtype, records.shape) == (torch.uint8, (6, layout.record_bytes))
    for view in range(6):
        expected = reference(output.tokens[view].numpy(), tokens[view].numpy(), dtype)
        assert records[view].numpy().tobytes() == expected


def exact(output: TrunkOutput) -> Tensor:
    tokens = output.tokens.float()
    return tokens if output.scales is None else tokens * output.scales[..., None]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "class_token"), [*((shape, 0) for shape in SHAPES), ((5, 7), 7)])
def test_what_is_packed_is_unpacked(shape: tuple[int, ...], dtype: str, class_token: int) -> None:
    layout = make_layout(shape, dtype, class_token)
    output = outputs_of(layout)
    found = layout.unpack(layout.pack(output))
    largest = output.tokens.flatten(2).abs().amax(2).view(6, shape[0], *(1 for _ in shape[1:]))
    limit = largest * (2**-11 if dtype == "float16" else 0.5001 / 127)
    assert ((exact(found) - output.tokens).abs() <= limit).all()
    if class_token:
        assert found.tokens.dtype == DTYPES[dtype]
        assert torch.equal(found.class_token, output.class_token)
    else:
        assert (found.tokens.dtype, found.class_token, found.scales) == (torch.float32, None, None)


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_stay_zeros(dtype: str) -> None:
    layout = make_layout((2, 3), dtype)
    found = layout.unpack(layout.pack(TrunkOutput(torch.zeros(1, 2, 3))))
    assert torch.equal(found.tokens, torch.zeros(1, 2, 3))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_layout_survives_its_header(dtype: str) -> None:
    layout = make_layout((5, 7), dtype, 7)
    content = json.loads(json.dumps({"layout": asdict(layout)}))
    assert TokenLayout.read(content) == layout
    assert layout.n_bytes == 4 * 3 * layout.record_bytes


def test_refuses_an_unknown_dtype() -> None:
    with pytest.raises(KeyError, match="float64"):
        make_layout((5, 7), "float64").pack(TrunkOutput(torch.zeros(1, 5, 7)))
