"""Whatever `--set` lists can be set: loops, laws, figures and notes at one other value of every axis of every config."""

import numpy as np
import pytest

import mcloop
from mcloop import results
from mcloop.drivers import sweep as sweeping
from mcloop.errors import InputError
from mcloop.experiment import config as ex
from mcloop.experiment import simulate
from mcloop.experiment.arguments import arguments, bind, complete, once, read_values
from mcloop.report import story
from mcloop.report.cells import cells
from mcloop.studies.certificates import Row, Table

NAMES = [c.name for c in ex.captions()]
# parameters of the models that are certified
PARAMETERS = {
    "beyond/certificate_gaussian": 5,
    "beyond/certificate_student_t": 2,
    "beyond/certificate_flow": 2,
    "beyond/certificate_diffusion_2d": 2,
}
OPTIMA = ("beyond/certificate_flow", "beyond/certificate_diffusion_2d")  # whose loops start from one that takes minutes


def other(declared, argument):
    """A value of an axis that size tiny does not have."""
    usual = {**declared.grid, **declared.sizes["tiny"].grid}
    now = declared.sizes["tiny"].options.get(argument.name, (*usual.get(argument.name, ()), argument.default)[0])
    if argument.kind == "name":
        return next((v for v in argument.offered if v != now), now)
    if argument.kind == "switch":
        return not now
    if argument.kind == "whole":
        return 2 * now if now else 30
    if argument.kind == "text":
        return "digits" if now != "digits" else "mnist"
    return now / 2 if now and np.isfinite(now) else 0.5


def hollow_sweep(plans, folder, progress, settings=None):
    """What `run_plans` would give: numbers that are nobody's, in the shapes of a run."""
    rng = np.random.default_rng(0)

    def body(p):
        return rng.uniform(0.5, 1.5, (p.points, len(p.statistics) or p.seeds, p.generations)).astype(np.float32)

    return [{name: body(plan) for name in plan.variables} for plan in plans]


class HollowTable(Table):
    """A certificate of nothing, at every lam that is asked for."""

    def __init__(self, size):
        self.rows, self._size = {}, size

    def _row(self, lam):
        one = np.eye(self._size)[0]
        rate = lam / (1 + lam)
        return Row(0.1 * one + 0.5, one, one, rate * np.eye(self._size), rate, 2 * rate)


def small_table(folder):
    """Four columns of a user's own."""
    rows = "\n".join(",".join(f"{x:.4f}" for x in row) for row in np.random.default_rng(0).normal(size=(60, 4)))
    (folder / "own.csv").write_text(f"a,b,c,d\n{rows}\n")
    return folder / "own.csv"


def axes_of(neural):
    declared = {name: ex.load(ex.find(name)) for name in NAMES}
    return [(name, axis) for name, found in declared.items() if found.neural == neural for axis in arguments(found)]


@pytest.mark.parametrize(("name", "axis"), axes_of(False))
def test_every_axis_of_a_closed_form(name, axis, monkeypatch, tmp_path):
    """Loops are built and traced, and everything that is said of them is said; only the numbers are made up."""
    known = ex.find(name)
    declared = ex.load(known)
    argument = arguments(declared)[axis]
    monkeypatch.setattr(sweeping, "run_plans", hollow_sweep)
    if name in PARAMETERS:
        certified = HollowTable(PARAMETERS[name])
        monkeypatch.setitem(declared.make.__globals__, "table", lambda: certified)
    # the fewest cells that show what the axis does: the first of every other axis, two of this one
    grid = {a: list(v)[: 2 if a == axis else 1] for a, v in {**declared.grid, **declared.sizes["tiny"].grid}.items()}
    for switch in ("sampling", "optimisation", "sampler") if "sampling" in grid else ():
        grid[switch] = list(declared.grid[switch])
    usual = grid.get(axis, [declared.sizes["tiny"].options.get(axis, argument.default)])[0]
    settings = ex.settle(known, declared, "tiny", 2, 3)._replace(grid={**grid, axis: [other(declared, argument), usual]})
    table = declared.load(small_table(tmp_path)) if declared.load is not None else None
    if name in OPTIMA:
        shape = (*map(len, settings.grid.values()), 2, 3)
        axes = {**settings.grid, "seed": [0, 1], "generation": [1, 2, 3]}
        ds = results.assemble({"gap": np.linspace(1, 0.2, int(np.prod(shape))).reshape(shape)}, axes, {})
    else:
        ds = simulate.simulate(declared, settings, tmp_path, table)
    assert ds.sizes[axis] == len(settings.grid[axis])
    if name != "beyond/boundary_spread":  # which searches for a boundary
        ds = simulate.annotated(ds, declared, settings, table)
    else:
        ds = ds.assign({f"boundary_{n}": ("s", np.ones(ds.sizes["s"])) for n in ("value", "low", "high")})
        ds.attrs["boundary"] = ["there is one"]
    bound = bind(declared, settings.size, settings.grid)
    for cell in cells(ds, bound):
        assert all(values.shape == (3,) for values in cell.law.values())
    if bound.notes is not None:
        assert bound.notes(ds)
    if bound.figure is not None:
        assert bound.figure(ds, bound)
    assert story.write(ds, bound, known, settings, [])


@pytest.mark.parametrize(("name", "axis"), axes_of(True))
def test_every_axis_of_a_network_is_read_and_given_to_the_loop(name, axis):
    """`make` is called as a run calls it, by the names of its axes; its family is stood in for by what it was asked for."""
    known = ex.find(name)
    declared = ex.load(known)
    argument = arguments(declared)[axis]
    value = other(declared, argument)
    settings = ex.settle(known, declared, "tiny", overrides={axis: str(value)})
    assert settings.grid[axis] == [value]
    make = simulate.prepared(declared, settings, None)
    sweeping.check_axes(make, settings.grid)
    known_to_annotate = complete(declared, "tiny", settings.grid)
    assert known_to_annotate[axis] == value
    assert set(arguments(declared)) <= set(known_to_annotate)
    if name == "beyond/story_grammar" and axis not in ("arm", "rate"):
        from mcloop.laws import unsaid

        bound = bind(declared, "tiny", settings.grid)
        cell = {"arm": "replace", **({axis: value} if axis in ("count", "things") else {})}
        size = {"count": 40, "things": 20, **cell}
        shares = declared.make.__globals__["story_grammar"](size["things"]).shares
        expected = unsaid(np.array([1, 2]), p=shares, N=size["count"], regime="replace")
        np.testing.assert_array_equal(bound.law(np.array([1, 2]), **cell)["rare_lost"], expected)


def test_shapes_are_found_by_tracing():
    """A number that shapes a program is compiled one value at a time, the others all at once."""

    def make(lam, width):
        loop = mcloop.make_loop(mcloop.exact.gaussian(d=1, n=10), mcloop.regimes.augment(lam))
        return loop._replace(measure=lambda key, state: {"seen": np.zeros(width).sum() + loop.measure(key, state)["w2"]})

    kept = []

    def plans(found, *_):
        kept.extend(found)
        return hollow_sweep(found, None, False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeping, "run_plans", plans)
        ds = mcloop.sweep(make, {"lam": [0.5, 1.0], "width": [3, 4, 5]}, seeds=2, generations=2)
    assert [plan.fixed for plan in kept] == [{"width": 3}, {"width": 4}, {"width": 5}]
    assert all(list(plan.traced) == ["lam"] for plan in kept)
    assert ds["w2" if "w2" in ds else "seen"].dims[:2] == ("lam", "width")


def test_values_are_of_the_kind_of_their_axis():
    quick = arguments(ex.load(ex.find("quickstart")))
    assert read_values(quick["regime"], "augment, lam 1, corrected (gamma 1),replace") == [
        "augment, lam 1, corrected (gamma 1)",
        "replace",
    ]
    assert read_values(quick["n"], "20,30.0") == [20, 30]
    for text, words in (("20.5", "whole numbers, not '20.5'"), ("nan", "nan"), ("inf", "whole"), ("1e300", "whole")):
        with pytest.raises(InputError, match=words):
            read_values(quick["n"], text)
    arms = quick["regime"]._replace(offered=("nan", "inf", "1"))
    assert read_values(arms, "nan,inf,1") == ["nan", "inf", "1"]
    assert read_values(quick["n"]._replace(kind="switch"), "true,0") == [True, False]


def test_once_is_by_what_the_arguments_are():
    calls = []

    @once
    def family(a, b=2, **more):
        calls.append((a, b, more))
        return object()

    assert family(1) is family(a=1, b=2) is family(1.0, 2)
    assert family(1, c=3) is not family(1)
    assert len(calls) == 2
