"""Counter-based random variates and exact counts, for one cell or a whole grid."""

from mcloop.random.counts import binomial, multinomial, poisson
from mcloop.random.variates import as_key, by_own_rules, categorical, chi_square, fold_in, gamma, normal, place, uniform

__all__ = [
    "as_key",
    "binomial",
    "by_own_rules",
    "categorical",
    "chi_square",
    "fold_in",
    "gamma",
    "multinomial",
    "normal",
    "place",
    "poisson",
    "uniform",
]
