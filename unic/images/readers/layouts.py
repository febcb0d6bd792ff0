"""Where the files of each data set come from, and how they must lie below ``data.root``."""

from collections.abc import Iterable
from pathlib import Path

_IMAGENET = """\
  {root}/train/n01440764/n01440764_10026.JPEG   one folder a class (wnid), 1,000 or just the needed
  {root}/val/n01440764/ILSVRC2012_val_00000293.JPEG   the same; or flat, with the devkit:
  {root}/val/ILSVRC2012_val_00000293.JPEG
  {root}/ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt and meta.mat, or instead
  {root}/imagenet_2012_validation_synset_labels.txt   a wnid a line, in the order of the images
ImageNet is free for research after registration at image-net.org: get ILSVRC2012_img_train.tar,
ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz, unpack each class into a folder of its
name, then set data.root of the experiment (or of `defaults` in config/config.yaml) to that
folder."""
LAYOUTS = {
    "stl10": """\
  {root}/stl10_binary/train_X.bin, train_y.bin, test_X.bin, test_y.bin, class_names.txt
`unic data stl10 --root {root} --download` gets it (stl10_binary.tar.gz, 2.6 GB).""",
    "cifar10": """\
  {root}/cifar-10-batches-py/data_batch_1 to data_batch_5, test_batch, batches.meta
`unic data cifar10 --root {root} --download` gets it (cifar-10-python.tar.gz, 170 MB).""",
    "cifar100": """\
  {root}/cifar-100-python/train, test, meta
`unic data cifar100 --root {root} --download` gets it (cifar-100-python.tar.gz, 169 MB).""",
    "fashion_mnist": """\
  {root}/FashionMNIST/raw/train-images-idx3-ubyte, train-labels-idx1-ubyte,
  {root}/FashionMNIST/raw/t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte   each may end in .gz
`unic data fashion_mnist --root {root} --download` gets it (31 MB).""",
    "cub200": """\
  {root}/CUB_200_2011/images.txt, image_class_labels.txt, train_test_split.txt, classes.txt
  {root}/CUB_200_2011/images/001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg
It is what CUB_200_2011.tgz unpacks to (1.2 GB, data.caltech.edu, record 20098).""",
    "stanford_cars": """\
  {root}/cars_train/00001.jpg, cars_test/00001.jpg
  {root}/devkit/cars_train_annos.mat, cars_meta.mat
  {root}/cars_test_annos_withlabels.mat   here or in devkit
or, with other labeled images in GCD since the order differs:
  {root}/car_ims/000001.jpg
  {root}/cars_annos.mat
The address that torchvision knows is dead, so get the archives (cars_train.tgz, cars_test.tgz,
car_devkit.tgz and the test annotations, or car_ims.tgz) from a mirror and unpack them.""",
    "fgvc_aircraft": """\
  {root}/fgvc-aircraft-2013b/data/variants.txt, images_variant_trainval.txt, images_variant_test.txt
  {root}/fgvc-aircraft-2013b/data/images/0034309.jpg
`unic data fgvc_aircraft --root {root} --download` gets it (fgvc-aircraft-2013b.tar.gz, 2.8 GB).""",
    "herbarium19": """\
  {root}/small-train/0/1.jpg   one folder a class, 683 of them
  {root}/small-validation/0/2.jpg
It is the small version (at most 1024 pixels) of the Herbarium challenge of 2019 (FGVC6).""",
} | dict.fromkeys(
    ("imagenet50", "imagenet100", "imagenet200", "imagenet100_gcd", "imagenet1k"), _IMAGENET
)


def layout_of(name: str, root: Path) -> str:
    """The files that a data set needs below a root, and where to get them."""
    return f"Expected layout:\n{LAYOUTS[name].format(root=root)}"


def require(name: str, root: Path, paths: Iterable[str]) -> None:
    """Check that files or folders of a data set are there.

    Args:
        name: Data set.
        root: ``data.root``.
        paths: What is needed, below the root.

    Raises:
        FileNotFoundError: If something is missing; says what, and how the files must lie.
    """
    missing = [path for path in paths if not (root / path).exists()]
    if missing:
        raise FileNotFoundError(
            f"{name} needs {len(missing)} more files or folders below data.root={root}, first "
            f"{missing[0]}. {layout_of(name, root)}"
        )
