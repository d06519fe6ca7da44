/* Draws what the page's JSON holds: the map, its list and filters, a clip's dialog, the charts; and the theme.

   Everything from the data reaches the page as text and attributes, never as HTML; Plotly gets no text of the data at
   all, only numbers. */
"use strict";

(() => {
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const CLIPS = DATA.clips;
  const N = CLIPS.clip_id.length;
  const LABELS = DATA.confusion ? DATA.confusion.labels : [];
  const CLUSTERS = [...new Set(CLIPS.cluster)].sort((a, b) => a - b);
  const TEXTS = CLIPS.clip_id.map((id, row) => `${id}\n${CLIPS.transcript[row]}`.toLowerCase());
  const SHAPES = ["circle", "square", "diamond", "triangle-up"];
  const SIGNS = ["●", "■", "◆", "▲"];
  const PAGE_OF_LIST = 60; // clips added to the list at a time
  const HAS_PICTURES = CLIPS.thumbnail.some(Boolean);
  const $ = (id) => document.getElementById(id);

  /* A new element; children are elements or text. */
  function el(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  const percent = (share) => `${Math.round(100 * share)}%`;
  const count = (n) => n.toLocaleString("en");
  const sureness = (row) => `${percent(CLIPS.confidence[row])} sure`;
  const unseen = (text) => el("span", { class: "visually-hidden" }, text);
  const sign = (k) => SIGNS[Math.floor(k / 10) % 4];
  const badge = (k) =>
    el("span", { class: `badge k${k % 10}` },
      k < 10 ? null : el("span", { "aria-hidden": "true" }, sign(k)),
      String(k));

  /* ---- Theme ---- */
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const chosenTheme = () => document.documentElement.dataset.theme;
  const isDark = () => (chosenTheme() ? chosenTheme() === "dark" : systemDark.matches);

  function showTheme() {
    $("theme").textContent = isDark() ? "Light theme" : "Dark theme";
    drawAll();
  }

  $("theme").addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem("report-theme", theme);
    } catch { /* a browser that keeps nothing for files: the theme holds until the page is closed */ }
    showTheme();
  });
  systemDark.addEventListener("change", showTheme);

  /* A colour's name in report.css as Plotly understands it, in the theme of now. */
  const probe = document.body.appendChild(el("span", { class: "probe", hidden: "" }));
  function colour(name) {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  }

  /* ---- What is shown: filters, and the rows that match them ---- */
  let shown = []; // rows, in the list's order

  function matches() {
    const words = $("query").value.toLowerCase().split(/\s+/).filter(Boolean);
    const cluster = $("cluster").value;
    const label = $("label") && $("label").value !== "" ? LABELS[$("label").value] : null;
    const least = Number($("least").value) / 100;
    const rows = [];
    for (let row = 0; row < N; row++) {
      if (cluster !== "" && CLIPS.cluster[row] !== Number(cluster)) continue;
      if (label !== null && CLIPS.label[row] !== label) continue;
      if (CLIPS.confidence[row] < least) continue;
      if (words.every((word) => TEXTS[row].includes(word))) rows.push(row);
    }
    const direction = { surest: -1, unsure: 1 }[$("order").value];
    return direction ? rows.sort((a, b) => direction * (CLIPS.confidence[a] - CLIPS.confidence[b])) : rows;
  }

  function update() {
    shown = matches();
    $("least-shown").textContent = `${$("least").value}%`;
    const all = `${count(N)} ${N === 1 ? "clip" : "clips"}`;
    $("count").textContent = shown.length === N ? all : `${count(shown.length)} of ${all} match`;
    $("show-all").hidden = shown.length === N;
    $("gallery").replaceChildren();
    $("gallery").scrollTop = 0;
    extendList();
    drawMap();
  }

  let waiting = 0;
  function soon() {
    clearTimeout(waiting);
    waiting = setTimeout(update, 120);
  }

  /* ---- The list: the map's clips for those who do not point ---- */
  function extendList() {
    const list = $("gallery");
    if (list.lastChild && "more" in list.lastChild.dataset) list.lastChild.remove();
    const from = list.childElementCount;
    list.append(...shown.slice(from, from + PAGE_OF_LIST).map(listItem));
    if (shown.length > from + PAGE_OF_LIST) {
      const button = el("button", { type: "button", class: "button" }, `Show more of ${count(shown.length)}`);
      button.addEventListener("click", () => {
        extendList();
        list.children[from + PAGE_OF_LIST].firstChild.focus();
      });
      list.append(el("li", { "data-more": "" }, button));
    }
  }

  function listItem(row) {
    const source = CLIPS.thumbnail[row];
    const picture = source ? el("img", { src: source, alt: "", decoding: "async" }) : el("span", { class: "blank" });
    return el("li", {}, el("button", { type: "button", class: HAS_PICTURES ? "item" : "item bare", "data-open": row },
      HAS_PICTURES ? picture : null,
      el("span", {},
        el("span", { class: "id", dir: "auto" }, CLIPS.clip_id[row]),
        el("span", { class: "facts" }, unseen("Cluster "), badge(CLIPS.cluster[row]), sureness(row)),
        el("span", { class: "clamp", dir: "auto" }, CLIPS.transcript[row]))));
  }

  /* ---- The map ---- */
  const BUTTONS = ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"];
  const CLEAR = "rgba(0,0,0,0)";

  function baseLayout() {
    return {
      paper_bgcolor: CLEAR,
      plot_bgcolor: CLEAR,
      showlegend: false,
      margin: { l: 8, r: 8, t: 8, b: 8 },
      hovermode: "closest",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("muted") },
      modebar: { bgcolor: CLEAR, color: colour("muted"), activecolor: colour("accent") },
      hoverlabel: { bgcolor: colour("surface"), bordercolor: colour("edge"), font: { color: colour("ink") } },
    };
  }

  const leastOf = (by) => (by === "agreement" ? 0 : CLIPS.confidence.reduce((a, b) => Math.min(a, b), 1));

  /* Colour and shape of each row's dot, as the reader chose. */
  function paint(rows) {
    const by = $("colour").value;
    if (by === "confidence" || by === "agreement") {
      const colorscale = [[0, colour("low")], [0.5, colour("middle")], [1, colour("high")]];
      return { color: rows.map((row) => CLIPS[by][row]), colorscale, cmin: leastOf(by), cmax: 1, symbol: "circle" };
    }
    const palette = Array.from({ length: 10 }, (_, i) => colour(`k${i}`));
    const unknown = colour("edge");
    const index = by === "cluster" ? CLIPS.cluster : CLIPS.label.map((label) => LABELS.indexOf(label)); // -1: no label
    return {
      color: rows.map((row) => (index[row] < 0 ? unknown : palette[index[row] % 10])),
      symbol: rows.map((row) => SHAPES[Math.floor(Math.max(index[row], 0) / 10) % 4]),
    };
  }

  /* The clusters' numbers, each at the median of its clips. */
  function numbers(map, rows) {
    if ($("colour").value !== "cluster") return [];
    const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
    return CLUSTERS.map((cluster) => [cluster, rows.filter((row) => CLIPS.cluster[row] === cluster)])
      .filter(([, own]) => own.length)
      .map(([cluster, own]) => ({
        x: median(own.map((row) => map.x[row])),
        y: median(own.map((row) => map.y[row])),
        text: `<b>${cluster}</b>`,
        showarrow: false,
        bgcolor: colour(`k${cluster % 10}`),
        bordercolor: colour("surface"),
        borderwidth: 1.5,
        borderpad: 3,
        font: { color: colour(`on${cluster % 10}`), size: 12 },
      }));
  }

  function drawMap() {
    const map = DATA.maps[$("which-map").value];
    const kept = new Set(shown);
    const others = [];
    for (let row = 0; row < N; row++) if (!kept.has(row)) others.push(row);
    const rows = [...shown].sort((a, b) => a - b);
    const { clientWidth, clientHeight } = $("map-plot");
    const size = Math.min(14, Math.max(6, 0.14 * Math.sqrt((clientWidth * clientHeight) / N)));
    const dots = (of, more) => ({
      type: "scatter", // SVG, also for many: Plotly's WebGL makes functions of text, which the page's policy forbids
      mode: "markers",
      x: of.map((row) => map.x[row]),
      y: of.map((row) => map.y[row]),
      customdata: of,
      ...more,
    });
    const axis = { showgrid: false, zeroline: false, showticklabels: false, ticks: "" };
    const outline = { width: 0.75, color: colour("surface") };
    const traces = [
      dots(others, { hoverinfo: "skip", marker: { size: size - 2, color: colour("line") } }),
      dots(rows, { hoverinfo: "none", marker: { size, line: outline, ...paint(rows) } }),
    ];
    const layout = {
      ...baseLayout(),
      xaxis: axis,
      yaxis: { ...axis, scaleanchor: "x" },
      annotations: numbers(map, rows),
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom", // where fingers drag, they scroll the page
      uirevision: map.name,
    };
    Plotly.react("map-plot", traces, layout, { displaylogo: false, responsive: true, modeBarButtons: [BUTTONS] });
    $("map-note").textContent = map.note;
    $("hover").hidden = true;
    drawLegend();
  }

  function drawLegend() {
    const by = $("colour").value;
    if (by === "cluster" || by === "label") drawKeys(by);
    else {
      const least = `least sure, ${percent(leastOf(by))}`;
      const [low, high] = by === "agreement" ? ["none", "all agree"] : [least, "100%, sure"];
      const ramp = el("span", { class: "ramp", "aria-hidden": "true" });
      $("legend").replaceChildren(el("span", {}, low), ramp, el("span", {}, high));
    }
  }

  /* A button for each cluster or label, that shows it alone, or all again. */
  function drawKeys(by) {
    const select = $(by);
    const entries = by === "cluster" ? CLUSTERS.map((k) => [k, String(k)]) : LABELS.map((label, i) => [i, label]);
    const buttons = entries.map(([index, name]) => {
      const isOn = select.value === String(index);
      const button = el("button", { type: "button", "aria-pressed": isOn },
        el("span", { class: `symbol k${index % 10}`, "aria-hidden": "true" }, sign(index)),
        by === "cluster" ? unseen("Cluster ") : null,
        el("span", { dir: "auto" }, name));
      button.addEventListener("click", () => {
        select.value = isOn ? "" : String(index);
        const place = [...$("legend").children].indexOf(button);
        update();
        $("legend").children[place].focus();
      });
      return button;
    });
    const none = el("span", {}, el("span", { class: "symbol k-none", "aria-hidden": "true" }, "●"), " no label");
    $("legend").replaceChildren(...buttons, ...(by === "label" && CLIPS.label.includes(null) ? [none] : []));
  }

  function showHover(event) {
    const row = event.points[0].customdata;
    const words = CLIPS.transcript[row];
    $("hover").replaceChildren(
      ...(CLIPS.thumbnail[row] ? [el("img", { src: CLIPS.thumbnail[row], alt: "" })] : []),
      el("strong", { dir: "auto" }, CLIPS.clip_id[row]),
      el("p", { class: "muted" }, badge(CLIPS.cluster[row]), sureness(row)),
      el("div", { dir: "auto" }, words.length > 90 ? `${words.slice(0, 90)}…` : words));
    $("hover").hidden = false;
    const box = $("hover").parentElement.getBoundingClientRect();
    const [x, y] = [event.event.clientX - box.left, event.event.clientY - box.top];
    const { offsetWidth: width, offsetHeight: height } = $("hover");
    $("hover").style.left = `${x + 18 + width > box.width ? Math.max(0, x - width - 18) : x + 18}px`;
    $("hover").style.top = `${Math.max(0, Math.min(y - 20, box.height - height - 8))}px`;
  }

  function listenToMap() {
    $("map-plot").on("plotly_hover", showHover);
    $("map-plot").on("plotly_unhover", () => ($("hover").hidden = true));
    $("map-plot").on("plotly_click", (event) => {
      $("hover").hidden = true;
      openClip(event.points[0].customdata);
    });
    const form = $("filters");
    form.addEventListener("input", soon);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(update));
    $("show-all").addEventListener("click", () => $("order").focus()); // what is beside it: it goes itself
  }

  function showCluster(cluster) {
    $("filters").reset();
    $("cluster").value = String(cluster);
    update();
    $("map").scrollIntoView();
    $("cluster").focus({ preventScroll: true });
  }

  /* ---- Media ---- */
  const isBeside = (url) => !/^[/\\]/.test(url) && !url.split("/")[0].includes(":");
  const isMedia = (url) => isBeside(url) || /^data:(video|audio)\//.test(url);

  function mediaElement(row) {
    const [url, kind] = [CLIPS.media[row], CLIPS.media_kind[row]];
    if ((kind === "video" || kind === "audio") && isMedia(url)) {
      const poster = (kind === "video" && CLIPS.thumbnail[row]) || null;
      const name = CLIPS.clip_id[row];
      return el(kind, { controls: "", preload: "metadata", playsinline: "", src: url, poster, "aria-label": name });
    }
    return url && isBeside(url) ? el("a", { href: url }, "Open the file") : null;
  }

  function play(media) {
    const url = CLIPS.media[media.dataset.media];
    if (!media.hasAttribute("src") && isMedia(url)) media.src = url;
    media.play().catch(() => { /* its error event says so on the page */ });
  }

  /* A cover with one button for each video in a card, in place of small native controls; sources from the data. */
  function prepareMedia() {
    for (const video of document.querySelectorAll(".player video")) {
      video.controls = false;
      const id = CLIPS.clip_id[video.dataset.media];
      const button = el("button", { type: "button", class: "play", "aria-label": `Play ${id}` });
      button.addEventListener("click", () => {
        button.remove();
        video.controls = true;
        video.parentElement.classList.add("playing");
        video.focus();
        play(video);
      });
      video.after(button);
    }
    for (const audio of document.querySelectorAll(".clip audio:not([src])")) {
      if (isMedia(CLIPS.media[audio.dataset.media])) audio.src = CLIPS.media[audio.dataset.media];
    }
    document.addEventListener("play", (event) => {
      for (const other of document.querySelectorAll("video, audio")) if (other !== event.target) other.pause();
    }, true);
    document.addEventListener("error", (event) => {
      const media = event.target;
      if (!(media instanceof HTMLMediaElement) || !media.hasAttribute("src")) return;
      const holder = media.closest(".player") || media;
      if (holder.nextElementSibling?.matches(".trouble")) return;
      const text = "This cannot be played here: the file has moved, or this browser lacks its codec.";
      holder.after(el("p", { class: "trouble", role: "alert" }, text));
    }, true);
  }

  /* ---- A clip, opened ---- */
  const dialog = $("clip");
  let opened = -1;

  function openClip(row) {
    opened = row;
    const cluster = CLIPS.cluster[row];
    $("clip-name").textContent = CLIPS.clip_id[row];
    $("clip-body").className = `dialog-body k${cluster % 10}`;
    const media = mediaElement(row);
    const picture = media?.localName === "video" ? "" : CLIPS.thumbnail[row];
    const words = CLIPS.transcript[row];
    $("clip-body").replaceChildren(
      el("div", { class: "show" },
        picture ? el("img", { src: picture, alt: "" }) : null,
        media,
        words
          ? el("blockquote", { class: "said", dir: "auto" }, words)
          : el("p", { class: "muted" }, "No transcript.")),
      el("div", {},
        clipFacts(row),
        el("div", {},
          el("h3", {}, "Each modality alone"),
          el("p", { class: "small muted" }, "The cluster it would choose by itself.")),
        choices(row)));
    const place = shown.indexOf(row);
    enable("previous", place > 0);
    enable("next", place >= 0 && place < shown.length - 1);
    if (!dialog.open) dialog.showModal();
  }

  /* A button that cannot be pressed any more keeps no focus: keys would then reach nothing. */
  function enable(id, can) {
    if (!can && document.activeElement === $(id)) $("close").focus();
    $(id).disabled = !can;
  }

  const quantity = (value, digits, unit) =>
    value === null ? null : `${value.toFixed(digits).replace("-", "−")} ${unit}`.trim();

  function clipFacts(row) {
    const link = el("a", { href: `#cluster-${CLIPS.cluster[row]}-name` }, "go to its card");
    link.addEventListener("click", () => dialog.close()); // and the browser goes on to the card's heading
    const facts = {
      Cluster: el("span", {}, badge(CLIPS.cluster[row]), " ", link),
      Confidence: percent(CLIPS.confidence[row]),
      Agreement: `${percent(CLIPS.agreement[row])} of its modalities`,
      Label: CLIPS.label[row] === null ? null : el("span", { dir: "auto" }, CLIPS.label[row]),
      Silhouette: quantity(CLIPS.silhouette[row], 2, ""),
      Length: quantity(CLIPS.duration_s[row], 1, "s"),
      Pitch: quantity(CLIPS.pitch_hz[row], 0, "Hz"),
      Loudness: quantity(CLIPS.loudness_db[row], 1, "LUFS"),
      "Speaking rate": quantity(CLIPS.words_per_s[row], 1, "words/s"),
    };
    const known = Object.entries(facts).filter(([, value]) => value !== null);
    const entries = known.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
    return el("dl", { class: "facts-list" }, ...entries);
  }

  function choices(row) {
    return el("ul", { class: "alone" }, ...DATA.modalities.map((modality) => {
      const choice = CLIPS.by_modality[modality][row];
      if (choice === null) {
        return el("li", {}, el("span", {}, modality), "–", el("span", { class: "muted" }, "the clip lacks it"));
      }
      const [verdict, text] = choice === CLIPS.cluster[row] ? ["agree", "✓ the same"] : ["differ", "≠ another"];
      return el("li", {}, el("span", {}, modality), badge(choice), el("span", { class: verdict }, text));
    }));
  }

  function step(by) {
    const row = shown[shown.indexOf(opened) + by];
    if (shown.includes(opened) && row !== undefined) openClip(row);
  }

  function listenToDialog() {
    document.addEventListener("click", (event) => {
      const opener = event.target.closest("[data-open]");
      const cluster = event.target.closest("[data-cluster]");
      if (opener) openClip(Number(opener.dataset.open));
      if (cluster) showCluster(Number(cluster.dataset.cluster));
    });
    $("previous").addEventListener("click", () => step(-1));
    $("next").addEventListener("click", () => step(1));
    $("close").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("close", () => $("clip-body").replaceChildren());
    dialog.addEventListener("keydown", (event) => {
      if (event.target instanceof HTMLMediaElement) return;
      if (event.key === "ArrowLeft") step(-1);
      if (event.key === "ArrowRight") step(1);
    });
  }

  /* ---- Charts ---- */
  function drawChart(place, traces, more) {
    const axis = { gridcolor: colour("line"), zeroline: false, linecolor: colour("line"), automargin: true, nticks: 5 };
    const layout = { ...baseLayout(), margin: { l: 40, r: 8, t: 8, b: 28 }, dragmode: false, ...more };
    layout.xaxis = { ...axis, ...more.xaxis };
    layout.yaxis = axis;
    Plotly.react(place, traces, layout, { displayModeBar: false, responsive: true });
  }

  function drawTerms() {
    for (const place of document.querySelectorAll("[data-term]")) {
      const y = DATA.history[place.dataset.term];
      const line = {
        type: "scatter",
        mode: "lines",
        x: y.map((_, i) => i + 1),
        y,
        line: { color: colour("accent"), width: 2 },
        hovertemplate: "step %{x}: %{y:.4g}<extra></extra>",
      };
      drawChart(place, [line], { hovermode: "x", xaxis: { range: [1, Math.max(2, y.length)] } });
    }
  }

  function drawRestarts() {
    if (!$("restarts")) return;
    const { loss, ari, acc } = DATA.restarts;
    const dots = (name, y, index, symbol) => ({
      type: "scatter",
      mode: "markers",
      name,
      x: loss,
      y,
      marker: { size: 11, symbol, color: colour(`k${index}`), line: { width: 1, color: colour("surface") } },
      hovertemplate: `loss %{x:.4g}: ${name} %{y:.3f}<extra></extra>`,
    });
    const legend = { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", itemclick: false, itemdoubleclick: false };
    drawChart("restarts", [dots("ARI", ari, 0, "circle"), ...(acc ? [dots("ACC", acc, 1, "diamond")] : [])], {
      showlegend: true, legend, margin: { l: 40, r: 8, t: 30, b: 40 }, xaxis: { title: { text: "loss" } },
    });
  }

  function drawAll() {
    update();
    drawTerms();
    drawRestarts();
  }

  /* ---- Copying ---- */
  function listenToCopy() {
    for (const button of document.querySelectorAll("[data-copy]")) {
      button.addEventListener("click", async () => {
        const text = button.previousElementSibling;
        try {
          await navigator.clipboard.writeText(text.textContent);
        } catch {
          getSelection().selectAllChildren(text);
          document.execCommand("copy");
        }
        button.textContent = "Copied";
        setTimeout(() => button.replaceChildren("Copy", unseen(" the command")), 1500);
      });
    }
  }

  showTheme();
  listenToMap();
  listenToDialog();
  listenToCopy();
  prepareMedia();
})();
