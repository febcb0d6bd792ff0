"""Small backbones of random weights for images of 32 pixels."""

from unic.models.backbones import Backbone, load_backbone


def make_backbone(
    name: str = "test_vit", *, all_tokens: bool = False, is_frozen: bool = False
) -> Backbone:
    options = {"img_size": 32} if name == "test_vit" else {}
    return load_backbone(
        name,
        weights="random",
        options=options,
        image_size=32,
        all_tokens=all_tokens,
        is_frozen=is_frozen,
    )
