"""An open page of a report in a headless Chromium, and what tests ask of it."""

import time
from collections.abc import Callable
from typing import Any

OWN = ("file:", "data:", "blob:")
MANY = 6000  # more than SVG is customarily thought good for
# Plotly keeps what it draws on the element: the dots of the clips that match are its second trace.
DOTS = "document.getElementById('map-plot').data[1]"
ROWS = f"{DOTS}.customdata"
FOCUSED = "document.activeElement"
OPEN_ALL = "document.querySelectorAll('details').forEach((details) => { details.open = true; })"
GROUND = "(element) => getComputedStyle(element || document.body).backgroundColor"

# Pixel of a clip's dot in the window.
DOT = """(row) => {
  const plot = document.getElementById("map-plot"), { xaxis, yaxis } = plot._fullLayout, trace = plot.data[1];
  const i = trace.customdata.indexOf(row), box = plot.getBoundingClientRect();
  return [box.left + xaxis._offset + xaxis.l2p(trace.x[i]), box.top + yaxis._offset + yaxis.l2p(trace.y[i])];
}"""


class Visit:
    """An open page and what it said and asked for."""

    def __init__(self, tab: Any) -> None:
        self.tab, self.said, self.asked = tab, [], []
        tab.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        tab.on("dialog", lambda dialog: (self.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.context.on("request", lambda request: self.asked.append(request.url))

    @property
    def strangers(self) -> list[str]:
        return [url for url in self.asked if not url.startswith(OWN)]

    def get(self, expression: str, argument: Any = None) -> Any:
        return self.tab.evaluate(expression, argument)

    def see(self, selector: str) -> Any:
        return self.tab.locator(selector)

    def settle(self, expression: str, expected: Any = True) -> None:
        """Waits until an expression has a value: by asking, as the page's policy has no room for a watcher's eval."""
        until = time.monotonic() + 10
        while (found := self.get(expression)) != expected:
            assert time.monotonic() < until, (expression, found)
            time.sleep(0.02)

    def is_open(self, clip_id: str) -> bool:
        return self.see("dialog[open] #clip-name").text_content() == clip_id

    def fits(self, width: int) -> None:
        """Nothing lies beside the window, when it has this width and the plots have followed."""
        self.tab.set_viewport_size({"width": width, "height": 900})
        self.settle("document.documentElement.scrollWidth <= innerWidth")


Open = Callable[..., Visit]
