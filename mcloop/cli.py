"""The command line: argument -> function. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg

from mcloop.errors import InputError
from mcloop.guard import guarded
from mcloop.own.shell import score

app = tyro.extras.SubcommandApp()
_DESCRIPTION = "Self-consuming generative loops; `mcloop --version` says which mcloop this is."


@app.command(name="list")
def list_configs(match: Positional[str] = "", *, verbose: Annotated[bool, arg(aliases=["-v"])] = False) -> None:
    """Show the experiments, a line each: name, minutes at --size small, title.

    Args:
        match: only names that contain this.
        verbose: also the paper, the claim, and the minutes that each size takes (tiny only shows that it runs).
    """
    from mcloop.experiment.shown import list_all

    list_all(match, verbose)


@app.command
def show(name: Positional[str]) -> None:
    """Everything that an experiment says of itself: its axes with meaning and default, sizes, minutes, what --data takes.

    Args:
        name: a name from `mcloop list`, or a config file.
    """
    from mcloop.experiment.shown import tell

    tell(name)


@app.command
def init(folder: Positional[Path]) -> None:
    """Write a loop of your own into a folder, to begin from: data, generator, measure and corrector, to be edited."""
    from mcloop.experiment.shown import begin_in

    print(begin_in(folder))


@app.command
def copy(name: Positional[str], to: Positional[Path]) -> None:
    """Copy an experiment's config, to change it and run the copy.

    Args:
        name: a name from `mcloop list`, or a config file.
        to: the new file, such as my.py.
    """
    from mcloop.experiment.shown import copy_to

    print(copy_to(name, to))


@app.command
def run(
    name: Positional[str],
    size: str = "small",
    out: Path | None = None,
    seeds: int | None = None,
    generations: int | None = None,
    seed: int = 0,
    set_: Annotated[UseAppendAction[tuple[str, ...]], arg(name="set", metavar="AXIS=V1,V2")] = (),
    share: UseAppendAction[tuple[str, ...]] = (),
    data: Path | None = None,
    synthesizer: str | None = None,
    target: str | None = None,
    ignore: UseAppendAction[tuple[str, ...]] = (),
    columns: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="KIND=NAME,NAME")] = (),
    data_dir: Path | None = None,
    resume: bool = True,
    keep_last: int | None = None,
    keep_every: int | None = None,
    cache: bool = True,
    estimate: bool = False,
    quiet: bool = False,
) -> None:
    """Run an experiment into a folder: results.nc, plots, report.html. The same command again goes on from what is there.

    Args:
        name: a name from `mcloop list`, or a config file.
        size: tiny (does it run? networks learn nothing there), small or paper.
        out: the run's folder; default runs/NAME-SIZE.
        seeds: replicas of every cell.
        generations: fits; generation 1 is the fit on real data.
        seed: root of all randomness.
        set_: replace an axis of the grid, such as --set lam=0.5,1,2; may be repeated.
        share: the synthetic share of a training set, such as 40%, in place of --set lam (40% is lam = 2/3); may be repeated.
        data: the user's own table (CSV, Parquet or NPY) or text (a file or a folder), for experiments that take one; - is
            standard input.
        synthesizer: what makes a generator, for beyond/own_synthesizer: package.module:factory or file.py:factory.
        target: a table's column to predict.
        ignore: a column to leave out; may be repeated.
        columns: what columns hold, where that is not to be found out, such as category=zip,code; may be repeated.
        data_dir: where data sets are looked for (in place of the environment variable MCLOOP_DATA).
        resume: go on from what the folder holds; --no-resume moves the old run aside and starts again.
        keep_last: of neural loops, keep the checkpoints of the last so many generations; default all.
        keep_every: and those of every so-manieth generation.
        cache: keep compiled programs in the user's cache folder, and read them there; --no-cache compiles everything.
        estimate: run nothing, and tell how long it would take on this machine (try it with --size paper).
        quiet: no progress bar, and only the folder's name at the end.
    """
    from mcloop.data.given import given
    from mcloop.experiment import asked, config

    if data_dir is not None:
        if not os.path.exists(data_dir):
            raise InputError(f"--data-dir must be a folder that exists, not {str(data_dir)!r}.")
        os.environ["MCLOOP_DATA"] = str(data_dir)
    known = config.find(name)
    overrides = asked.overrides(set_, share, synthesizer=synthesizer, target=target, ignore=ignore, columns=columns)
    declared = config.load(known)
    settings = config.settle(known, declared, size, seeds, generations, overrides, seed, None if data is None else given(data))
    folder = out or Path("runs") / f"{known.name.replace('/', '-')}-{size}"
    from mcloop.experiment.pipeline import estimated, run_into, set_aside
    from mcloop.storage.checkpoints import Keep
    from mcloop.storage.programs import keep_programs

    for field, value in (("keep-last", keep_last), ("keep-every", keep_every)):
        if value is not None and value < 1:
            raise InputError(f"--{field} must be a whole number >= 1, not {value}.")
    keep_programs(cache)
    if estimate:
        return print(estimated(known, declared, settings, folder))
    if not resume:
        set_aside(folder)
    print(run_into(folder, known, declared, settings, quiet, Keep(keep_last, keep_every)))


@app.command
def plot(folder: Positional[Path], *, config: str | None = None, data: Path | None = None) -> None:
    """Draw the figures and the report of a finished run again.

    Args:
        folder: a run's folder.
        config: a file or a name to use in place of the config that the run was made with, such as the same one, mended.
        data: where the run's data are now, should they have moved.
    """
    from mcloop.experiment.pipeline import draw_again

    print(draw_again(folder, config, data))


@app.command
def validate(
    quick: bool = False,
    full: bool = False,
    json: Path | None = None,
    out: Path | None = None,
    seed: int = 0,
    only: UseAppendAction[tuple[str, ...]] = (),
) -> None:
    """Simulate every law and compare; exits with 1 when a law fails or its wrong neighbour is not rejected.

    Args:
        quick: under a minute, less power.
        full: more power.
        json: write the table here for machines.
        out: a folder for the figure; default no figure.
        seed: root of all randomness.
        only: law ids, such as --only G1; may be repeated.
    """
    from mcloop.experiment.pipeline import validate_into

    if quick and full:
        raise InputError("validate takes --quick or --full, not both.")
    level: Literal["quick", "standard", "full"] = "quick" if quick else "full" if full else "standard"
    if not validate_into(level, seed, only, json, out):
        raise SystemExit(1)


@app.command
def plan(
    folder: Positional[Path | None] = None,
    *,
    tolerance: float,
    n: int = 1000,
    lam: float | None = None,
    share: str | None = None,
    phi: float | None = None,
    psi: float | None = None,
    spread: float | None = None,
    rare: int | None = None,
    lost: float = 0.5,
    generations: int = 5,
    m: int | None = None,
    measure: str | None = None,
    json: Path | None = None,
) -> None:
    """How much synthetic data is safe: an answer for every regime, and what a finished run measured.

    Args:
        folder: a run's folder, to compare with; optional.
        tolerance: tolerated squared error relative to a model of the real data only, >= 1; such as 1.2.
        n: real points.
        lam: the synthetic : real ratio that you have in mind.
        share: the synthetic share that you have in mind, such as 40%, in place of lam = share / (1 - share).
        phi: chance that a verifier keeps a right label.
        psi: chance that it keeps a wrong one.
        spread: factor by which the sampler multiplies the standard deviation.
        rare: how often a rare item was seen in the real data.
        lost: share of such items that may get lost.
        generations: at which errors that move, and the size of growing data sets, are given.
        m: the synthetic points a generation that you have in mind, in place of lam = m/n.
        measure: the run's error to compare; default its headline.
        json: write the plan here for machines.
    """
    from mcloop.experiment.asked import ratio
    from mcloop.planner import plan

    asked: dict[str, Any] = {"lam": ratio(lam, share), "phi": phi, "psi": psi, "spread": spread, "rare": rare, "lost": lost}
    plan.tell(tolerance, n, {**asked, "generations": generations, "m": m}, folder, measure, json)


@app.command
def translate(
    paper: str | None = None,
    set_: Annotated[UseAppendAction[tuple[str, ...]], arg(name="set", metavar="SYMBOL=VALUE")] = (),
    n: int = 1000,
    to: str | None = None,
    generations: int = 5,
) -> None:
    """A paper's symbols in points, as a call of this library, and in every other paper's symbols.

    Args:
        paper: its name, such as gillman; without one, all papers and their symbols are shown.
        set_: one of its symbols, such as --set lam=0.5; may be repeated.
        n: real points.
        to: show only this paper's symbols.
        generations: how many effective synthetic : real ratios to show.
    """
    from mcloop.experiment import asked
    from mcloop.planner import dictionary

    if paper is None:
        if set_ or to is not None:
            raise InputError("--paper must be given with --set and --to; `mcloop translate` alone shows the papers.")
        return dictionary.show_papers()
    given = dict(asked.one(text) for text in set_)
    dictionary.show(dictionary.translate(paper, given, n, generations), None if to is None else dictionary.find_paper(to))


@app.command
def certify(
    target: Positional[str],
    size: str = "small",
    set_: Annotated[UseAppendAction[tuple[str, ...]], arg(name="set", metavar="AXIS=V1,V2")] = (),
    damping: float = 0.0,
    generations: int = 6,
    seed: int = 0,
    data: Path | None = None,
) -> None:
    """The exact local rate of every loop of an experiment, and its least stable direction; or of a run's last checkpoints.

    Args:
        target: a name from `mcloop list`, a config file, or a run's folder.
        size: tiny (does it run?), small or paper; a folder knows its own.
        set_: replace an axis of the grid, such as --set lam=0.5,1,2; may be repeated.
        damping: a ridge in every refit, in units of the loss's Hessian, for networks whose Hessian is not positive.
        generations: of the two copies that are run where nothing can be differentiated.
        seed: root of all randomness.
        data: as for `mcloop run`; of a folder, where its data are now, should they have moved.
    """
    from mcloop.experiment.asked import axis
    from mcloop.experiment.certify import of_name_or_folder, show

    show(of_name_or_folder(target, size, dict(axis(text) for text in set_), damping, generations, seed, data))


app.command(score)


def main(args: list[str] | None = None) -> None:
    """Entry point: exit code 0, 1 (a law failed), 2 (bad input, one sentence), 70 (a fault), 128 + the signal that ended it."""
    said = sys.argv[1:] if args is None else args
    command = partial(app.cli, prog="mcloop", description=_DESCRIPTION, config=(OmitArgPrefixes,), args=said)
    guarded(_version if said == ["--version"] else command)


def _version() -> None:
    from importlib import metadata

    print(f"mcloop {metadata.version('mcloop')}")


if __name__ == "__main__":
    main()
