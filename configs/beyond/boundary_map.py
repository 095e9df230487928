"""Stable or not: a phase map of lam and the sampler's temperature, measured by how fast a small difference grows

Paper: beyond Bertrand et al. 2310.00429 and Gillman et al. 2402.07087, whose conditions hold for an exact sampler; law S1
Claim: At temperature T the loop is stable below lam (T - 1) = 1: for every lam at T <= 1, for few at T > 1.
Command: mcloop run beyond/boundary_map
Minutes: tiny 0.3, small 0.4, paper 1
Expected: the measured growth 1 lies on the dashed line of theory; the signs agree in every cell that the seeds resolve
"""

import numpy as np

from mcloop import correctors, exact, make_loop, regimes
from mcloop.certificates.boundary import draw_map, growth
from mcloop.certificates.twins import growth_twins
from mcloop.experiment import Experiment, Size
from mcloop.laws import mean_square_safe_lam


def make(lam, temperature, n=10**6, d=1):
    return growth_twins(make_loop(exact.gaussian(d=d, n=n), regimes.augment(lam), correctors.temperature(temperature)))


def rate(lam, temperature):
    """log growth of the variance, which is the faster of two where T > 1; the mean's, lam/(1 + lam), where it is not."""
    return np.log(lam * np.maximum(temperature, 1) / (1 + lam))


def figure(ds, experiment):
    title = "Fixed real data + lam synthetic, drawn at a temperature"
    return {"map": draw_map(growth(ds), "lam", "temperature", rate, "theory: lam (T - 1) = 1", title)}


def notes(ds, n, d):
    seen = growth(ds)
    lam, temperature = (np.meshgrid(ds["lam"], ds["temperature"], indexing="ij")[i] for i in (0, 1))
    expected = rate(lam, temperature)
    low, mean, high = (
        np.log(seen[name].transpose("lam", "temperature").values) for name in ("growth_low", "growth", "growth_high")
    )
    told = (low > 0) | (high < 0)
    agree = np.sign(mean) == np.sign(expected)
    # the slower of the two directions still shows where the other is hardly faster
    clear = np.abs(np.log(temperature)) > 0.05
    off = np.abs(np.exp(mean - expected) - 1)[clear]
    said = [f"Seeds tell growth from 1 in {told.sum()} of {told.size} cells; in {(told & agree).sum()} of them theory agrees."]
    if off.size:
        said.append(f"The growth factor is within {100 * off.max():.2g} % of theory where T is not within 5 % of 1.")
    return [*said, *_mean_square(ds["temperature"].values, n, d)]


def _mean_square(temperatures, n, d):
    """Where the mean error explodes, beside where a typical seed does; the law is that of one dimension."""
    stretched = [T for T in temperatures if T > 1]
    if not stretched or d != 1:
        return ["The map is about typical seeds: the mean error over seeds may grow from lower lam on."]
    limits = "; ".join(f"T = {T:g}: {1 / (T - 1):.6g} and {mean_square_safe_lam(n, T):.6g}" for T in stretched)
    return [
        "The map is about a typical seed, stable below lam = 1/(T - 1) at many points (law S1); the mean error over seeds is "
        f"stable below a lam of its own (law S2, n = {n:g}). Both: {limits}."
    ]


experiment = Experiment(
    make=make,
    grid={"lam": [0.1, 0.2, 0.5, 1, 2, 5, 10, 20], "temperature": [0.5, 0.8, 1, 1.1, 1.2, 1.5, 2, 3, 5]},
    sizes={
        "tiny": Size(20, 30, {"lam": [0.5, 1, 2], "temperature": [1, 1.5, 2.5]}),
        "small": Size(64, 60),
        "paper": Size(
            400,
            60,
            {
                "lam": [float(f"{x:.2g}") for x in np.geomspace(0.05, 50, 19)],
                "temperature": [float(f"{x:.2g}") for x in np.geomspace(0.5, 8, 19)],
            },
        ),
    },
    measure=("log_growth", "trace_ratio"),
    figure=figure,
    notes=notes,
    worse="",
)
