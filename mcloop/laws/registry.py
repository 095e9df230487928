"""The registry of laws: what each predicts, where it comes from, and the wrong formula next to it.

Conventions are in `mcloop.laws.base`: `g` counts fits from 1, ratios are to the truth. A loop is right when its
replicas agree with `LAWS[id].value` within sampling error and the same replicas reject `LAWS[id].wrong`.
"""

from __future__ import annotations

from mcloop.laws import accumulate, correctors, counts, curation, gaussian, mixed, moments, regression, settled, stability
from mcloop.laws.base import Law, broadcast

_FAMILIES = (gaussian, accumulate, mixed, settled, stability, regression, counts, moments, curation, correctors)

LAWS: dict[str, Law] = {
    law.id: law._replace(value=broadcast(law.value), wrong=broadcast(law.wrong)) for family in _FAMILIES for law in family.TABLE
}
