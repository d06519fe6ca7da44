/* Draws what the page's JSON holds: the map, its list and filters, a clip's dialog, the charts; and the theme.

   Everything from the data reaches the page through textContent and attributes, never as HTML; Plotly gets no text of the
   data at all, only numbers. */
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
  const MANY = 5000; // dots beyond which SVG is slow
  const $ = (id) => document.getElementById(id);

  /* A new element; children are elements or text. */
  function el(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
    return element;
  }

  const percent = (share) => `${Math.round(100 * share)} %`;
  const count = (n) => n.toLocaleString("en");
  const badge = (k) =>
    el("span", { class: `badge k${k % 10}` }, k >= 10 ? el("span", { "aria-hidden": "true" }, SIGNS[Math.floor(k / 10) % 4]) : "", String(k));

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
  const probe = document.body.appendChild(el("span", { hidden: true }));
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
    const sign = { surest: -1, unsure: 1 }[$("order").value];
    return sign ? rows.sort((a, b) => sign * (CLIPS.confidence[a] - CLIPS.confidence[b])) : rows;
  }

  function update() {
    shown = matches();
    $("least-shown").textContent = `${$("least").value} %`;
    const noun = N === 1 ? "clip" : "clips";
    $("count").textContent = shown.length === N ? `${count(N)} ${noun}` : `${count(shown.length)} of ${count(N)} ${noun} match`;
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
      list.append(el("li", { "data-more": true }, button));
    }
  }

  function listItem(row) {
    const picture = CLIPS.thumbnail[row];
    const anyPicture = picture || CLIPS.thumbnail.some(Boolean);
    return el("li", null, el("button", { type: "button", class: anyPicture ? "item" : "item bare", "data-open": row },
      picture ? el("img", { src: picture, alt: "", decoding: "async" }) : anyPicture ? el("span", { class: "blank" }) : null,
      el("span", null,
        el("span", { class: "id", dir: "auto" }, CLIPS.clip_id[row]),
        el("span", { class: "facts" }, el("span", { class: "visually-hidden" }, "Cluster "), badge(CLIPS.cluster[row]), `${percent(CLIPS.confidence[row])} sure`),
        el("span", { class: "clamp", dir: "auto" }, CLIPS.transcript[row]))));
  }

  /* ---- The map ---- */
  const CONFIG = { displaylogo: false, responsive: true, modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]] };

  function baseLayout() {
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, margin: { l: 8, r: 8, t: 8, b: 8 },
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("muted") },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("muted"), activecolor: colour("accent") },
      hoverlabel: { bgcolor: colour("surface"), bordercolor: colour("edge"), font: { color: colour("ink") } },
    };
  }

  const leastOf = (by) => (by === "agreement" ? 0 : CLIPS.confidence.reduce((a, b) => Math.min(a, b), 1));

  /* Colour and shape of each row's dot, as the reader chose. */
  function paint(rows) {
    const by = $("colour").value;
    if (by === "confidence" || by === "agreement") {
      const [low, middle, high] = [colour("low"), colour("middle"), colour("high")];
      return { color: rows.map((row) => CLIPS[by][row]), colorscale: [[0, low], [0.5, middle], [1, high]], cmin: leastOf(by), cmax: 1, symbol: "circle" };
    }
    const palette = Array.from({ length: 10 }, (_, i) => colour(`k${i}`));
    const unknown = colour("edge");
    const index = by === "cluster" ? CLIPS.cluster : CLIPS.label.map((label) => (label === null ? -1 : LABELS.indexOf(label)));
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
        x: median(own.map((row) => map.x[row])), y: median(own.map((row) => map.y[row])), text: `<b>${cluster}</b>`, showarrow: false,
        bgcolor: colour(`k${cluster % 10}`), bordercolor: colour("surface"), borderwidth: 1.5, borderpad: 3, font: { color: colour(`on${cluster % 10}`), size: 12 },
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
      type: N > MANY ? "scattergl" : "scatter", mode: "markers", x: of.map((row) => map.x[row]), y: of.map((row) => map.y[row]), customdata: of, ...more,
    });
    const axis = { showgrid: false, zeroline: false, showticklabels: false, ticks: "" };
    const touch = matchMedia("(pointer: coarse)").matches;
    Plotly.react("map-plot", [
      dots(others, { hoverinfo: "skip", marker: { size: size - 2, color: colour("line") } }),
      dots(rows, { hoverinfo: "none", marker: { size, line: { width: 0.75, color: colour("surface") }, ...paint(rows) } }),
    ], {
      ...baseLayout(), xaxis: axis, yaxis: { ...axis, scaleanchor: "x" }, annotations: numbers(map, rows), hovermode: "closest",
      dragmode: touch ? false : "zoom", uirevision: map.name,
    }, CONFIG);
    $("map-note").textContent = map.note;
    $("hover").hidden = true;
    drawLegend();
  }

  function drawLegend() {
    const by = $("colour").value;
    if (by === "confidence" || by === "agreement") {
      const [low, high] = by === "confidence" ? [`least sure, ${percent(leastOf(by))}`, "100 %, sure"] : ["none", "all agree"];
      $("legend").replaceChildren(el("span", null, low), el("span", { class: "ramp", "aria-hidden": "true" }), el("span", null, high));
      return;
    }
    const select = $(by);
    const entries = by === "cluster" ? CLUSTERS.map((k) => [k, String(k), k]) : LABELS.map((label, i) => [i, label, i]);
    const buttons = entries.map(([value, name, index]) => {
      const on = select.value === String(value);
      const button = el("button", { type: "button", "aria-pressed": String(on) },
        el("span", { class: `symbol k${index % 10}`, "aria-hidden": "true" }, SIGNS[Math.floor(index / 10) % 4]),
        by === "cluster" ? el("span", { class: "visually-hidden" }, "Cluster ") : null, el("span", { dir: "auto" }, name));
      button.addEventListener("click", () => {
        select.value = on ? "" : String(value);
        const place = [...$("legend").children].indexOf(button);
        update();
        $("legend").children[place].focus();
      });
      return button;
    });
    if (by === "label" && CLIPS.label.includes(null)) buttons.push(el("span", null, el("span", { class: "symbol k-none" }, "●"), " no label"));
    $("legend").replaceChildren(...buttons);
  }

  function showHover(event) {
    const row = event.points[0].customdata;
    const words = CLIPS.transcript[row];
    $("hover").replaceChildren(
      ...(CLIPS.thumbnail[row] ? [el("img", { src: CLIPS.thumbnail[row], alt: "" })] : []),
      el("strong", { dir: "auto" }, CLIPS.clip_id[row]),
      el("p", { class: "muted" }, badge(CLIPS.cluster[row]), `${percent(CLIPS.confidence[row])} sure`),
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
      const picture = kind === "video" ? CLIPS.thumbnail[row] || null : null;
      return el(kind, { controls: true, preload: "metadata", playsinline: true, src: url, poster: picture, "data-media": row, "aria-label": CLIPS.clip_id[row] });
    }
    return url && isBeside(url) ? el("a", { href: url }, "Open the file") : null;
  }

  function play(media) {
    if (!media.hasAttribute("src") && isMedia(CLIPS.media[media.dataset.media])) media.src = CLIPS.media[media.dataset.media];
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
      for (const media of document.querySelectorAll("video, audio")) if (media !== event.target) media.pause();
    }, true);
    document.addEventListener("error", (event) => {
      const media = event.target;
      if (!(media instanceof HTMLMediaElement) || !media.hasAttribute("src")) return;
      const holder = media.closest(".player") || media;
      const text = "This cannot be played here: the file has moved, or this browser lacks its codec.";
      if (!(holder.nextElementSibling && holder.nextElementSibling.matches(".trouble"))) holder.after(el("p", { class: "trouble", role: "alert" }, text));
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
    const isVideo = media && media.localName === "video";
    const words = CLIPS.transcript[row];
    $("clip-body").replaceChildren(
      el("div", { class: "show" },
        !isVideo && CLIPS.thumbnail[row] ? el("img", { src: CLIPS.thumbnail[row], alt: "" }) : null,
        media,
        words ? el("blockquote", { class: "said", dir: "auto" }, words) : el("p", { class: "muted" }, "No transcript.")),
      el("div", null, clipFacts(row),
        el("div", null, el("h3", null, "Each modality alone"), el("p", { class: "small muted" }, "The cluster it would choose by itself.")), choices(row)));
    const place = shown.indexOf(row);
    $("previous").disabled = place <= 0;
    $("next").disabled = place < 0 || place === shown.length - 1;
    if (!dialog.open) dialog.showModal();
  }

  function clipFacts(row) {
    const link = el("a", { href: `#cluster-${CLIPS.cluster[row]}-name` }, "go to its card");
    link.addEventListener("click", () => dialog.close()); // and the browser goes on to the card's heading
    const facts = [
      ["Cluster", el("span", null, badge(CLIPS.cluster[row]), " ", link)],
      ["Confidence", percent(CLIPS.confidence[row])],
      ["Agreement", `${percent(CLIPS.agreement[row])} of its modalities`],
      ["Label", CLIPS.label[row] === null ? null : el("span", { dir: "auto" }, CLIPS.label[row])],
      ["Silhouette", number(CLIPS.silhouette[row], 2, "")],
      ["Length", number(CLIPS.duration_s[row], 1, "s")],
      ["Pitch", number(CLIPS.pitch_hz[row], 0, "Hz")],
      ["Loudness", number(CLIPS.loudness_db[row], 1, "LUFS")],
      ["Speaking rate", number(CLIPS.words_per_s[row], 1, "words/s")],
    ];
    return el("dl", { class: "facts-list" }, ...facts.filter(([, value]) => value !== null).flatMap(([name, value]) => [el("dt", null, name), el("dd", null, value)]));
  }

  const number = (value, digits, unit) => (value === null ? null : `${value.toFixed(digits).replace("-", "−")} ${unit}`.trim());

  function choices(row) {
    return el("ul", { class: "alone" }, ...DATA.modalities.map((modality) => {
      const choice = CLIPS.by_modality[modality][row];
      const agrees = choice === CLIPS.cluster[row];
      return el("li", null, el("span", null, modality),
        choice === null ? el("span", { class: "muted" }, "–") : badge(choice),
        choice === null ? el("span", { class: "muted" }, "the clip lacks it") : el("span", { class: agrees ? "agree" : "differ" }, agrees ? "✓ the same" : "≠ another"));
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
  function chartLayout(more) {
    const axis = { gridcolor: colour("line"), zeroline: false, linecolor: colour("line"), automargin: true, nticks: 5 };
    const layout = { ...baseLayout(), margin: { l: 40, r: 8, t: 8, b: 28 }, hovermode: "closest", dragmode: false, ...more };
    return { ...layout, xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis } };
  }

  const QUIET = { displayModeBar: false, responsive: true };

  function drawTerms() {
    for (const place of document.querySelectorAll("[data-term]")) {
      const y = DATA.history[place.dataset.term];
      const line = { type: "scatter", mode: "lines", x: y.map((_, i) => i + 1), y, line: { color: colour("accent"), width: 2 }, hovertemplate: "step %{x}: %{y:.4g}<extra></extra>" };
      Plotly.react(place, [line], chartLayout({ hovermode: "x", xaxis: { range: [1, Math.max(2, y.length)] } }), QUIET);
    }
  }

  function drawRestarts() {
    if (!$("restarts")) return;
    const { loss, ari, acc } = DATA.restarts;
    const dots = (name, y, index, symbol) => ({
      type: "scatter", mode: "markers", name, x: loss, y, marker: { size: 11, symbol, color: colour(`k${index}`), line: { width: 1, color: colour("surface") } },
      hovertemplate: `loss %{x:.4g}: ${name} %{y:.3f}<extra></extra>`,
    });
    const traces = [dots("ARI", ari, 0, "circle"), ...(acc ? [dots("ACC", acc, 1, "diamond")] : [])];
    const legend = { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", itemclick: false, itemdoubleclick: false };
    Plotly.react("restarts", traces, chartLayout({ showlegend: true, legend, margin: { l: 40, r: 8, t: 30, b: 40 }, xaxis: { title: { text: "loss" } } }), QUIET);
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
        setTimeout(() => button.replaceChildren("Copy", el("span", { class: "visually-hidden" }, " the command")), 1500);
      });
    }
  }

  showTheme();
  listenToMap();
  listenToDialog();
  listenToCopy();
  prepareMedia();
})();
