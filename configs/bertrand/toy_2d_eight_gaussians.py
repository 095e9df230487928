"""Eight Gaussians, four networks: retrained on their own samples by a DDPM, an EDM, an OT-CFM and a normalizing flow

Paper: Bertrand et al. 2310.00429, section 5 and figure 2
Claim: Retrained on its own samples alone a model drifts away from the data; with real data and a small share of synthetic
    data in every generation it does not. The paper shows pictures; here are numbers, seeds, a likelihood and |theta - theta*|.
    The set is ours, and not torchcfm's, which `mcloop.data.toys` gives as released.
Command: mcloop run bertrand/toy_2d_eight_gaussians
Minutes: tiny 1, small 30, paper 240
Expected: first fits that are good (sliced W2 .97 to 1.15 times that of true points). At generation 12 of 6 seeds fully
    synthetic retraining has cost .062 (DDPM), .089 (EDM), .140 (OT-CFM) and .008 (flow) of the points of high quality,
    beside real data only; lam = 0.5 costs OT-CFM .014, and is not told from none in the others
"""

from mcloop.data.toys import eight_gaussians
from mcloop.studies.toys import toy_study

experiment = toy_study(eight_gaussians())
