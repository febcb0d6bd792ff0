"""A backbone whose weights stay, computed by the engine of the place."""

import logging
from typing import Self

import torch
from torch import Tensor, nn

from unic.models.backbones import Backbone
from unic.models.engines import Engine, choose_engine, compile_network
from unic.models.trunk_output import TrunkOutput

logger = logging.getLogger(__name__)


class FrozenBackbone:
    """What a backbone gives for images as long as nothing of it, or of its trunk, is trained.

    Args:
        backbone: On the engine's device. Its trunk must stay as it is while this is used, and its
            last block too where :attr:`only_features` is set.
        engine: What computes it.
        only_features: Whether :meth:`features` is all that is wanted, so that the last block need
            not be left to torch.

    Raises:
        ValueError: If the engine cannot compute this backbone.
    """

    def __init__(self, backbone: Backbone, engine: Engine, *, only_features: bool = False):
        self.backbone, self.engine = backbone, engine
        is_whole = only_features or backbone.gives_features
        # The class token alone is a twelfth less work, and for torch.
        self._is_whole = is_whole and not backbone.has_class_token_path
        network = _Features(backbone) if self._is_whole else _Trunk(backbone)
        self._compute = compile_network(network, backbone.probe(), engine)

    @classmethod
    def choose(
        cls,
        backbone: Backbone,
        engine: str,
        *,
        n_images: int,
        precision: torch.dtype,
        device: torch.device,
        only_features: bool = False,
    ) -> Self:
        """Move a backbone to a device and choose the engine there.

        Args:
            backbone: On any device.
            engine: ``auto``, ``torch`` or ``openvino``. Where ``auto`` would take OpenVINO, which
                cannot compute this backbone, it takes torch, and the log says why.
            n_images: Views it is going to be shown, by whose number ``auto`` chooses.
            precision: Of products, float32 or bfloat16.
            device: Where it is computed.
            only_features: Whether features are all that is wanted.

        Raises:
            ValueError: If there is no such engine, it is not installed or not for this device, or
                it cannot compute this backbone.
        """
        backbone = backbone.to(device)
        probe = backbone.probe()
        chosen = choose_engine(
            engine, backbone, probe, n_images=n_images, precision=precision, device=device
        )
        try:
            frozen = cls(backbone, chosen, only_features=only_features)
        except ValueError as error:
            if engine != "auto" or chosen.name == "torch":
                raise
            logger.warning("torch computes this network: %s", error)
            frozen = cls(backbone, chosen._replace(name="torch"), only_features=only_features)
        logger.info("frozen networks are computed by %s", frozen.engine.describe())
        return frozen

    def features(self, images: Tensor) -> Tensor:
        """Features ``(b, d)`` of normalized images ``(b, 3, s, s)``, both float32 on the device."""
        found = self._compute(images)
        if self._is_whole:
            return found
        with torch.no_grad():
            return self.backbone.run_last(self.backbone.split(found))

    def prepare(self, images: Tensor) -> TrunkOutput:
        """What :meth:`unic.models.backbones.Backbone.prepare` gives, without a gradient.

        Raises:
            ValueError: If features were said to be all that is wanted.
        """
        if self.backbone.gives_features:
            return TrunkOutput(self.features(images)[:, None])
        if self._is_whole:
            raise ValueError("only_features must be false where the trunk's output is wanted")
        return self.backbone.split(self._compute(images))


class _Features(nn.Module):
    """A backbone from images to features."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(images)


class _Trunk(nn.Module):
    """All of a backbone before its last block."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone.trunk(images)
