"""SDV on its own rows: its Gaussian copula and CTGAN, on a mixed table (a recipe)

Paper: beyond the papers; Patki et al. 2016 (SDV) and Xu et al. 1907.00503 (CTGAN), by the library of the former's authors
Claim: Fitted on its own rows alone, a synthesizer loses what ties the columns together, generation by generation; where the
    real rows are kept among them, it loses a bounded part.
Command: mcloop run recipes/sdv --data FILE
Minutes: tiny 1, small 30, paper 600
Expected: needs SDV (pip install "mcloop[sdv]"). With SDV 2.0 it was run at size tiny alone: the first fit of the copula is
    usable (association_error .12, real rows drawn again .04), that of one epoch of CTGAN underfitted; the minutes are a guess
"""

from functools import cache
from typing import Any

import numpy as np

from mcloop import make_loop, regimes
from mcloop.data.mixed import MixedTable, read_table, typed
from mcloop.experiment import Experiment, Size, once
from mcloop.own.external import external
from mcloop.own.floor import with_floor
from mcloop.own.given_table import given
from mcloop.own.optional import optional

ARMS = {"replace": regimes.replace(), "accumulate": regimes.accumulate(), "augment": regimes.augment(1.0)}
SYNTHESIZERS = {"copula": "GaussianCopulaSynthesizer", "ctgan": "CTGANSynthesizer"}
SDTYPES = {"number": "numerical", "integer": "numerical", "category": "categorical", "boolean": "boolean", "date": "datetime"}


def load(path):
    """A table (CSV, Parquet, Feather, Excel, JSON lines or NPY) of numbers, categories, dates and gaps; without one, wines."""
    return given(path, rows(path))


@cache
def rows(path) -> MixedTable:
    if path is not None:
        return read_table(path)
    from sklearn.datasets import load_wine

    found: Any = load_wine(as_frame=True)
    frame = found.frame.assign(grower=np.array(["first", "second", "third"])[found.target], old=found.frame.proline > 700)
    return typed(frame.drop(columns="target"), source="scikit-learn wines, 178 of them")


@cache
def frame(path):
    """The rows; texts are plain ones, which every version of SDV takes."""
    table = rows(path)
    return table.frame.astype({column.name: object for column in table.kinds if column.kind == "category"})


def metadata(kinds):
    """What SDV must know of the columns.

    They are told what mcloop found, and not detected by SDV (`detect_from_dataframe`): that takes a column called "city" for
    a person's, and draws it from a list of cities of its own, and one whose values all differ for a key, and counts it up.
    """
    known = optional("sdv.metadata", "sdv")
    columns = {column.name: {"sdtype": SDTYPES[column.kind]} for column in kinds}
    if hasattr(known, "Metadata"):  # from 1.17 on
        return known.Metadata.load_from_dict({"tables": {"rows": {"columns": columns}}, "relationships": []})
    return known.SingleTableMetadata.load_from_dict({"columns": columns})


@once
def model(synthesizer, path, epochs):
    kind = getattr(optional("sdv.single_table", "sdv"), SYNTHESIZERS[synthesizer])
    options = {"epochs": int(epochs)} if synthesizer == "ctgan" else {}
    kinds = rows(path).kinds
    return external(lambda: kind(metadata(kinds), **options), frame(path))


def make(synthesizer, arm, table, epochs=300):
    """One loop.

    Args:
        synthesizer: "copula" or "ctgan".
        arm: one of ARMS; augment keeps as many real rows as there are synthetic ones.
        epochs: of CTGAN.
    """
    return make_loop(model(synthesizer, table.path, epochs), ARMS[arm])


def annotate(ds, options):
    return with_floor(ds, frame(options["table"].path))


experiment = Experiment(
    make=make,
    grid={"synthesizer": list(SYNTHESIZERS), "arm": list(ARMS)},
    sizes={
        "tiny": Size(2, 3, options={"epochs": 1}),
        "small": Size(2, 5),
        "paper": Size(10, 10, options={"epochs": 3000}),
    },
    measure=("association_error", "ks_mean", "tv_mean", "range_kept", "categories_kept"),
    load=load,
    annotate=annotate,
    worse="up",
    neural=True,
    quick=True,
)
