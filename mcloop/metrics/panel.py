"""Everything that is measured of a generation of labelled images, against a test set, in one space of features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mcloop.checks import whole
from mcloop.data.images import Images
from mcloop.metrics.diversity import class_histogram, diversity, total_variation
from mcloop.metrics.features import Features, lenet_features
from mcloop.metrics.frechet import extrapolated, frechet_distance
from mcloop.metrics.kernel import kid
from mcloop.metrics.prdc import prdc

_SHEET = 40  # images a sheet
_NEIGHBOURS = 2000  # images at most on either side of precision and recall
_LEAST = 5  # images without which three nearest neighbours have no ball
_DRAWS = 5  # of real images, of which each is what a perfect model might have drawn


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


def _blocks(images: int) -> int:
    """Blocks for the kernel distance, of 20 images where there are so many: two at least, for a scatter."""
    return min(10, max(2, images // 20))


def image_panel(data: Images, samples: int, features: Features | None = None) -> Panel:
    """Frechet distance (plain, and extrapolated to infinitely many samples), KID, precision, recall, density, coverage,
    diversity, distance of the class histogram, and the share of images that show the class that was asked for.

    Args:
        data: the reference is its test set, in a fixed mixed order, since published ones begin with their cleanest images;
            draws of `samples` from its training images stand for a perfect model.
        samples: images that a generation is judged by, at least 5, as many as the test set must have.
        features: what they are compared in; default a LeNet trained on `data`, kept in a cache.

    Raises:
        InputError: too few images on either side, before anything is trained.
    """
    whole("samples", samples, _LEAST, 10**9)
    whole("the number of test images", len(data.test_x), _LEAST, 10**9)
    space = lenet_features(data) if features is None else features
    reference = space.extract(data.test_x)[np.random.default_rng(0).permutation(len(data.test_x))]
    near = reference[:_NEIGHBOURS]
    # a classifier may know classes that the data lacks, and a test set one that the training set lacks
    known = 1 if space.classify is None else space.classify(data.test_x[:1]).shape[1]
    classes = max(known, int(data.train_y.max()) + 1, int(data.test_y.max()) + 1)
    real_classes = class_histogram(data.test_y, classes)

    def measure(x, label) -> dict[str, float]:
        found = space.extract(x)
        ratios = prdc(near, found[:_NEIGHBOURS])
        seen = {
            "fid": frechet_distance(found, reference),
            "fid_inf": extrapolated(found, reference).value if len(found) >= 200 else float("nan"),
            "kid": kid(found, reference, blocks=_blocks(min(len(found), len(reference)))).value,
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
        + f"; precision, recall, density and coverage: k = 3, at most {_NEIGHBOURS} images on either side, those of the "
        f"test set in a mixed order. The dotted line is what as many real training images score, the mean of {_DRAWS} draws."
    )

    def annotate(ds):
        rng, many = np.random.default_rng(1), min(samples, len(data.train_x))
        draws = [rng.choice(len(data.train_x), many, replace=False) for _ in range(_DRAWS)]
        perfect = [measure(data.train_x[chosen], data.train_y[chosen]) for chosen in draws]
        for name in perfect[0]:
            if name in ds:
                values = [found[name] for found in perfect]
                ds[name].attrs |= {"floor": float(np.mean(values)), "floor_spread": float(np.std(values, ddof=1))}
        # one class after the other, as the samples come
        here = [np.flatnonzero(data.train_y == c) for c in np.unique(data.train_y)]
        order = [here[i % len(here)][i // len(here) % len(here[i % len(here)])] for i in range(_SHEET)]
        ds["real_samples"] = (("image", "y", "x"), data.train_x[order][..., 0], {"picture": "images", "real": 1})
        ds.attrs["evaluation"] = words
        ds.attrs["features"] = space.name
        if data.remarks:
            ds.attrs["remarks"] = [*ds.attrs.get("remarks", []), *data.remarks]
        return ds

    return Panel(see, annotate, words)
