"""The report of a run as one HTML file that needs nothing else: words, figures, numbers, settings; to read, print or send."""

from __future__ import annotations

import base64
import re
import shlex
import struct
from collections.abc import Mapping
from html import escape
from pathlib import Path

from mcloop.report.profile import measured, table
from mcloop.report.story import Story, tell
from mcloop.results import measures, unplaced

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --faint: #5c5c5c; --line: #d9d9d9; --paper: #fff; --shade: #f4f4f2;
  --link: #0b57a4 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e4e2; --faint: #a3a3a0; --line: #3d3d3d; --paper: #171717; --shade: #232323; --link: #8ab8ee } }
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100% }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", sans-serif }
main { max-width: 74rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem }
header, .words { max-width: 48rem }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 1rem; text-wrap: balance }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--line) }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem }
blockquote { margin: .5rem 0; padding: .1rem 0 .1rem .9rem; border-left: 3px solid var(--line); overflow-wrap: anywhere }
p { margin: .6rem 0 }
a { color: var(--link) }
.claim { font-size: 1.1rem }
.small, figcaption, footer { color: var(--faint); font-size: .9rem }
ul { padding-left: 1.2rem; margin: .5rem 0 }
li { margin: .45rem 0; overflow-wrap: anywhere }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
pre { background: var(--shade); border-radius: 6px; padding: .7rem .9rem; overflow-x: auto }
figure { margin: 1.5rem 0 2.25rem }
.wide { overflow-x: auto }
figure img { display: block; background: #fff; border-radius: 6px; max-width: 100%; height: auto }
figcaption { margin-top: .5rem; max-width: 48rem }
table { border-collapse: collapse; font-size: .92rem }
th, td { padding: .4rem .9rem .4rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
.numbers td, .numbers th { white-space: nowrap }
.profile { font-size: .88rem }
.profile td { min-width: 7rem; max-width: 16rem; padding-right: 1.1rem }
.profile th { min-width: 6rem; padding-right: 1.1rem }
.profile .yes { font-weight: 600 }
.profile td:nth-child(2) { min-width: 14rem }
.numbers .n { text-align: right; font-variant-numeric: tabular-nums; padding-left: 1rem }
.numbers tbody th { font-weight: normal }
thead th { border-bottom: 2px solid var(--line) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.25rem; font-size: .92rem }
dt { color: var(--faint) }
dd { margin: 0; overflow-wrap: anywhere }
footer { margin-top: 3rem }
@media (max-width: 40rem) {
  main { padding: 1.25rem 1rem 3rem }
  h1 { font-size: 1.4rem }
  figure img { max-width: 44rem }
  dl { grid-template-columns: 1fr; gap: 0 }
  dd { margin-bottom: .5rem } }
@media print {
  :root { --ink: #000; --faint: #444; --line: #bbb; --paper: #fff; --shade: #f4f4f2; --link: #000 }
  main { max-width: none; padding: 0 }
  body { font-size: 10pt }
  h2 { break-after: avoid }
  figure, tr, li { break-inside: avoid }
  .wide { overflow: visible }
  figure img { max-width: 100% } }
"""
# attributes of a Dataset that have their own place
_PLACED = ("remarks", "evaluation", "estimator", "features", "split", "config", "size", "seed", "sample_count", "unsound")


def write(
    ds,
    experiment,
    caption,
    settings,
    figures: Mapping[str, bytes | Path],
    captions: Mapping[str, str] | None = None,
) -> str:
    """The report of a run as a page that holds everything it shows.

    The sentences are those of `report.write`; everything that is not the library's own text is escaped.

    Args:
        ds: the results.
        figures: name -> a PNG, or where one is.
        captions: name -> a sentence or two; they are the images' alternative texts too.
    """
    story = tell(ds, experiment, caption, settings)
    drawn = [_figure(name, png, (captions or {}).get(name, "")) for name, png in figures.items()]
    parts = [
        _header(story, command(experiment, settings)),
        _section("What was seen", _bullets(story.seen)),
        _section("Figures", "\n".join(drawn)),
        _section("Stories", _stories(story)),
        _section("Collapse profile", _profile(story)),
        _section("Numbers at the last generation", _numbers(story) + _measured(ds, story)),
        _section("Remarks", _bullets(story.remarks)),
        _section(
            "How it was measured", f'<div class="words">{"".join(f"<p>{_inline(said)}</p>" for said in story.method)}</div>'
        ),
        _section("Settings", _pairs(_settings(ds, experiment, settings))),
        _section("Versions", _pairs({k.removeprefix("version_"): v for k, v in ds.attrs.items() if k.startswith("version_")})),
        "<footer>Beside this file: results.nc (every number, by cell, seed and generation), plots, report.md.</footer>",
    ]
    title = escape(story.title)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def command(experiment, settings) -> str:
    """The shell command that repeats a run: what differs from the defaults of its size is spelled out."""
    words = ["mcloop", "run", settings.name, "--size", settings.size]
    size = experiment.sizes.get(settings.size)
    if size is not None:
        for option in ("seeds", "generations"):
            if getattr(settings, option) != getattr(size, option):
                words += [f"--{option}", str(getattr(settings, option))]
        usual = {**experiment.grid, **size.grid}
        for axis, values in settings.grid.items():
            if list(usual.get(axis, ())) != list(values):
                words += ["--set", f"{axis}={','.join(_value(v) for v in values)}"]
    words += ["--seed", str(settings.seed)] if settings.seed else []
    words += ["--data", _file(settings.data)] if settings.data else []
    return shlex.join(words)


def _file(data: str) -> str:
    """The name of the data, without where it lies: a report is sent to others."""
    return data if data.startswith(("tfds:", "hf:")) else Path(data).name or data


def _header(story: Story, how: str) -> str:
    lines = ["<header>", f"<h1>{escape(story.title)}</h1>"]
    lines += [f"<p>Data: {_inline(story.data)}</p>"] if story.data else []
    lines += [f'<p class="claim">{_inline(story.claim)}</p>'] if story.claim else []
    lines += [f'<p class="small">Paper: {_cited(_inline(story.paper))}</p>'] if story.paper else []
    lines += [
        f"<pre><code>{escape(how)}</code></pre>",
        f'<p class="small">{_inline(story.run.split("`: ", 1)[-1])}</p>',
        "</header>",
    ]
    return "\n".join(lines)


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{body}\n</section>" if body else ""


def _bullets(sentences: list[str]) -> str:
    items = "\n".join(f"<li>{_inline(said)}</li>" for said in sentences)
    return f'<ul class="words">\n{items}\n</ul>' if sentences else ""


def _figure(name: str, png: bytes | Path, caption: str) -> str:
    data = png if isinstance(png, bytes) else Path(png).read_bytes()
    # the size that the file was drawn for; known before it loads, it keeps the page still
    size = 'width="{}" height="{}" '.format(*_css_pixels(data)) if data[:4] == b"\x89PNG" else ""
    text = escape(f"{name}: {caption}" if caption else name)
    source = base64.b64encode(data).decode()
    image = f'<img {size}alt="{text}" src="data:image/png;base64,{source}">'
    return f'<figure>\n<div class="wide">{image}</div>\n<figcaption>{_inline(caption or name)}</figcaption>\n</figure>'


def _css_pixels(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG at 96 to the inch, by its own resolution (chunk pHYs, dots a metre) where it has one."""
    width, height = struct.unpack(">II", data[16:24])
    at = data.find(b"pHYs", 0, 1000)
    dots = struct.unpack(">I", data[at + 4 : at + 8])[0] if at > 0 else 0
    scale = min(1.0, 96 / (0.0254 * dots)) if dots else 1.0
    return round(scale * width), round(scale * height)


def _numbers(story: Story) -> str:
    lead = story.lead
    head = "".join(f'<th scope="col"{"" if i < lead else _RIGHT}>{escape(h)}</th>' for i, h in enumerate(story.head))
    rows = []
    for row in story.rows:
        names = "".join(f'<th scope="row">{escape(v)}</th>' for v in row[:lead])
        values = "".join(f"<td{_RIGHT}>{_signed(escape(v)) or '&ndash;'}</td>" for v in row[lead:])
        rows.append(f"<tr>{names}{values}</tr>")
    body = "\n".join(rows)
    table = f'<table class="numbers">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>'
    said = "Mean over seeds &plusmn; its standard error; &ndash; where there is no finite value."
    said += f" {story.more} more cells are in results.nc." if story.more else ""
    axes = "; ".join(f"{escape(k)}: {escape(v)}" for k, v in story.axes.items())
    return f'<div class="wide">{table}</div>\n<p class="small">{said}{f" {axes}." if axes else ""}</p>\n'


def _stories(story: Story) -> str:
    """Sample stories, where they come from above them."""
    parts = []
    for where, texts in story.stories:
        quotes = "".join(f"<blockquote>{escape(text)}</blockquote>\n" for text in texts)
        parts.append(f'<h3>{escape(where)}</h3>\n<div class="words">{quotes}</div>')
    return "\n".join(parts)


def _profile(story: Story) -> str:
    """The run by each definition of collapse, a row each."""
    if not measured(story.scores):
        return f'<p class="words">{_inline(story.scored)}</p>\n'
    head, rows = table(story.scores)
    top = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
    body = ""
    for row, score in zip(rows, measured(story.scores), strict=True):
        verdicts = ["", "", *(e.verdict for e in score.entries), ""]
        cells = "".join(f"<td{_YES if v == 'yes' else ''}>{escape(c)}</td>" for c, v in zip(row[1:], verdicts, strict=True))
        body += f'<tr><th scope="row">{escape(row[0])}</th>{cells}</tr>\n'
    made = f'<table class="profile">\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>'
    return f'<p class="words">{_inline(story.scored)}</p>\n<div class="wide">{made}</div>\n'


_YES = ' class="yes"'
_RIGHT = ' class="n"'


def _measured(ds, story: Story) -> str:
    """What the columns are."""
    rows = {}
    for name in story.head:
        if name in measures(ds):
            units = str(ds[name].attrs.get("units", ""))
            rows[name] = f"{ds[name].attrs.get('long_name', name)}{f' [{units}]' if units not in ('', '1') else ''}"
    return _pairs(rows)


def _settings(ds, experiment, settings) -> dict[str, str]:
    found = {k: _value(getattr(settings, k)) for k in ("name", "size", "seeds", "generations", "seed")}
    found |= {axis: ", ".join(_value(v) for v in values) for axis, values in settings.grid.items()}
    size = experiment.sizes.get(settings.size)
    found |= {k: _value(v) for k, v in (getattr(size, "options", None) or {}).items()}
    found |= {k: str(v) for k, v in ds.attrs.items() if k not in _PLACED and not k.startswith("version_")}
    found |= {"data": _file(settings.data)} if settings.data else {}
    return {k: unplaced(v) for k, v in found.items()}


def _pairs(rows: Mapping[str, object]) -> str:
    items = "\n".join(f"<dt>{escape(str(k))}</dt><dd>{_raised(escape(str(v)))}</dd>" for k, v in rows.items())
    return f"<dl>\n{items}\n</dl>" if rows else ""


def _value(value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _inline(text: str) -> str:
    """A sentence of a report, escaped, with its `code` and **bold**."""
    text = _signed(escape(text))
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)


def _signed(text: str) -> str:
    return text.replace(" +- ", "&nbsp;&plusmn;&nbsp;").replace("+-", "&plusmn;")


def _raised(text: str) -> str:
    return re.sub(r"\^(\d+)", r"<sup>\1</sup>", text)


def _cited(text: str) -> str:
    """arXiv numbers as links."""
    return re.sub(r"(?<![\d.])(\d{4}\.\d{4,5})(?![\d.]\d)", r'<a href="https://arxiv.org/abs/\1">\1</a>', text)
