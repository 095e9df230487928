"""Categorical models, vocabularies and mixture weights: genetic drift under another name.

`p_g` are the fitted probabilities (relative counts), H(p) = 1 - sum p^2 the heterozygosity, `H_0` that of the truth.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mcloop.laws.base import Law, fits, pick, product, relax, upto


def replace_heterozygosity(g: ArrayLike, n: float) -> np.ndarray:
    """E[1 - sum p_g^2] / H_0 = (1 - 1/n)^g; categorical, replace, n draws a generation. Source: Wright-Fisher."""
    return np.power(1.0 - 1.0 / n, fits(g))


def replace_heterozygosity_wrong(g: ArrayLike, n: float) -> np.ndarray:
    """D1 with the 2n gene copies of diploid textbooks for n draws."""
    return np.power(1.0 - 0.5 / n, fits(g))


def accumulate_heterozygosity(g: ArrayLike, n: float) -> np.ndarray:
    """E[1 - sum p_g^2] / H_0 = prod_{i <= g} (1 - 1/(n i^2)); categorical, accumulate; the limit is that of A1.

    Derived here: p_i = p_{i-1} + (x_i - p_{i-1})/i with x_i the frequencies of n draws from p_{i-1}, a martingale whose
    step has mean square H(p_{i-1})/(n i^2).
    """
    return product(g, 1.0 - 1.0 / (n * upto(g) ** 2))


def accumulate_heterozygosity_wrong(g: ArrayLike, n: float) -> np.ndarray:
    """D2 with 1/(n i) for 1/(n i^2)."""
    return product(g, 1.0 - 1.0 / (n * upto(g)))


def fixed_frequency_error(g: ArrayLike, N: float, n: float, H: float) -> np.ndarray:
    """E||p_g - phat||^2; categorical, N fixed real draws with frequencies phat + n new synthetic draws a generation.

    `H` = 1 - sum phat^2, and p_1 = phat. Derived here: p_g is unbiased for phat, so E H(p_g) = H - Q and
    Q <- a^2 [Q (1 - 1/n) + H/n], a = n/(N + n), with limit (a^2 H/n)/(1 - a^2 (1 - 1/n)). The setting is that of
    Seddik et al. 2404.05090.
    """
    a2 = (n / (N + n)) ** 2
    return relax(g, 0.0, a2 * (1.0 - 1.0 / n), a2 * H / n)


def fixed_frequency_error_wrong(g: ArrayLike, N: float, n: float, H: float) -> np.ndarray:
    """D3 with the drift's own loss of heterozygosity forgotten: a^2 for a^2 (1 - 1/n)."""
    a2 = (n / (N + n)) ** 2
    return relax(g, 0.0, a2, a2 * H / n)


def extinction(steps: int) -> np.ndarray:
    """f_0, ..., f_steps: chance that a line of Poisson(1) families has died out, f_0 = 0, f_{k+1} = exp(f_k - 1)."""
    f = np.zeros(steps + 1)
    for k in range(steps):
        f[k + 1] = np.exp(f[k] - 1.0)
    return f


def token_lost(g: ArrayLike, c: float) -> np.ndarray:
    """P(a token seen c times in the real data has probability 0 in model g) = f_{g-1}^c; replace, c << n.

    Model 1 still has the token: g fits are g - 1 resamplings. A rare token's count branches with Poisson(1) families.
    Source: classical Galton-Watson. Here c is the count in the real data, given; see Z1 for c random.
    """
    return pick(g, extinction(int(fits(g).max()))[:-1]) ** c


def token_lost_wrong(g: ArrayLike, c: float) -> np.ndarray:
    """D4 with f_g for f_{g-1}: the real data counted as a resampling."""
    return pick(g, extinction(int(fits(g).max()))[1:]) ** c


def lost_mass(g: ArrayLike, p: ArrayLike, N: float) -> np.ndarray:
    """E[true mass of the tokens that model g cannot draw] = sum_i p_i f_g^(N p_i); replace, N draws a generation.

    `p` are the true probabilities. The real count is Poisson(N p_i), and averaging D4 over it turns f_{g-1} into f_g.
    Derived here, to leading order in 1/N; at g = 1 it is Good's missing mass.

    Raises:
        ValueError: outside its domain, many words of which those that are lost are rare (see `lost_mass_holds`).
    """
    if not lost_mass_holds(p, N):
        raise ValueError(f"law Z1 needs many rare words and many draws: {len(np.asarray(p))} words and N = {N:g} are too few")
    p = np.asarray(p, dtype=float)
    path = [float(p @ f ** (N * p)) for f in extinction(int(fits(g).max()))[1:]]
    return pick(g, path)


def lost_mass_holds(p: ArrayLike, N: float) -> bool:
    """Whether Z1 holds: the mass that N draws miss, sum p (1-p)^N, is that of Poisson counts, sum p exp(-N p), within 1 %."""
    p = np.asarray(p, dtype=float)
    missed = float(p @ np.power(np.maximum(1.0 - p, 0.0), N))
    return bool(abs(float(p @ np.exp(-N * p)) - missed) <= 0.01 * missed)


def unsaid(g: ArrayLike, p: ArrayLike, N: float, regime: str = "replace") -> np.ndarray:
    """E[share of the items that do not occur in N draws of model g], items of true probabilities p; rare items, N large.

    With counts C_g in the training set of model g, of t_g N draws, the N draws that are looked at lack an item with
    probability E exp(-C_g/t_g), and C_1 is Poisson(N p). Under replace C_{g+1} is Poisson(C_g); under accumulate
    C_{g+1} = C_g + Poisson(C_g/g); under replace_multiple it is Poisson(C_g (g+1)/g). So E s^{C_{g+1}} is E h_g(s)^{C_g} with
    h_g(s) = exp(s - 1), s exp((s - 1)/g) and exp((s - 1)(g+1)/g), and the answer is the mean over items of
    exp(N p (h_1(h_2(...h_{g-1}(exp(-1/t_g)))) - 1)). Derived here; under replace it is law Z1's survival, one draw later.
    """
    step = {
        "replace": lambda s, k: np.exp(s - 1),
        "accumulate": lambda s, k: s * np.exp((s - 1) / k),
        "replace_multiple": lambda s, k: np.exp((s - 1) * (k + 1) / k),
    }[regime]
    p, path = np.asarray(p, dtype=float), []
    for last in range(1, int(fits(g).max()) + 1):
        s = np.exp(-1.0 if regime == "replace" else -1.0 / last)
        for k in range(last - 1, 0, -1):
            s = step(s, k)
        path.append(float(np.exp(N * p * (s - 1)).mean()))
    return pick(g, path)


def lost_mass_wrong(g: ArrayLike, p: ArrayLike, N: float) -> np.ndarray:
    """Z1 with the real count taken as certain: N p_i for the Poisson count, f_{g-1} for f_g."""
    p = np.asarray(p, dtype=float)
    path = [float(p @ f ** (N * p)) for f in extinction(int(fits(g).max()))[:-1]]
    return pick(g, path)


def lost_mass_accumulate(g: ArrayLike, p: ArrayLike, N: float) -> np.ndarray:
    """As `lost_mass` under accumulate, which never loses a seen token: sum_i p_i (1 - p_i)^N at every g, exactly."""
    p = np.asarray(p, dtype=float)
    return np.full_like(fits(g), p @ (1.0 - p) ** N)


def mixture_diversity(g: ArrayLike, n: float) -> np.ndarray:
    """E[1 - sum w_g^2] / (1 - sum w*^2) = (1 - 1/n)^g; weights of a mixture with separated components, replace.

    Components told apart have the relative counts of n draws as weights: Wright-Fisher again (D1).
    """
    return replace_heterozygosity(g, n)


def mixture_diversity_wrong(g: ArrayLike, n: float) -> np.ndarray:
    """P1 relative to the first fit: g - 1 for g."""
    return np.power(1.0 - 1.0 / n, fits(g) - 1.0)


TABLE = (
    Law(
        id="D1",
        family="categorical",
        regime="replace",
        quantity="E[1 - sum p_g^2] / H_0",
        formula="(1 - 1/n)^g",
        source="classical: Wright-Fisher",
        value=replace_heterozygosity,
        neighbour="2n for n",
        wrong=replace_heterozygosity_wrong,
    ),
    Law(
        id="D2",
        family="categorical",
        regime="accumulate",
        quantity="E[1 - sum p_g^2] / H_0",
        formula="prod_{i<=g} (1 - 1/(n i^2))",
        source="derived here",
        value=accumulate_heterozygosity,
        neighbour="1/(n i) for 1/(n i^2)",
        wrong=accumulate_heterozygosity_wrong,
    ),
    Law(
        id="D3",
        family="categorical",
        regime="fixed N real + n new synthetic",
        quantity="E||p_g - phat||^2",
        formula="Q <- a^2 [Q (1 - 1/n) + H/n], Q_1 = 0, a = n/(N+n)",
        source="derived here; setting of Seddik et al. 2404.05090",
        value=fixed_frequency_error,
        neighbour="a^2 for a^2 (1 - 1/n)",
        wrong=fixed_frequency_error_wrong,
    ),
    Law(
        id="D4",
        family="categorical",
        regime="replace, token seen c times",
        quantity="P(token lost in model g)",
        formula="f_{g-1}^c, f_0 = 0, f_{k+1} = exp(f_k - 1)",
        source="classical: Galton-Watson",
        value=token_lost,
        neighbour="f_g for f_{g-1}",
        wrong=token_lost_wrong,
    ),
    Law(
        id="Z1",
        family="categorical",
        regime="replace, many rare words",
        quantity="E[real mass of lost tokens]",
        formula="sum_i p_i f_g^(N p_i)",
        source="derived here",
        value=lost_mass,
        neighbour="f_{g-1} for f_g",
        wrong=lost_mass_wrong,
        domain="sum p (1-p)^N and sum p exp(-N p) agree within 1 %",
    ),
    Law(
        id="P1",
        family="mixture",
        regime="replace",
        quantity="E[1 - sum w_g^2] / (1 - sum w*^2)",
        formula="(1 - 1/n)^g",
        source="classical: Wright-Fisher",
        value=mixture_diversity,
        neighbour="g-1 for g",
        wrong=mixture_diversity_wrong,
    ),
)
