"""Engines: what computes a network whose weights stay, torch or OpenVINO."""

import logging
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unic.models.folding import fold_norms

logger = logging.getLogger(__name__)

ENGINES = ("auto", "torch", "openvino")
_LONG = 3e11  # operations from which on converting a network, three seconds, pays
_AT_ONCE = 4  # images on a CPU: more leave its cache
_TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.3}  # of the largest output
_PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}

# OpenVINO sends its maker word of each import if this package is there; without it, it does not.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


class Engine(NamedTuple):
    """What computes frozen networks, and how."""

    name: str  # torch or openvino
    precision: torch.dtype  # of products and sums of products, float32 or bfloat16
    device: torch.device

    def describe(self) -> str:
        """Its name, version and precision, as artifacts and logs have them."""
        return f"{self.name} {version(self.name)}, {str(self.precision).removeprefix('torch.')}"


def choose_engine(
    engine: str,
    network: nn.Module,
    probe: Tensor,
    *,
    n_images: int,
    precision: torch.dtype,
    device: torch.device,
) -> Engine:
    """Turn a setting into an engine.

    ``auto`` takes OpenVINO on a CPU, where it is installed and the work is long enough to pay for
    converting the network: a few hundred images of 224 pixels. The work is counted and not timed,
    so that the same images get the same features to the last bit.

    Args:
        engine: ``auto``, ``torch`` or ``openvino``.
        network: That is to be computed.
        probe: Images that it takes, shape ``(b, 3, s, s)``.
        n_images: How many it is going to be shown.
        precision: Of products, float32 or bfloat16.
        device: Where it is to be computed.

    Raises:
        ValueError: If there is no such engine, or OpenVINO is asked for on a GPU or where it is
            not installed.
    """
    if engine not in ENGINES:
        raise ValueError(f"machine.engine must be one of {', '.join(ENGINES)}, got {engine}")
    is_installed = find_spec("openvino") is not None
    if engine == "openvino":
        if device.type != "cpu":
            raise ValueError(f"machine.engine openvino must run on a cpu, got device {device}")
        if not is_installed:
            raise ValueError(
                "machine.engine must be torch or auto where openvino is not installed, got "
                "openvino; pip install 'unic[cpu]' installs it"
            )
    if engine == "auto":
        can_pay = device.type == "cpu" and is_installed
        is_long = can_pay and n_images * count_operations(network, probe) >= _LONG
        engine = "openvino" if is_long else "torch"
    return Engine(engine, precision, device)


@torch.no_grad()
def count_operations(network: nn.Module, probe: Tensor) -> float:
    """Operations of a network for one image: two for each product that is added up.

    Args:
        network: On any device.
        probe: On the same, shape ``(b, 3, s, s)``.
    """
    with FlopCounterMode(display=False) as counter:
        network(probe[:1])
    return float(counter.get_total_flops())


def compile_network(
    network: nn.Module, probe: Tensor, engine: Engine
) -> Callable[[Tensor], Tensor]:
    """Prepare a network whose weights stay.

    Args:
        network: From images to one tensor, on the engine's device, in evaluation mode.
        probe: Images ``(b, 3, s, s)``, on the same device.
        engine: What computes it.

    Returns:
        From float32 images ``(b, 3, s, s)`` on the device to float32 ``(b, ...)`` there, without a
        gradient. On a CPU an image gets the same bits in every batch, and with any number of
        threads where OpenVINO computes it.

    Raises:
        ValueError: If the engine cannot compute this network, or not within 1e-4 of torch's
            largest number (0.3 in bfloat16).
    """
    if engine.name == "openvino":
        return _OpenVINO(network, probe, engine.precision)
    return _Torch(network, probe, engine)


def _difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    return float((found - expected).abs().max() / expected.abs().max())


class _Torch:
    def __init__(self, network: nn.Module, probe: Tensor, engine: Engine) -> None:
        self._is_on_cpu = engine.device.type == "cpu"
        self._is_half = engine.precision == torch.bfloat16
        # A GPU's normalizations cost little, and what it computes stays as it was.
        self._network = _fold(network, probe) if self._is_on_cpu else network

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        if not self._is_on_cpu:
            return self._compute(images)
        return torch.cat([self._compute(part) for part in images.split(_AT_ONCE)])

    def _compute(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._is_half):
            return self._network(images).float()


@torch.no_grad()
def _fold(network: nn.Module, probe: Tensor) -> nn.Module:
    folded = fold_norms(network, probe)
    if folded is network:
        return network
    error = _difference(folded(probe), network(probe))
    if error < _TOLERANCES[torch.float32]:
        return folded
    logger.info("normalizations are not folded: that would change numbers by %.1e", error)
    return network


class _OpenVINO:
    """A network converted to OpenVINO, in as many requests at once as torch has threads."""

    def __init__(self, network: nn.Module, probe: Tensor, precision: torch.dtype) -> None:
        import openvino

        n_threads = torch.get_num_threads()
        level = logging.getLogger().level
        try:
            with warnings.catch_warnings():  # tracing tells of each shape that is a number
                warnings.simplefilter("ignore")
                model = openvino.convert_model(network, example_input=probe)
            model.reshape([-1, *probe.shape[1:]])
            compiled = openvino.Core().compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
                    "INFERENCE_NUM_THREADS": n_threads,
                    "NUM_STREAMS": n_threads,
                },
            )
        except Exception as error:  # of many kinds, by what the network has
            raise ValueError(
                f"machine.engine must be torch for this network, openvino cannot convert "
                f"{type(network).__name__}: {str(error).strip().splitlines()[-1]}"
            ) from error
        finally:
            logging.getLogger().setLevel(level)  # a conversion that fails leaves another
        self._queue = openvino.AsyncInferQueue(compiled, n_threads)
        self._queue.set_callback(_keep)
        self._shape: tuple[int, ...] = ()
        with torch.no_grad():
            expected = network(probe).float()
        self._shape = tuple(expected.shape[1:])
        difference = _difference(self(probe), expected)
        is_finite = bool(expected.isfinite().all())  # else who reads the features says so
        if is_finite and not difference < _TOLERANCES[precision]:
            raise ValueError(
                "machine.engine must be torch for this network, what openvino computes differs "
                f"by {difference:.1e}"
            )
        logger.info("the converted network differs from torch's by %.1e", difference)

    def __call__(self, images: Tensor) -> Tensor:
        found = torch.empty(len(images), *self._shape)
        for part, place in zip(images.split(_AT_ONCE), found.split(_AT_ONCE), strict=True):
            self._queue.start_async(part.contiguous().numpy(), userdata=place)
        self._queue.wait_all()
        return found


def _keep(request: Any, place: Tensor) -> None:
    place.copy_(torch.from_numpy(request.get_output_tensor().data))
