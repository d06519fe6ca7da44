"""The page of a run, written beside its results: report.html.j2 lays it out, report.js draws it with Plotly."""

import json
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from pipeline.config import Settings
from pipeline.files import write_atomic
from pipeline.report.contents import gather
from pipeline.report.page import Page

_HERE = Path(__file__).parent
# In <script type="application/json"> no character ends the element or opens a comment; in JSON all of them are \\u....
_UNSAFE = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def report(settings: Settings, *, embed_media: bool = False) -> Path:
    """Writes report.html beside the results of a run.

    Args:
        embed_media: put small copies of the clips into the page, so that it can be sent to somebody alone.
    Returns:
        its path.
    Raises:
        PipelineError: there is no finished run in the results folder, or the page cannot be written.
    """
    path = settings.results / "report.html"
    html = render(gather(settings, embed_media=embed_media))
    write_atomic(path, html)
    return path


def render(page: Page) -> str:
    """The page's HTML. Its text is escaped, whatever the clips are called; so is the JSON that its script reads."""
    environment = Environment(loader=FileSystemLoader(_HERE), autoescape=True)
    return environment.get_template("report.html.j2").render(
        page=page,
        script=script_json(page),
        plotly=Markup(get_plotlyjs()),  # noqa: S704
        css=_own("report.css"),
        js=_own("report.js"),
    )


def script_json(page: Page) -> Markup:
    """What the page's script draws from, as JSON that is safe within a script element.

    Raises:
        ValueError: a value is NaN or infinite, which JSON does not have.
    """
    text = json.dumps(page.for_script(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(_UNSAFE))  # noqa: S704


def _own(name: str) -> Markup:
    return Markup((_HERE / name).read_text(encoding="utf-8"))  # noqa: S704
