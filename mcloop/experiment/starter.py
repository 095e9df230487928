"""My generator, trained on its own rows: a loop of your own, to be edited

Paper: none
Claim: Fitted on its own rows alone, the generator loses variance; where the real rows are kept, it loses a bounded part.
Command: mcloop run my_loop.py
Minutes: tiny 1, small 2, paper 20
"""

import numpy as np
import pandas as pd

import mcloop
from mcloop import regimes
from mcloop.experiment import Experiment, Size


# 1. Your data: a DataFrame (pd.read_csv("mine.csv")), an array, (X, y) or a list of strings.
def real_data():
    """Three hundred people, made up."""
    rng = np.random.default_rng(0)
    city = rng.choice(["Bern", "Zug", "Chur"], 300, p=[0.6, 0.35, 0.05])
    return pd.DataFrame({"age": rng.integers(18, 80, 300), "income": np.exp(10 + 0.3 * rng.normal(size=300)), "city": city})


REAL = real_data()


# 2. Your generator: anything with fit(data) and sample(n). A new one is made, fitted and drawn from in every generation.
class MyGenerator:
    """Every column by itself: numbers from a normal distribution, words as often as they were seen."""

    def fit(self, rows):
        """Learns the columns of a DataFrame."""
        self.rows = rows

    def sample(self, n):
        """n rows, as a DataFrame. NumPy's global seed is set by mcloop, so that every run is the same."""
        drawn = {}
        for name, column in self.rows.items():
            if pd.api.types.is_numeric_dtype(column):
                drawn[name] = np.random.normal(column.mean(), column.std(ddof=0), n)  # noqa: NPY002
            else:
                drawn[name] = np.random.choice(column, n)  # noqa: NPY002
        return pd.DataFrame(drawn)


# 3. Your measure: (real rows, drawn rows) -> a number, or a dict of numbers. Leave it out, and mcloop's own are taken.
def my_measure(real, drawn):
    """The spread of the incomes, over that of the real ones, and the share of cities that are still there."""
    return {
        "income_spread": drawn["income"].std() / real["income"].std(),
        "cities_kept": drawn["city"].nunique() / real["city"].nunique(),
    }


# 4. Your corrector, if you have one: it is given what was drawn, and gives as many rows back.
def my_corrector(key, rows, params):
    """No income below zero, no age below 18."""
    return rows.assign(income=rows["income"].clip(lower=0), age=rows["age"].clip(lower=18))


MODEL = mcloop.external(MyGenerator, REAL, my_measure)
ARMS = {
    "replace": (regimes.replace, None),
    "replace, corrected": (regimes.replace, my_corrector),
    "keep the real rows": (lambda: regimes.augment(lam=1.0), None),
}


def make(arm):
    """One loop: what is remembered from generation to generation, and what is done to what was drawn."""
    regime, corrector = ARMS[arm]
    return mcloop.make_loop(MODEL, regime(), corrector)


experiment = Experiment(
    make=make,
    grid={"arm": list(ARMS)},
    sizes={"tiny": Size(2, 3), "small": Size(10, 8), "paper": Size(100, 8)},  # (seeds, generations)
    measure=("income_spread", "cities_kept"),
    worse="down",
    neural=True,
    quick=True,
)
