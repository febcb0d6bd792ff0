"""Train the last block and a classifier by SimGCD, with the known labels of GCD."""

from unic.images.index import read_index
from unic.models.backbones import load_backbone, save_backbone
from unic.models.cosine_classifier import save_classifier
from unic.runtime.devices import choose_device
from unic.runtime.jobs import job
from unic.storage.files import write_csv
from unic.storage.resumption import resumption_key
from unic.storage.stores import check_images, open_store
from unic.training.checkpoint import Checkpoint
from unic.training.inputs import ViewInputs
from unic.training.simgcd import SimGCDSettings, train_simgcd

with job(snakemake.log[0], threads=snakemake.threads):
    device = choose_device(snakemake.resources.device)
    inputs, params = dict(snakemake.input.items()), dict(snakemake.params.items())
    known = open_store(snakemake.input.known_labels, kind="known_labels")
    check_images(known, read_index(snakemake.input.images)["train"])
    settings = SimGCDSettings(**snakemake.params.simgcd)
    views = ViewInputs.parse(inputs, params)
    backbone = load_backbone(
        snakemake.params.name,
        weights=snakemake.input.get("backbone", snakemake.params.start),
        network=snakemake.params.network,
        options=snakemake.params.options,
        image_size=views.source.view.image_size,
        seed=settings.seed,
    )
    source = views.open(
        backbone,
        device=device,
        n_workers=snakemake.threads,
        engine=snakemake.resources.engine,
        n_epochs=settings.epochs,
    )
    key = resumption_key(
        params, files=inputs.values(), images=source.images, network=backbone.model
    )
    checkpoint = Checkpoint(f"{snakemake.output.backbone}.checkpoint", key=key)
    classifier, history = train_simgcd(
        backbone,
        source,
        known.read("known_labels"),
        settings,
        n_clusters=snakemake.params.n_clusters,
        device=device,
        checkpoint=checkpoint,
    )
    write_csv(snakemake.output.history, history)
    save_classifier(snakemake.output.classifier, classifier)
    save_backbone(snakemake.output.backbone, backbone)
    checkpoint.remove()
