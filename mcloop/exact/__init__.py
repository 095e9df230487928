"""Families whose loop can be drawn exactly in law, each beside its literal twin."""

from mcloop.exact.categorical import categorical
from mcloop.exact.exponential import bernoulli, gamma_family, poisson
from mcloop.exact.gaussian import gaussian
from mcloop.exact.kde import kde
from mcloop.exact.mixture import gaussian_mixture
from mcloop.exact.normal import Normal, normal
from mcloop.exact.regression import linear_regression
from mcloop.exact.student_t import student_t

__all__ = [
    "Normal",
    "bernoulli",
    "categorical",
    "gamma_family",
    "gaussian",
    "gaussian_mixture",
    "kde",
    "linear_regression",
    "normal",
    "poisson",
    "student_t",
]
