"""Eight Gaussians, four networks: retrained on their own samples by a DDPM, an EDM, an OT-CFM and a normalizing flow

Paper: Bertrand et al. 2310.00429, section 5 and figure 2
Claim: Retrained on its own samples alone a model drifts away from the data; with real data and a small share of synthetic
    data in every generation it does not. The paper shows pictures; here are numbers, seeds, a likelihood and |theta - theta*|.
    The set is ours, and not torchcfm's, which `mcloop.data.toys` gives as released.
Command: mcloop run bertrand/toy_2d_eight_gaussians
Minutes: tiny 1, small 10, paper 240
Expected: sliced W2 at generation 12 of 6 seeds is .82 (DDPM), 1.51 (EDM), .62 (OT-CFM) and .64 (flow) at lam = inf;
    .39 to .48 at lam = 0 and 0.1, which are not told apart; .36 for true points
"""

from mcloop.data.toys import eight_gaussians
from mcloop.studies.toys import toy_study

experiment = toy_study(eight_gaussians())
