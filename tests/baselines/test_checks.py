import pytest

from tests.baselines.blobs import REFUSALS, three_blobs
from unic.baselines.checks import check_inputs
from unic.baselines.methods import MethodInputs


def test_gives_back_the_training_features() -> None:
    inputs, _ = three_blobs()
    assert check_inputs(inputs, 3) is inputs.features["train"]
    assert check_inputs(inputs, 240) is inputs.features["train"]


@pytest.mark.parametrize(("inputs", "n_clusters", "message"), REFUSALS)
def test_refuses_inputs_that_do_not_fit(
    inputs: MethodInputs, n_clusters: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_inputs(inputs, n_clusters)


def test_refuses_neighbors_of_another_type() -> None:
    inputs, _ = three_blobs()
    with pytest.raises(ValueError, match=r"neighbors must be an int64 array .* got int32"):
        check_inputs(inputs._replace(neighbors=inputs.neighbors.astype("int32")), 3)
