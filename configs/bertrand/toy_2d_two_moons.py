"""Two moons, four networks: retrained on their own samples by a DDPM, an EDM, an OT-CFM and a normalizing flow

Paper: Bertrand et al. 2310.00429, section 5 and figure 2
Claim: Retrained on its own samples alone a model drifts away from the data; with real data and a small share of synthetic
    data in every generation it does not. The paper shows pictures; here are numbers, seeds, a likelihood and |theta - theta*|.
    The set is ours, and not torchcfm's, which `mcloop.data.toys` gives as released.
Command: mcloop run bertrand/toy_2d_two_moons
Minutes: tiny 1, small 10, paper 240
Expected: sliced W2 of the EDM at generation 8 of 3 seeds is 1.06 at lam = inf and .25 and .23 at lam = 0.1 and 0; that of the
    flow is not told apart there (.22, .18, .17); .14 for true points
"""

from mcloop.data.toys import two_moons
from mcloop.studies.toys import toy_study

experiment = toy_study(two_moons())
