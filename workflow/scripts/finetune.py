"""Train the last block and the head with positive and negative neighbors (Eqs. 5-9)."""

from unic.cleaning import PositiveSampler
from unic.data.datasets import open_images
from unic.data.index import read_index
from unic.data.loaders import ViewLoader
from unic.data.views import View
from unic.devices import choose_device
from unic.files import write_csv
from unic.finetuning import FinetuningSettings, Pairs, finetune
from unic.jobs import job
from unic.models import make_model, save_model
from unic.negatives import open_negatives
from unic.store import check_same_images, open_store

with job(snakemake.log[0], threads=snakemake.threads):
    positives = open_store(snakemake.input.positives, kind="positives")
    known = open_store(snakemake.input.known_labels, kind="known_labels")
    check_same_images(positives, known)
    device = choose_device(snakemake.resources.device)
    ids = read_index(snakemake.input.images)["train"]
    seed = int(snakemake.wildcards.seed)
    model = make_model(
        snakemake.params.model,
        weights=snakemake.input.get("backbone", snakemake.params.weights),
        seed=seed,
    )
    loader = ViewLoader(
        open_images(snakemake.params.data, ids, root=snakemake.params.root),
        View(**snakemake.params.view),
        augmentation=snakemake.params.augmentation,
        n_workers=snakemake.threads,
    )
    pairs = Pairs(
        PositiveSampler(positives.read("indices"), known.read("known_labels")),
        open_negatives(
            dict(snakemake.input.items()),
            known,
            exclude_known_same_label=snakemake.params.exclude_known_same_label,
            device=device,
        ),
    )
    history = finetune(
        model.backbone,
        model.head,
        loader,
        pairs,
        FinetuningSettings(**snakemake.params.finetuning),
        seed=seed,
        device=device,
    )
    write_csv(snakemake.output.history, history)
    save_model(snakemake.output.model, model, description=snakemake.params.model)
