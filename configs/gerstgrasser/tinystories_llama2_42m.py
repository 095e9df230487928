"""Llama-2 on its own stories: TinyStories by replace, accumulate and replace_multiple (42M parameters at paper size)

Paper: Gerstgrasser et al. 2404.01413, figure 3 and table 2
Claim: Replace makes a Llama-2 worse at real stories generation after generation, and accumulate does not.
Command: mcloop run gerstgrasser/tinystories_llama2_42m
Minutes: tiny 1, small 45, paper 600
Expected: in the paper, cross-entropy on real text is 1.90 at the first fit; at the fourth 2.52 (replace) and 1.76 (accumulate)
"""

from mcloop.nets.transformer import LLAMA2_42M
from mcloop.studies.tinystories import SMALL, study

# cross-entropy in nats a token, by fit
PUBLISHED = {"replace": {1: 1.90, 4: 2.52}, "accumulate": {1: 1.90, 4: 1.76}}

experiment = study(LLAMA2_42M, PUBLISHED, SMALL)
