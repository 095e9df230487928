"""The registry of laws: what each predicts, where it comes from, and the wrong formula next to it.

Conventions are in `mcloop.laws.base`: `g` counts fits from 1, ratios are to the truth. A loop is right when its
replicas agree with `LAWS[id].value` within sampling error and the same replicas reject `LAWS[id].wrong`.
"""

from __future__ import annotations

from mcloop.laws import accumulate, correctors, counts, curation, gaussian, mixed, moments, regression, settled, stability
from mcloop.laws.accumulate import (
    accumulate_covariance,
    accumulate_covariance_limit,
    accumulate_mean_error,
    replace_multiple_covariance,
    replace_sizes_covariance,
    subsample_mean_error,
)
from mcloop.laws.base import Law, broadcast
from mcloop.laws.correctors import (
    extrapolated_variance,
    spread_safe_lam,
    spread_variance,
    tempered,
    verified_label_error,
    verified_mean,
    verified_variance,
    verifier_threshold,
)
from mcloop.laws.counts import (
    accumulate_heterozygosity,
    extinction,
    fixed_frequency_error,
    lost_mass,
    lost_mass_accumulate,
    lost_mass_holds,
    mixture_diversity,
    replace_heterozygosity,
    token_lost,
    unsaid,
)
from mcloop.laws.curation import curate, curated_ratio_bound, curated_utility, curation_gain_bound
from mcloop.laws.gaussian import (
    draws_second_moment,
    replace_covariance,
    replace_mean_error,
    replace_w2,
    unbiased_covariance,
    unbiased_log,
    unbiased_log_det,
    unbiased_mean_error,
    unbiased_root,
)
from mcloop.laws.mixed import (
    corrected_contraction,
    corrected_mean_error,
    fixed_mean_error,
    fixed_relative_error,
    fresh_best_weight,
    fresh_mean_error,
    stationary_relative_error,
)
from mcloop.laws.moments import accumulate_variance, kde_accumulate, kde_replace, replace_variance
from mcloop.laws.regression import (
    ols_accumulate,
    ols_accumulate_fresh,
    ols_fixed,
    ols_replace,
    ols_two_sources,
    ols_two_sources_limit,
    ridge_clean_error,
    ridge_excess,
    ridge_transfer,
)
from mcloop.laws.settled import (
    corrected_relative_error,
    corrected_variance,
    corrected_w2,
    fixed_variance,
    mean_square_growth,
    mean_square_matrix,
    mean_square_safe_lam,
    misspecified_relative_error,
    spread_relative_error,
    subsample_variance,
    tempered_variance,
)
from mcloop.laws.stability import (
    WORST_ERROR,
    accumulate_relative_error,
    jacobian_eigenvalue,
    local_contraction,
    papers_rho,
    papers_safe_lam,
    replace_relative_error,
    safe_generations,
    safe_lam,
    subsample_relative_error,
)

_FAMILIES = (gaussian, accumulate, mixed, settled, stability, regression, counts, moments, curation, correctors)

LAWS: dict[str, Law] = {
    law.id: law._replace(value=broadcast(law.value), wrong=broadcast(law.wrong)) for family in _FAMILIES for law in family.TABLE
}

__all__ = [
    "LAWS",
    "WORST_ERROR",
    "Law",
    "accumulate_covariance",
    "accumulate_covariance_limit",
    "accumulate_heterozygosity",
    "accumulate_mean_error",
    "accumulate_relative_error",
    "accumulate_variance",
    "corrected_contraction",
    "corrected_mean_error",
    "corrected_relative_error",
    "corrected_variance",
    "corrected_w2",
    "curate",
    "curated_ratio_bound",
    "curated_utility",
    "curation_gain_bound",
    "draws_second_moment",
    "extinction",
    "extrapolated_variance",
    "fixed_frequency_error",
    "fixed_mean_error",
    "fixed_relative_error",
    "fixed_variance",
    "fresh_best_weight",
    "fresh_mean_error",
    "jacobian_eigenvalue",
    "kde_accumulate",
    "kde_replace",
    "local_contraction",
    "lost_mass",
    "lost_mass_accumulate",
    "lost_mass_holds",
    "mean_square_growth",
    "mean_square_matrix",
    "mean_square_safe_lam",
    "misspecified_relative_error",
    "mixture_diversity",
    "ols_accumulate",
    "ols_accumulate_fresh",
    "ols_fixed",
    "ols_replace",
    "ols_two_sources",
    "ols_two_sources_limit",
    "papers_rho",
    "papers_safe_lam",
    "replace_covariance",
    "replace_heterozygosity",
    "replace_mean_error",
    "replace_multiple_covariance",
    "replace_relative_error",
    "replace_sizes_covariance",
    "replace_variance",
    "replace_w2",
    "ridge_clean_error",
    "ridge_excess",
    "ridge_transfer",
    "safe_generations",
    "safe_lam",
    "spread_relative_error",
    "spread_safe_lam",
    "spread_variance",
    "stationary_relative_error",
    "subsample_mean_error",
    "subsample_relative_error",
    "subsample_variance",
    "tempered",
    "tempered_variance",
    "token_lost",
    "unbiased_covariance",
    "unbiased_log",
    "unbiased_log_det",
    "unbiased_mean_error",
    "unbiased_root",
    "unsaid",
    "verified_label_error",
    "verified_mean",
    "verified_variance",
    "verifier_threshold",
]
