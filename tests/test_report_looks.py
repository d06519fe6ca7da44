"""How the report looks in a headless Chromium: its colours and contrast, both themes, on paper, enlarged."""

import re

import numpy as np
import pytest
from browser_visit import DOTS, FOCUSED, GROUND, OPEN_ALL, ROWS, Open

pytest_plugins = ("browser_fixtures",)
pytestmark = pytest.mark.browser

# [contrast, colour, background, text] of each text that can be seen, as WCAG 2 defines it; colours read back from a
# canvas, whatever their notation, and laid over what is behind them. A legend's symbol is no text.
CONTRASTS = """() => {
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    context.clearRect(0, 0, 1, 1); context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, bottom) => [0, 1, 2].map((i) => top[i] * top[3] + bottom[i] * (1 - top[3])).concat(1);
  const behind = (element) => {
    if (!element) return [255, 255, 255, 1];
    const own = rgba(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own : over(own, behind(element.parentElement));
  };
  const luminance = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
    const v = c[i] / 255;
    return sum + weight * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  }, 0);
  const isText = (e) => !e.matches(":disabled, option, script, noscript, .symbol")
    && e.checkVisibility({ opacityProperty: true, visibilityProperty: true })
    && (e.matches("select, input[type=search]") || [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
  return [...document.body.querySelectorAll("*")].filter(isText).map((e) => {
    const label = e.closest(".annotation-text-g");
    const colour = getComputedStyle(e)[e instanceof SVGElement ? "fill" : "color"];
    const ground = label ? rgba(getComputedStyle(label.querySelector("rect")).fill) : behind(e);
    const [a, b] = [luminance(over(rgba(colour), ground)), luminance(ground)];
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), colour, ground.join(), e.textContent.slice(0, 40)];
  });
}"""

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # of linear RGB
# Linear RGB as seen with the cones of one kind missing: Machado, Oliveira & Fernandes 2009, severity 1.
SEEN_BY = {
    "all": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
# Linear sRGB -> cones, and their cube roots -> OKLab: Ottosson 2020.
CONES = [[0.41222147, 0.53633254, 0.05144599], [0.2119035, 0.68069955, 0.10739696], [0.08830246, 0.28171884, 0.6299787]]
LAB = [
    [0.21045426, 0.79361779, -0.00407205],
    [1.9779985, -2.42859221, 0.45059371],
    [0.02590404, 0.78277177, -0.80867577],
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_cluster_has_one_colour_everywhere_which_colour_blind_eyes_tell_apart(visit: Open, scheme: str) -> None:
    page = visit("dozen", color_scheme=scheme)
    badges = [page.see(f"#cluster-{k} .card-title .badge").evaluate(GROUND) for k in range(12)]
    marker, rows = page.get(f"{DOTS}.marker"), page.get(ROWS)
    looks = {(row % 12, marker["color"][i], marker["symbol"][i]) for i, row in enumerate(rows)}
    assert {(k, colour) for k, colour, _ in looks} == set(enumerate(badges))
    assert len({look[1:] for look in looks}) == 12  # those of one colour have dots of two shapes

    rgb, surface = _linear_rgb(badges[:10]), _linear_rgb([page.see("#cluster-0").evaluate(GROUND)])
    luminance, ground = (colours @ LUMINANCE for colours in (rgb, surface))
    assert (np.maximum(luminance, ground) + 0.05 >= 3 * (np.minimum(luminance, ground) + 0.05)).all()
    for eyes, seen in SEEN_BY.items():
        lab = _oklab(np.clip(rgb @ np.array(seen).T, 0, 1))
        distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[np.triu_indices(10, 1)]
        assert distance.min() > 0.05, eyes  # 2.5 times what can just be told apart


def test_the_theme_follows_the_system_until_one_is_chosen_and_is_kept(visit: Open) -> None:
    page = visit("small", color_scheme="dark")
    dark, dot = page.get(GROUND), page.get(f"{DOTS}.marker.color[0]")
    page.tab.get_by_role("button", name="Light theme").click()
    light = page.get(GROUND)
    assert light != dark
    assert page.get(f"{DOTS}.marker.color[0]") != dot
    page.tab.reload()
    assert page.get(GROUND) == light
    page.tab.get_by_role("button", name="Dark theme").click()
    assert page.get(GROUND) == dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(visit: Open, scheme: str) -> None:
    page = visit("dozen", color_scheme=scheme)
    page.get(OPEN_ALL)
    texts = page.get(CONTRASTS)
    page.see(".gallery .item").first.click()
    texts += page.get(CONTRASTS)
    assert len(texts) > 1000
    assert {"Clusters", "Least sure", "no sound", "go to its card", "11"} <= {text for *_, text in texts}
    assert not [text for text in texts if text[0] < 4.5]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_focus_can_be_seen_on_the_maps_own_buttons(visit: Open, scheme: str) -> None:
    page = visit("small", color_scheme=scheme)
    page.see("#least").focus()
    page.tab.keyboard.press("Tab")
    outline = "(({ outlineStyle, outlineWidth, outlineColor }) => [outlineStyle, outlineWidth, outlineColor])"
    style, width, colour = page.get(f"{outline}(getComputedStyle({FOCUSED}))")
    assert page.get(f"{FOCUSED}.className").startswith("modebar-btn")
    assert (style, width) == ("solid", "3px")
    seen, ground = (float(_linear_rgb([rgb])[0] @ LUMINANCE) for rgb in (colour, page.see("#filters").evaluate(GROUND)))
    assert (max(seen, ground) + 0.05) / (min(seen, ground) + 0.05) >= 3


def test_a_player_is_whole_in_a_low_window(visit: Open) -> None:
    page = visit("small")
    page.tab.set_viewport_size({"width": 640, "height": 450})  # of 1280 x 900, enlarged to 200 %
    page.see(".gallery .item").first.click()
    bottom = "document.querySelector('%s').getBoundingClientRect().bottom"
    assert page.get(f"{bottom % 'dialog video'} <= {bottom % 'dialog'}")


def test_clusters_keep_their_colours_where_the_system_has_its_own(visit: Open) -> None:
    page = visit("small", forced_colors="active")
    assert len(set(page.get(f"{DOTS}.marker.color"))) == 3
    dots = page.see("#map-plot .points path").evaluate_all("(dots) => dots.map((dot) => getComputedStyle(dot).fill)")
    assert len(set(dots)) == 3


def test_the_figures_leave_no_hole(visit: Open) -> None:
    page = visit("small", width=800)  # five of them, three a row
    assert page.see(".tiles").evaluate(GROUND) == page.see("#filters").evaluate(GROUND)


def test_on_paper_and_for_those_whom_motion_disturbs(visit: Open) -> None:
    page = visit("small", reduced_motion="reduce", color_scheme="dark")
    assert page.get("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    assert page.see(".item").first.evaluate("(element) => getComputedStyle(element).transitionDuration") == "0s"
    page.tab.emulate_media(media="print")
    assert not [element for element in page.see(".top, .needs-js").all() if element.is_visible()]
    assert page.see("article").first.is_visible()
    assert page.see(".measures").is_visible()  # what is folded on the screen is on paper
    assert page.get(GROUND) == "rgb(255, 255, 255)"


def _linear_rgb(colours: list[str]) -> np.ndarray:
    """(n, 3) of CSS colours `rgb(r, g, b)`."""
    srgb = np.array([re.findall(r"\d+", colour)[:3] for colour in colours], dtype=float) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _oklab(rgb: np.ndarray) -> np.ndarray:
    """(n, 3), where a distance of 0.02 can just be seen."""
    return np.cbrt(rgb @ np.array(CONES).T) @ np.array(LAB).T
