"""Everything that is measured of a generation of labelled images, against a test set, in one space of features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mcloop.data.images import Images
from mcloop.metrics.diversity import class_histogram, diversity, total_variation
from mcloop.metrics.features import Features, lenet_features
from mcloop.metrics.frechet import extrapolated, frechet_distance
from mcloop.metrics.kernel import kid
from mcloop.metrics.prdc import prdc

_SHEET = 40  # images a sheet
_NEIGHBOURS = 2000  # images at most on either side of precision and recall


class Panel(NamedTuple):
    """A fixed way to judge what a model draws.

    Attributes:
        see: (points as they are kept, variables) -> dict of float32 scalars and of pictures (a sheet of images, stories).
        annotate: dataset -> dataset, with what its figures and its report must say of these measures: features, counts,
            split, and what real data score at the same counts.
        words: the evaluation in a sentence.
    """

    see: Callable[[dict[str, np.ndarray], Any], dict[str, Any]]
    annotate: Callable[[Any], Any]
    words: str


def image_panel(data: Images, samples: int, features: Features | None = None) -> Panel:
    """Frechet distance (plain, and extrapolated to infinitely many samples), KID, precision, recall, density, coverage,
    diversity, distance of the class histogram, and the share of images that show the class that was asked for.

    Args:
        data: the reference is its test set; its last `samples` training images stand for a perfect model.
        samples: images that a generation is judged by.
        features: what they are compared in; default a LeNet trained on `data`, kept in a cache.
    """
    space = lenet_features(data) if features is None else features
    reference = space.extract(data.test_x)
    near = reference[:_NEIGHBOURS]
    classes = int(data.train_y.max()) + 1
    real_classes = class_histogram(data.test_y, classes)

    def measure(x, label) -> dict[str, float]:
        found = space.extract(x)
        ratios = prdc(near, found[:_NEIGHBOURS])
        seen = {
            "fid": frechet_distance(found, reference),
            "fid_inf": extrapolated(found, reference).value if len(found) >= 200 else float("nan"),
            "kid": kid(found, reference, blocks=min(10, len(found) // 20)).value,
            "precision": ratios.precision,
            "recall": ratios.recall,
            "density": ratios.density,
            "coverage": ratios.coverage,
            "diversity": diversity(found).value,
        }
        if space.classify is not None:
            shown = space.classify(x).argmax(1)
            seen["class_tv"] = total_variation(class_histogram(shown, classes), real_classes)
            seen["label_accuracy"] = float(np.mean(shown == label))
        return seen

    def see(points, variables) -> dict[str, Any]:
        scalars = measure(points["x"], points["label"])
        return {k: np.float32(v) for k, v in scalars.items()} | {"samples": points["x"][:_SHEET, :, :, 0]}

    words = (
        f"Every generation is judged by {samples} images, before any correction, against all {len(reference)} test images of "
        f"{data.source}, in the features of {space.name}"
        + (f" (test accuracy {space.accuracy:.2%})" if space.accuracy is not None else "")
        + f"; precision, recall, density and coverage: k = 3, at most {_NEIGHBOURS} images on either side. The dotted line is "
        f"what as many real training images score."
    )

    def annotate(ds):
        perfect = measure(data.train_x[-samples:], data.train_y[-samples:])
        for name, value in perfect.items():
            if name in ds:
                ds[name].attrs["floor"] = float(value)
        # one class after the other, as the samples come
        order = [np.flatnonzero(data.train_y == i % classes)[i // classes] for i in range(_SHEET)]
        ds["real_samples"] = (("image", "y", "x"), data.train_x[order][..., 0], {"picture": "images", "real": 1})
        ds.attrs["evaluation"] = words
        ds.attrs["features"] = space.name
        if data.remarks:
            ds.attrs["remarks"] = [*ds.attrs.get("remarks", []), *data.remarks]
        return ds

    return Panel(see, annotate, words)
