"""The report's HTML as written, without a browser: escaping, what is on it, what is said where there is nothing."""

import itertools
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from page_factory import ATTACK, bare_page, hostile_page, make_page, poisoned

import pipeline.report.html
from pipeline.report.html import render
from pipeline.report.page import Page

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
SOURCES = Path(pipeline.report.__file__).parent
WIRED = {"href", "src", "poster", "action", "data", "formaction", "srcset"}


class Element:
    """An element of a parsed page."""

    def __init__(self, tag: str, attributes: dict[str, str | None]) -> None:
        self.tag, self.attributes, self.children = tag, attributes, []

    def all(self, tag: str | None = None, **attributes: str) -> list["Element"]:
        """Elements below this one, in order; a class matches one of several."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                if tag in (None, child.tag) and all(child.has(*pair) for pair in attributes.items()):
                    found.append(child)
                found += child.all(tag, **attributes)
        return found

    def has(self, name: str, value: str) -> bool:
        held = self.attributes.get(name.rstrip("_"))
        return held is not None and (value in held.split() if name == "class_" else value == held)

    @property
    def text(self) -> str:
        parts = (child if isinstance(child, str) else child.text for child in self.children)
        return re.sub(r"\s+", " ", "".join(parts)).strip()


class Tree(HTMLParser):
    """Builds elements, and refuses a page whose tags do not close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]
        self.feed(html)
        self.close()
        assert self.open == [self.root], [element.tag for element in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        assert len(element.attributes) == len(attrs), (tag, attrs)
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def tree_of(page: Page) -> Element:
    # Plotly's own 5 MB are no concern of these tests.
    return Tree(re.sub(r"<script>/\*\*\n\* plotly\.js.*?</script>", "<script></script>", render(page), flags=re.S)).root


def structure(root: Element) -> Counter:
    return Counter((element.tag, tuple(sorted(element.attributes))) for element in root.all())


def rows_of(table: Element) -> list[list[str]]:
    return [[cell.text for cell in row.children if isinstance(cell, Element)] for row in table.all("tr")]


@pytest.fixture(scope="module")
def page() -> Page:
    return make_page(media="clips/a.mp4", media_kind="video")


@pytest.fixture(scope="module")
def root(page: Page) -> Element:
    return tree_of(page)


@pytest.mark.parametrize("media_kind", ["video", "audio", "file"])
def test_text_changes_no_tag_and_no_attribute(media_kind: str) -> None:
    page = make_page(media="clips/a.mp4", media_kind=media_kind)
    assert structure(tree_of(poisoned(page))) == structure(tree_of(page))


def test_every_text_arrives_as_it_is(page: Page) -> None:
    hostile = poisoned(page)
    root = tree_of(hostile)
    attack = re.sub(r"\s+", " ", ATTACK)
    shown = root.all("main")[0].text + root.all("footer")[0].text
    for text in ("a run", "TIB", "clip_0003", "label 0", "film", "visual", "no sound", "the file has no audio stream"):
        assert attack + text in shown, text
    for text in (
        hostile.config,
        *hostile.commands,
        hostile.made,
        hostile.clusters[0].summary,
        *hostile.headline.warnings,
    ):
        assert re.sub(r"\s+", " ", text).strip() in shown, text
    assert json.loads(root.all("script", id="data")[0].children[0]) == json.loads(json.dumps(hostile.for_script()))


def test_nothing_of_a_hostile_page_runs_or_leads_away() -> None:
    root = tree_of(hostile_page())
    assert not [name for element in root.all() for name in element.attributes if name.startswith("on")]
    assert len(root.all("script")) == 4  # the theme, the data, Plotly, the page's own
    links = [element.attributes["href"] for element in root.all("a")]
    assert links
    assert all(link.startswith("#") for link in links)


@pytest.mark.parametrize(
    "evil", ["javascript:alert(1)", "JAVASCRIPT:x", "//host/x", "/etc/passwd", "\\\\host\\x", "https://h/x"]
)
def test_a_link_to_a_file_leads_to_what_lies_beside_the_page_alone(evil: str) -> None:
    beside = tree_of(make_page(media="../clips/a%20b.flv#t=1,2", media_kind="file"))
    assert {a.attributes["href"] for a in beside.all("a") if a.text == "Open the file"} == {"../clips/a%20b.flv#t=1,2"}
    assert not [a for a in tree_of(make_page(media=evil, media_kind="file")).all("a") if a.text == "Open the file"]


@pytest.mark.parametrize("make", [make_page, bare_page, lambda: make_page(media="clip.m4a", media_kind="audio")])
def test_a_page_needs_no_other_file_than_the_clips_media(make) -> None:
    root = tree_of(make())
    urls = [value for element in root.all() for name, value in element.attributes.items() if name in WIRED]
    assert urls
    assert all(url.startswith(("#", "data:")) or url == "clip.m4a" for url in urls)
    policy = root.all("meta", **{"http-equiv": "Content-Security-Policy"})[0].attributes["content"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    allowed = {word for value in directives.values() for word in value.split()}
    assert allowed == {"'none'", "'self'", "'unsafe-inline'", "data:", "file:", "blob:"}
    assert not re.search(r"url\(|@import|@font-face", (SOURCES / "report.css").read_text())


@pytest.mark.parametrize("make", [make_page, bare_page, lambda: make_page(60, 12)])
def test_ids_are_unique_and_everything_that_names_one_finds_it(make) -> None:
    root = tree_of(make())
    ids = Counter(element.attributes["id"] for element in root.all() if "id" in element.attributes)
    assert set(ids.values()) == {1}
    named = {value for e in root.all() for name in ("for", "aria-labelledby") if (value := e.attributes.get(name))}
    named |= {href[1:] for a in root.all("a") if (href := a.attributes["href"]).startswith("#")}
    assert named
    assert named <= set(ids)
    levels = [int(element.tag[1]) for element in root.all() if re.fullmatch("h[1-6]", element.tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_headline_and_scores_are_the_runs(page: Page, root: Element) -> None:
    tiles = [tile.text for tile in root.all("dl", class_="tiles")[0].all("dd", class_="figure")]
    assert tiles == ["24", "3 of 4", "83%", "0.74", "71%"]
    assert page.headline.sentences[0] == root.all("p", class_="lead")[0].text
    shown, others = (rows_of(table) for table in root.all("table", class_="scores"))
    methods = [row[0] for row in shown[1:]]
    ours, restarts, *baselines, majority = [score.method for score in page.scores]
    assert methods == [ours, restarts, *baselines[:3], "k-means all", majority]
    assert [row[0] for row in others[1:]] == baselines[3:5]
    assert shown[1] == ["TIB", "0.820", "0.840", "0.730", "3"]
    assert shown[2] == ["TIB, each of 6 restarts alone", "0.790 ± 0.060", "0.810 ± 0.030", "0.690 ± 0.060", "2.9"]


def test_a_card_shows_what_is_known_of_its_cluster(page: Page, root: Element) -> None:
    cards = root.all("article")
    assert [card.attributes["id"] for card in cards] == ["cluster-0", "cluster-1", "cluster-2"]
    for card, cluster in zip(cards, page.clusters, strict=True):
        opened = [int(button.attributes["data-open"]) for button in card.all("button", class_="open")]
        assert opened == [*cluster.typical, *cluster.least_sure]
        assert [quote.text for quote in card.all("blockquote")] == [page.clips.transcript[row] for row in opened]
        video = card.all("video")[0].attributes
        assert (video["preload"], video["poster"]) == ("none", page.clips.thumbnail[cluster.typical[0]])
        words = [word.all("span")[0].text for word in card.all("ul", class_="words")[0].all("li")]
        assert words == [word.word for word in cluster.words]
    said = cards[0].text
    assert "Much higher than all clips (+1.2 sd; all 172)" in said
    assert "Quieter than all clips (−0.6 sd; all −21)" in said
    assert "100% agree Alone, it finds this cluster too. The other modalities add next to nothing (0.01 bits)." in said
    assert "mostly finds this cluster (else most often in 1). The other modalities add a little (0.30 bits)." in said
    assert (
        "mostly puts these clips elsewhere (else most often in 0). The other modalities add much (1.20 bits)." in said
    )
    label, n = page.clusters[0].labels[0]
    assert f"{label} {n} · {100 * n / page.clusters[0].n_labelled:.0f}%" in said


def test_a_card_without_words_of_its_own_says_so(page: Page) -> None:
    plain = replace(page, clusters=[replace(page.clusters[0], words=[]), *page.clusters[1:]])
    cards = tree_of(plain).all("article")
    assert ["None stands out." in card.text for card in cards] == [True, False, False]
    assert "Words more frequent here" not in tree_of(bare_page()).all("main")[0].text


def test_labels_against_clusters_restarts_and_accounts_are_tables(page: Page, root: Element) -> None:
    confusion = rows_of(root.all("table", class_="confusion")[0])
    assert [row[1:-1] for row in confusion[1:]] == [[str(n) for n in row] for row in page.confusion["counts"]]
    assert [row[-1] for row in confusion[1:]] == [str(sum(row)) for row in page.confusion["counts"]]
    restarts = next(rows_of(t) for t in root.all("table") if t.text.startswith("Restart"))
    assert restarts[1:] == [
        ["1", "−1.4", "0.900", "0.800"],
        ["2", "−1.2", "0.800", "0.700"],
        ["3", "–", "0.700", "0.750"],
        ["4", "−1.1", "0.600", "0.600"],
    ]
    accounts = next(rows_of(t) for t in root.all("table") if t.all("caption"))
    assert accounts == [
        ["Modality", "manifest", "done", "failed", "skipped"],
        *([name, "24", "22", "2", "0"] for name in page.modalities),
    ]
    causes = [summary.text for summary in root.all("details", class_="cause") for summary in summary.all("summary")]
    assert causes == ["no sound 2 clips (audio)", "empty transcript 1 clip (text)"]


def test_a_term_that_starts_late_has_its_own_first_value(root: Element) -> None:
    terms = next(rows_of(t) for t in root.all("table") if t.text.startswith("Term"))
    assert [row[0] for row in terms[1:]] == ["loss", "consistency", "superfluous", "complementarity"]
    assert "None" not in root.all("section", id="training")[0].text


def test_where_there_is_nothing_the_page_says_so() -> None:
    root = tree_of(bare_page())
    text = root.all("main")[0].text
    for sentence in (
        "No clip has a label, so there is nothing to score against.",
        "one network was trained: nothing to compare it with",
        "No clip has a transcript, so there are no words to compare.",
        "The clips’ media are not at hand, so nothing can be played.",
        "No training history was kept with this run.",
        "One network was trained. With several (train.restarts)",
        "Not computed: it needs the views, and two clusters in use.",
        "To have it proposed, with the curve of how steady each K is: --clusters auto.",
        "Every clip was read in every modality.",
        "no clip has it",
    ):
        assert sentence in text, sentence
    assert not root.all("table")
    assert not root.all("video") + root.all("audio") + root.all("img")
    assert "None" not in text
    assert not re.search(r"\bnan\b", text)


def test_a_proposed_number_of_clusters_is_marked_on_its_curve(page: Page) -> None:
    auto = replace(page, headline=replace(page.headline, n_clusters=3))
    chosen = [row.text for row in tree_of(auto).all("li", class_="on")]
    assert chosen == ["K = 3, proposed0.88"]


def test_media_within_the_page_are_there_once() -> None:
    media = "data:video/mp4;base64,AAAAHGZ0eXA"
    page = make_page(media=media, media_kind="video")
    root = tree_of(page)
    assert render(page).count(media) == page.headline.n_clips
    assert all("src" not in video.attributes for video in root.all("video"))


def test_style_and_script_are_small_and_never_make_html_of_data() -> None:
    script = (SOURCES / "report.js").read_text()
    assert len(script.encode()) + (SOURCES / "report.css").stat().st_size < 60_000
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", script)
