import numpy as np
import torch

from unic.baselines.methods import Found, MethodInputs, method_predictions


def test_a_method_runs_once_a_seed_and_its_time_is_measured() -> None:
    features = {"train": np.eye(6, dtype=np.float32), "test": np.eye(6, dtype=np.float32)[:2]}
    ids = {split: [f"{split}{row}" for row in range(len(rows))] for split, rows in features.items()}
    neighbors = np.stack([np.arange(6), (np.arange(6) + 1) % 6], axis=1)

    def cluster(
        inputs: MethodInputs, *, n_clusters: int, generator: torch.Generator, device: torch.device
    ) -> Found:
        assert (n_clusters, device.type) == (2, "cpu")
        return {
            split: (
                torch.randint(2, (len(rows),), generator=generator).numpy(),
                np.ones(len(rows), dtype=np.float32),
            )
            for split, rows in inputs.features.items()
        }

    predictions, times = method_predictions(
        cluster,
        MethodInputs(features, neighbors, np.full(6, -1)),
        ids,
        method="drawn",
        seeds=[3, 4],
        n_clusters=2,
        device=torch.device("cpu"),
    )
    assert predictions["image_id"].tolist() == 2 * (ids["train"] + ids["test"])
    for seed, group in predictions.groupby("seed"):
        generator = torch.Generator().manual_seed(int(seed))
        expected = [torch.randint(2, (n,), generator=generator) for n in (6, 2)]
        assert group["cluster"].tolist() == torch.cat(expected).tolist()
    assert times[["method", "seed"]].to_numpy().tolist() == [["drawn", 3], ["drawn", 4]]
    assert (times["processor_s"] >= 0).all()
