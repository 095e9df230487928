"""Reports with pictures: a page that stands alone, strips of samples, arms against each other on the same seeds."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image
from scipy import stats

from mcloop import results
from mcloop.errors import InputError
from mcloop.experiment.config import Caption, Experiment, Settings, Size
from mcloop.report import html, pictures, plots, profile, story

ARMS = ["baseline", "corrected", "uncorrected"]
CAPTION = Caption(
    "deep/digits", Path("digits.py"), "Digits & <loops>.", "Somebody 2402.07087, Figure 3", "It <drifts> & stays.", {}
)
SETTINGS = Settings("deep/digits", "small", 4, 6, 0, {"lam": [0.5, 1.0], "arm": ARMS}, None)
VOID = {"meta", "img", "br", "hr", "link", "input"}


def fid(seeds=4, generations=6, lams=(0.5, 1.0)):
    """(lam, arm, seed, generation): a seed's luck is shared by the arms, and the uncorrected arm gets worse."""
    rng = np.random.default_rng(0)
    g = np.arange(generations)
    luck = rng.normal(0, 3, (1, 1, seeds, 1))
    drift = np.array([0.0, 0.2, 2.0])[None, :, None, None] * np.minimum(lams, 3.0)[:, None, None, None] * g
    return (20 + luck + drift + rng.normal(0, 0.2, (len(lams), 3, seeds, generations))).astype(np.float32)


def simulated(seeds=4, generations=6, lams=(0.5, 1.0), side=8, count=20):
    """What a neural run gives: scalars by cell, seed and generation, and pictures of seed 0."""
    values = fid(seeds, generations, lams)
    axes = {"lam": list(lams), "arm": ARMS, "seed": np.arange(seeds), "generation": np.arange(1, generations + 1)}
    ds = results.assemble({"fid": values, "precision": 1 / values}, axes, {"estimator": "DDPM", "sample_count": seeds})
    rng = np.random.default_rng(1)
    digit = np.zeros((count, side, side), np.uint8)
    digit[:, 2:-2, 3:5] = 255
    images = np.broadcast_to(digit, (len(lams), 3, generations, count, side, side)).copy()
    images[..., 2:-2, 2:-2] //= rng.integers(1, 4, (*images.shape[:3], 1, 1, 1), dtype=np.uint8)
    ds["samples"] = (("lam", "arm", "generation", "image", "y", "x"), images, {"picture": "images"})
    ds["real_samples"] = (("image", "y", "x"), digit, {"picture": "images", "real": 1})
    box = [-4.0, 4.0, -2.0, 2.0]
    x = rng.normal(size=(2, 2000)).clip(-1.9, 1.9)
    counts = np.histogram2d(x[1], x[0], bins=(side, side), range=[box[2:], box[:2]], density=True)[0].astype(np.float32)
    density = np.broadcast_to(counts, (len(lams), 3, generations, side, side)).copy()
    ds["plane"] = (("lam", "arm", "generation", "y", "x"), density, {"picture": "density", "box": box})
    ds["real_plane"] = (("y", "x"), counts, {"picture": "density", "box": box, "real": 1})
    return ds


def experiment(**changes):
    sizes = {size: Size(4, 6) for size in ("tiny", "small", "paper")}
    grid = {"lam": [0.5, 1.0], "arm": ARMS}
    made = Experiment(make=lambda lam, arm: None, grid=grid, sizes=sizes, measure=("fid", "precision"), worse="up", neural=True)
    return made._replace(**changes)


def drawn(figure) -> np.ndarray:
    """(height, width, 3) uint8, as saved."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=figure.dpi, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


def png(value=0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 6), value, np.uint8)).save(buffer, "png")
    return buffer.getvalue()


class Page(HTMLParser):
    """A page read strictly: every tag is closed in order; its text, its tables and what it refers to."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.links, self.images, self.cells, self.tags = [], [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        self.words = re.sub(r"\s+", " ", "".join(self.text).replace("\N{NO-BREAK SPACE}", " "))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        assert len(found) == len(attrs)
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.links += [(tag, key, found[key]) for key in ("src", "href", "srcset", "data", "action") if key in found]
        if tag == "img":
            self.images.append(found)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data.replace("\N{NO-BREAK SPACE}", " ")


def page(ds=None, made=None, figures=None, captions=None, **changes) -> tuple[Page, str]:
    ds = simulated() if ds is None else ds
    text = html.write(ds, made or experiment(), CAPTION, SETTINGS._replace(**changes), figures or {}, captions)
    return Page(text), text


def test_page_stands_alone_and_holds_every_figure(tmp_path):
    (tmp_path / "b.png").write_bytes(png(90))
    found, text = page(figures={"a": png(10), "b": tmp_path / "b.png"}, captions={"a": 'Dots & "dashes" <i>'})
    assert text.startswith("<!doctype html>")
    assert "<html lang=" in text and 'charset="utf-8"' in text and 'name="viewport"' in text
    outside = [(tag, value) for tag, _, value in found.links if not value.startswith("data:image/png;base64,")]
    assert outside == [("a", "https://arxiv.org/abs/2402.07087")]
    assert "url(" not in text and "@import" not in text and "script" not in found.tags
    assert [base64.b64decode(image["src"].split(",")[1]) for image in found.images] == [png(10), png(90)]
    assert [(image["width"], image["height"]) for image in found.images] == [("6", "4")] * 2
    assert [image["alt"] for image in found.images] == ['a: Dots & "dashes" <i>', "b"]


def test_figures_are_shown_at_the_size_they_were_drawn_for():
    figure = pictures.image_strips(simulated(lams=(1.0,), generations=2), "samples")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=figure.dpi, format="png")
    (image,) = page(figures={"samples": buffer.getvalue()})[0].images
    assert int(image["width"]) == pytest.approx(96 * figure.get_size_inches()[0], abs=2)
    assert int(image["height"]) == pytest.approx(96 * figure.get_size_inches()[1], abs=2)


def test_page_says_what_the_markdown_says():
    ds = simulated()
    ds.attrs |= {"evaluation": "Judged by 5,000 images of the test set", "remarks": ["seed 2 was resumed"]}
    ds.attrs["data"] = "/home/me/own.csv (target 'price')"
    ds["fid"].attrs |= {"features": "LeNet, 84", "sample_count": 5000, "floor": 1.25}
    told = story.tell(ds, experiment(), CAPTION, SETTINGS)
    found, _ = page(ds)
    for said in [told.title, told.claim, *told.seen, *told.method, *told.remarks]:
        assert re.sub(r"\*\*|`", "", said).replace("+-", "\N{PLUS-MINUS SIGN}") in found.words
    shown = [cell.replace("\N{PLUS-MINUS SIGN}", "+-") for cell in found.cells]
    scored, scores = profile.table(told.scores)
    assert shown == [*scored, *(v for row in scores for v in row), *told.head, *(v for row in told.rows for v in row)]
    assert "Real data themselves score 1.25 (fid)" in found.words
    assert "Data: own.csv (target 'price')" in found.words[: found.words.index(told.claim)]
    markdown = story.write(ds, experiment(), CAPTION, SETTINGS, ["curves.png"])
    assert markdown.splitlines()[2] == "*Data:* own.csv (target 'price')"
    for said in ("Judged by 5,000 images", "samples 5000", "- seed 2 was resumed", "![curves.png](plots/curves.png)"):
        assert said in markdown
    last = ds["fid"].sel(lam=1.0, arm="corrected").isel(generation=-1).values.astype(float)
    assert f"| 1 | corrected | {last.mean():.4g} +- {stats.sem(last):.1g} |" in markdown


def test_of_a_laws_docstring_a_report_takes_the_first_paragraph():
    def law(g, **where):
        """The error of
        the mean.

        Args:
            g: fits.
        """
        return {}

    (said,) = [text for text in story.tell(simulated(), experiment(law=law), CAPTION, SETTINGS).method if "Theory" in text]
    assert said == "Theory: The error of the mean."


def test_everything_is_escaped():
    ds = simulated()
    evil = "<script>alert('x')</script> & \"more\""
    ds = ds.assign_coords(arm=[evil, "b", "c"])
    ds.attrs |= {"remarks": evil, "estimator": evil, "evaluation": [evil], "version_<b>": evil}
    ds["fid"].attrs["long_name"] = evil
    made = experiment(notes=lambda ds: [f"**{evil}** and `{evil}`"], law=None)
    found, text = page(ds, made, figures={evil: png()}, captions={evil: evil}, grid={"arm": [evil]}, name=evil, data=evil)
    assert "script" not in found.tags and "b" not in found.tags
    assert "<script" not in text
    assert found.words.count("alert('x')") > 8
    assert "strong" in found.tags and "code" in found.tags


def test_command_repeats_the_run():
    assert html.command(experiment(), SETTINGS) == "mcloop run deep/digits --size small"
    other = SETTINGS._replace(seeds=9, grid={"lam": [0.5, float("inf")], "arm": ARMS}, seed=3, data="my file.csv")
    words = "mcloop run deep/digits --size small --seeds 9 --set lam=0.5,inf --seed 3 --data 'my file.csv'"
    assert html.command(experiment(), other) == words


def test_pictures_are_not_measures():
    ds = simulated()
    assert results.measures(ds) == ["fid", "precision"]
    assert results.pictures(ds) == ["samples", "plane"]
    for cell in story.cells(ds, experiment()):
        assert set(cell.mean) == {"fid", "precision"}
        assert set(cell.where) == {"lam", "arm"}
    assert len(list(story.cells(ds, experiment()))) == 6
    with pytest.raises(InputError, match="measure must name something that was measured, not samples; there is fid, precision"):
        story.tell(ds, experiment(measure=("samples",)), CAPTION, SETTINGS)


def test_arms_by_paired_t():
    ds = simulated()
    first, second = story.compare_paired(ds, "fid")
    last = ds["fid"].isel(generation=-1).sel(lam=1.0).values.astype(float)
    assert second.startswith("At the last generation fid, lam 1 is ")
    assert "lam 0.5" in first
    test = stats.ttest_rel(last[1], last[0])
    low, high = test.confidence_interval(1 - 0.02 / 6)  # three pairs in two cells share what a report may miss
    gap = last[1] - last[0]
    assert f'"corrected" minus "baseline" is {gap.mean():.4g} +- {stats.sem(gap):.1g} ({low:.3g} to {high:.3g})' in second
    assert "over 4 paired seeds" in second
    # the same numbers, but not paired: the seeds' luck hides what the pairs show
    assert test.pvalue < 0.01
    assert stats.ttest_ind(last[1], last[0]).pvalue > 0.1


def test_order_claims_only_what_is_resolved():
    ds = simulated(lams=(1.0,))
    near = np.array([[10.0, 20.0, 30.0, 40.0], [10.3, 19.8, 30.2, 39.9], [12.0, 22.1, 31.9, 42.0]])
    ds["fid"][0, :, :, -1] = near
    (said,) = story.compare_paired(ds, "fid")
    assert "ordered baseline ~ corrected < uncorrected (~: not resolved" in said
    ds["fid"][0, 1, 2, -1] = np.nan
    (said,) = story.compare_paired(ds, "fid")
    assert "ordered baseline < uncorrected;" in said and said.endswith("corrected: not finite in 1 of 4 seeds.")
    ds["fid"][0, :, :, -1] = np.inf
    assert story.compare_paired(ds, "fid")[0].count("not finite in any seed") == 3
    (said,) = story.compare_paired(simulated(lams=(1.0,)).isel(seed=[0]), "fid")
    assert said.endswith("one seed, so the order is not tested.") and "+-" not in said
    ds["fid"][0, :, :, -1] = 0
    (said,) = story.compare_paired(ds, "fid")
    assert said == "At the last generation fid is the same, seed by seed, in baseline, corrected, uncorrected: 0."
    ds["fid"][:] = np.nan
    assert story.compare_paired(ds, "fid") == []  # measured nowhere
    assert story.compare_paired(ds.isel(arm=[0]), "precision") == []
    assert any('minus "baseline"' in said for said in story.tell(simulated(), experiment(), CAPTION, SETTINGS).seen)


def cell(y, sem, seeds):
    y, sem = np.asarray(y, float), np.full(len(y), sem)
    return story.Cell({}, "a", np.arange(1, len(y) + 1), {"fid": y}, {"fid": sem}, {}, {}, {}, seeds)


@pytest.mark.parametrize(
    ("y", "sem", "said"),
    [
        ([10, 12, 11, 16], 3.0, "held within its noise"),  # 1.6 times, but the seeds scatter
        ([10, 12, 14, 16], 0.1, "is getting worse"),
        ([10, 10.2, 10.5, 12], 0.1, "is a little worse"),
        ([12, 11, 10.5, 10], 0.1, "is a little better"),
        ([20, 15, 12, 10], 0.1, "improved"),
        ([10, 10.1, 10.0, 10.1], 0.001, "held: "),
        ([-0.1, 0.0, 0.1, 0.3], 0.01, "got worse"),  # an unbiased estimate: no ratio
        ([10, 10.6, 9.4, 10.5, 9.5, 10.4, 9.6, 16 - 4], np.nan, "held within its noise"),  # one seed: its own scatter
        ([1, 2, 3, 4, 5, 6], np.nan, "is getting worse"),
        ([1, 2, np.nan, np.nan], 0.1, "diverged: fid is not finite from generation 3 on"),
        ([np.nan] * 4, 0.1, "diverged: fid is not finite from generation 1 on"),
    ],
)
def test_verdicts_know_their_noise(y, sem, said):
    assert story.verdict(cell(y, sem, 3), "fid", "up").startswith(said)


def test_image_strip_shows_each_sample_pixel_as_a_square():
    ds = simulated(lams=(1.0,), generations=3)
    figure = pictures.image_strips(ds, "samples")
    seen = drawn(figure)
    # the corners are black, so that the digits are drawn as ink: white paper, bars in black
    assert seen[0, 0].tolist() == [255, 255, 255]
    assert (seen == 0).all(-1).sum() > 1000
    words = [text.get_text() for text in figure.axes[0].texts]
    assert {"real data", "generation 1", "2", "3", *ARMS} <= set(words)
    assert "ink" not in figure.get_label() and "dark where a pixel is bright" in figure.get_label()
    photos = ds.assign(samples=ds["samples"] // 2 + 100, real_samples=ds["real_samples"] // 2 + 100)
    for name in ("samples", "real_samples"):
        photos[name].attrs |= ds[name].attrs
    assert "dark where" not in pictures.image_strips(photos, "samples").get_label()


def test_a_sheet_keeps_order_and_values():
    images = np.arange(7 * 2 * 3).reshape(7, 2, 3).astype(np.uint8)
    sheet = pictures._sheet(images, dark=False)
    assert sheet.shape == (3 * 4, 3 * 5, 3)  # 7 images as 3 x 3, a hair around each
    for i in range(7):
        at = sheet[4 * (i // 3) + 1 :, 5 * (i % 3) + 1 :][:2, :3, 0]
        np.testing.assert_array_equal(at, images[i])
    assert (sheet[9:, 6:] == 255).all()  # the places of images 8 and 9
    np.testing.assert_array_equal(pictures._sheet(images, dark=True)[1:3, 1:4, 0], 255 - images[0])


def test_density_strip_on_the_real_data_scale():
    ds = simulated(lams=(1.0,), generations=2)
    figure = pictures.density_strips(ds, "plane")
    words = {text.get_text() for text in figure.axes[0].texts}
    assert {"-4", "4", "-2", "2", "real data", "generation 1"} <= words
    bar = figure.axes[1]
    assert bar.get_ylim()[1] == pytest.approx(float(ds["real_plane"].max()))
    assert len(bar.collections) + len(bar.patches) < 3  # no arrow: nothing is higher than the real data
    # y points upwards: a bright row at y1 is the top of its panel
    rows = np.zeros((8, 8), np.float32)
    rows[-1] = float(ds["real_plane"].max())
    ds["plane"][:] = rows
    seen = drawn(pictures.density_strips(ds, "plane")).astype(int)
    bright = (seen[..., 0] > 240) & (seen[..., 2] < 120)
    dark = (seen[..., 0] < 10) & (seen[..., 2] > 60)
    column = np.flatnonzero((dark.sum(0) > 300) & (bright.sum(0) > 50))[-1]  # of the last panel, left of the colour bar
    assert bright[:, column].argmax() < dark[:, column].argmax()


def test_what_diverged_is_grey_and_said():
    ds = simulated(lams=(1.0,))
    ds["plane"][0, 2, 3:] = np.nan
    ds["samples"][0, 2, 3:] = 0  # what a driver leaves where nothing was drawn
    for name in ("plane", "samples"):
        figure = pictures.strips(ds, name)
        grey = [text for text in figure.axes[0].texts if text.get_text() == "no samples"]
        assert len(grey) == 3
        assert figure.get_label().endswith("Grey: no finite samples.")
        drawn(figure)
    ds["plane"][:], ds["samples"][:] = np.nan, 0
    for name in ("plane", "samples"):
        drawn(pictures.strips(ds.drop_vars(f"real_{name}"), name))


@pytest.mark.parametrize("name", ["samples", "plane"])
def test_one_generation_and_many_cells(name):
    once = pictures.strips(simulated(generations=1, count=3), name)
    drawn(once)
    assert "generation 1" in {text.get_text() for text in once.axes[0].texts}
    lams = (0.0, 0.1, 0.5, 1.0, 2.0, np.inf)
    many = pictures.strips(simulated(generations=30, lams=lams), name)
    assert "9 of 18 cells, evenly chosen" in many.get_label()
    words = [text.get_text().replace("\n", " ") for text in many.axes[0].texts]
    # numbers are thinned and keep both ends; the arms, which are to be compared, all stay
    assert [w for w in words if w.startswith("lam")] == [f"lam {lam}, {arm}" for lam in ("0", "0.5", "inf") for arm in ARMS]
    assert {"generation 1", "7", "13", "18", "24", "30"} <= set(words)


def test_curves_of_many_cells_are_split_by_arm_and_show_the_floor():
    ds = simulated(lams=(0.0, 0.1, 0.5, 1.0, 2.0, np.inf))
    ds["fid"].attrs["floor"] = 1.5
    ds["fid"][5, 2, :, 3:] = np.nan
    figure = plots.curves(ds, experiment(), "many")
    assert [ax.get_title(loc="left") for ax in figure.axes] == ARMS * 2
    assert len({ax.get_ylim() for ax in figure.axes[:3]}) == 1
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words[:6] == ["lam 0", "lam 0.1", "lam 0.5", "lam 1", "lam 2", "lam inf"]
    assert words[6:] == ["real data themselves", "not finite after this", "5-95 % of seeds"]
    colours = {line.get_color() for line in figure.axes[0].get_lines() if line.get_label().startswith("lam")}
    assert len(colours) == 6
    level = [line for line in figure.axes[0].get_lines() if line.get_label() == "real data themselves"]
    assert list(level[0].get_ydata()) == [1.5, 1.5]
    assert "real data themselves" not in {line.get_label() for line in figure.axes[3].get_lines()}
    drawn(figure)


def test_the_spread_of_the_floor_is_a_band_around_it():
    """Of the draws of real data themselves; on an axis of logarithms, too, where its lower edge is below 0."""
    for floor, spread, scale in ((1.5, 0.2, "linear"), (0.01, 0.02, "log")):
        ds = simulated(lams=(0.5,))
        ds["fid"].attrs |= {"floor": floor, "floor_spread": spread}
        figure = plots.curves(ds, experiment(measure=("fid",)), "one")
        (ax,) = figure.axes
        (band,) = [patch for patch in ax.patches if patch.get_gid() == "real data, +- one sd"]
        assert np.allclose([band.get_y(), band.get_y() + band.get_height()], [floor - spread, floor + spread])
        assert ax.get_yscale() == scale
        assert "real data, +- one sd" in [text.get_text() for text in figure.legends[0].get_texts()]
        assert "standard deviation of one such score" in figure.get_label()
        drawn(figure)
    told = story.tell(ds, experiment(measure=("fid",)), CAPTION, SETTINGS)
    assert "Real data themselves score: fid 0.01 +- 0.02 (standard deviation)." in told.method
    assert "Real data themselves score 0.01 +- 0.02 (standard deviation) (fid)." in told.seen


def test_whatever_letters_a_name_has_are_drawn():
    """Under warnings as errors: a dollar sign, an underscore that starts a name, a backslash, letters that no font may have."""
    arms = ["cost $x_1$", "_under \\alpha", "caf\u00e9 \U000e0041 \x07 $"]
    ds = simulated(lams=(1.0,)).assign_coords(arm=arms)
    for figure in plots.draw(ds, experiment(), "One $ only, and _x").values():
        drawn(figure)
    words = [text.get_text() for text in plots.curves(ds, experiment(), "t").legends[0].get_texts()]
    assert words[:2] == arms[:2] and words[2] == "caf\u00e9 [U+E0041]   $"
    assert "&#124;" in story.write(ds.assign_coords(arm=["a|b", "c", "d\ne"]), experiment(), CAPTION, SETTINGS, [])


def test_axes_show_what_curves_do_and_constants_are_not_drawn():
    ds = simulated(lams=(1.0,))
    ds["fid"][:] = 90 + ds["fid"] / 20
    ds["precision"][:] = 0.8
    figure = plots.curves(ds, experiment(), "t")
    (ax,) = figure.axes
    low, high = ax.get_ylim()
    assert 85 < low < 91.5 and high < 93
    assert "Not drawn" in figure.get_label() and "precision (0.8)" in figure.get_label()
    for lams in ((1.0,), (0.0, 0.1, 0.5, 1.0, 2.0, np.inf)):
        assert plots.curves(simulated(lams=lams), experiment(), "t").get_size_inches()[0] <= 1160 / 96  # read in its own size


def test_no_path_and_no_story_of_the_user_is_in_a_report():
    ds = simulated(lams=(1.0,))
    ds.attrs |= {"remarks": ["read /home/me/secret/table.csv: 60 rows"], "source": "C:\\Users\\me\\table.csv"}
    ds["told"] = (("lam", "arm", "generation", "story", "byte"), np.full((1, 3, 6, 1, 4), ord("a"), np.uint8), {"text": 1})
    ds["real_told"] = (("story", "byte"), np.full((1, 4), ord("b"), np.uint8), {"text": 0})
    settings = SETTINGS._replace(data="/home/me/secret/table.csv")
    pages = [html.write(ds, experiment(), CAPTION, settings, {}), story.write(ds, experiment(), CAPTION, settings, [])]
    for text in pages:
        assert "secret" not in text and "Users" not in text and "bbbb" not in text
        assert "read table.csv: 60 rows" in text and "aaaa" in text
    assert "bbbb" in story.write(ds, experiment(), CAPTION, SETTINGS, [])


def test_cells_share_their_seeds_and_what_was_not_measured_is_one_sentence():
    markdown = story.write(simulated(), experiment(), CAPTION, SETTINGS, [])
    assert markdown.count("share their 4 seeds") == 1
    assert "Not measured here: " in markdown and "| variance to zero" not in markdown


def test_a_run_draws_its_pictures_again_from_its_file(tmp_path):
    """What NetCDF changes (lists of one string, arrays for lists) changes no report."""
    ds = simulated()
    ds.attrs |= {"remarks": ["seed 2 was resumed"], "evaluation": "Judged by 50 images"}
    ds.to_netcdf(tmp_path / "results.nc", engine="h5netcdf")
    again = xr.load_dataset(tmp_path / "results.nc", engine="h5netcdf")
    assert list(plots.draw(again, experiment(), "t")) == ["curves", "samples", "plane"]
    assert page(again)[1] == page(ds)[1]
