"""Ablations of accumulate: the sampling temperature, the number of stories or of epochs, a weak first model

Paper: Gerstgrasser et al. 2404.01413, appendix D, table 2 and figure 11 (GPT-2 of 9M parameters)
Claim: At a low temperature, with a fifth of the stories, and with three epochs of those, replace gets worse and accumulate does
    not; at a low temperature replace gets worse by far the most.
Command: mcloop run gerstgrasser/tinystories_ablations
Minutes: tiny 1, small 60, paper 2000
Expected: in the paper, cross-entropy at fits 1 and 4 of replace and accumulate is 1.82, 2.39 and 1.74; at temperature .3 1.82,
    5.82 and 1.75; with a fifth of the stories 2.56, 3.21 and 2.28; with three epochs of those 1.99, 2.62 and 1.87
"""

from mcloop.nets.transformer import GPT2_9M
from mcloop.studies.tinystories import SMALL, study

ABLATIONS = {
    "the study": {},
    "temperature 0.3": {"temperature": 0.3},
    "a fifth of the stories": {"share": 0.2},
    "a fifth, three epochs": {"share": 0.2, "times": 3},
    "a weak first model": {"first": 1 / 3},
}
PUBLISHED = {
    "replace at temperature 0.3": {1: 1.82, 4: 5.82, 10: 9.85},
    "accumulate at temperature 0.3": {1: 1.82, 4: 1.75},
    "replace with a fifth of the stories": {1: 2.56, 4: 3.21, 10: 3.72},
    "accumulate with a fifth of the stories": {1: 2.56, 4: 2.28},
    "replace_multiple with a fifth of the stories": {1: 2.56, 4: 2.91},
    "replace with three epochs of a fifth": {1: 1.99, 4: 2.62},
    "accumulate with three epochs of a fifth": {1: 1.99, 4: 1.87},
}
STUDY = study(GPT2_9M, PUBLISHED, SMALL)


def make(ablation, arm, table=None, epochs=1.0, **options):
    changed = dict(ABLATIONS[ablation])
    times = changed.pop("times", 1)  # epochs, as a multiple of the study's
    return STUDY.make(arm, table=table, **{**options, "epochs": times * epochs, **changed})


experiment = STUDY._replace(
    make=make,
    grid={"ablation": list(ABLATIONS), "arm": ["replace", "accumulate"]},
    sizes={
        "tiny": STUDY.sizes["tiny"]._replace(grid={"ablation": list(ABLATIONS)[:2]}),
        "small": STUDY.sizes["small"]._replace(generations=4, grid={}),
        "paper": STUDY.sizes["paper"]._replace(grid={}),
    },
)
