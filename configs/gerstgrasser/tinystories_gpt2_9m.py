"""GPT-2 on its own stories: TinyStories by replace, accumulate and replace_multiple (9M parameters at paper size)

Paper: Gerstgrasser et al. 2404.01413, figure 3 and table 2
Claim: Trained anew in every generation on the last one's stories, the model gets worse at real ones; when all earlier stories
    are kept, the real ones among them, it does not; and that is not for their number alone.
Command: mcloop run gerstgrasser/tinystories_gpt2_9m
Minutes: tiny 1, small 45, paper 600
Expected: in the paper, cross-entropy on real text is 1.82 at the first fit; at the fourth 2.39 (replace), 1.74 (accumulate) and
    2.18 (replace_multiple). At size small (.94M parameters, 800 real sequences) 4.07, then 4.65, 4.01 and 4.35
"""

from mcloop.nets.transformer import GPT2_9M
from mcloop.studies.tinystories import SMALL, study

# cross-entropy in nats a token, by fit
PUBLISHED = {
    "replace": {1: 1.82, 4: 2.39, 10: 2.91},
    "accumulate": {1: 1.82, 4: 1.74},
    "replace_multiple": {1: 1.82, 4: 2.18},
}

experiment = study(GPT2_9M, PUBLISHED, SMALL)
