"""Two moons, four networks: retrained on their own samples by a DDPM, an EDM, an OT-CFM and a normalizing flow

Paper: Bertrand et al. 2310.00429, section 5 and figure 2
Claim: Retrained on its own samples alone a model drifts away from the data; with real data and a small share of synthetic
    data in every generation it does not. The paper shows pictures; here are numbers, seeds, a likelihood and |theta - theta*|.
    The set is ours, and not torchcfm's, which `mcloop.data.toys` gives as released.
Command: mcloop run bertrand/toy_2d_two_moons
Minutes: tiny 1, small 30, paper 240
Expected: first fits that are good (sliced W2 1.2 to 1.4 times that of true points, which the draws of 6 seeds may be by
    chance; 99.8 % and more of the points of high quality). At generation 12 of 6 seeds the squared MMD x 1,000 is 18
    (DDPM), 14 (EDM), 2.0 (OT-CFM) and 2.7 (flow) at lam = inf; 1.0, 2.0, .9 and .7 at lam = 0.5; .9, 1.7, .9 and .6 with
    real data only
"""

from mcloop.data.toys import two_moons
from mcloop.studies.toys import toy_study

experiment = toy_study(two_moons())
