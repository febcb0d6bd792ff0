"""Train a backbone without labels, where an experiment has none."""

from unic.images.index import read_index
from unic.images.source import ImageSource
from unic.models.backbones import load_backbone, save_backbone
from unic.runtime.devices import choose_device
from unic.runtime.jobs import job
from unic.storage.files import write_csv
from unic.training.contrastive import PretrainingSettings, pretrain

with job(snakemake.log[0], threads=snakemake.threads):
    ids = read_index(snakemake.input.images)["train"]
    settings = PretrainingSettings(**snakemake.params.pretraining)
    source = ImageSource.parse(snakemake.params.source, decoded=None)
    backbone = load_backbone(
        snakemake.params.name,
        weights="random",
        options=snakemake.params.options,
        image_size=source.view.image_size,
        seed=settings.seed,
    )
    history = pretrain(
        backbone,
        source.open(ids),
        source.view,
        settings,
        device=choose_device(snakemake.resources.device),
        n_workers=snakemake.threads,
    )
    write_csv(snakemake.output.history, history)
    save_backbone(snakemake.output.backbone, backbone)
