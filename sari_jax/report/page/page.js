"use strict";
// Every text becomes a text node: no text of a model or a file is ever read as markup.
(() => {
  const { charts, runs, questions, sounds } = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);

  function make(tag, attributes = {}, ...children) {
    const space = ["svg", "path"].includes(tag) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
    const node = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children.filter((child) => child !== null));
    return node;
  }

  // The system's theme holds until the button is pressed.

  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const setTheme = (isDark) => {
    document.documentElement.classList.toggle("dark", isDark);
    byId("theme").setAttribute("aria-pressed", String(isDark));
    drawn.forEach(draw);
  };
  const drawn = new Set();

  // Charts.

  const COLOURS = ["#3a86c8", "#e07b27", "#2f9e63", "#c2539b", "#8b6fd6", "#a68b00", "#d9534f", "#3f95a6"];
  const colour = (place) => COLOURS[place % COLOURS.length];

  function lineTraces(chart) {
    return chart.lines.flatMap((line) => {
      const smooth = {
        x: line.steps, y: line.smooth, name: line.name, line: { color: colour(line.place), width: 2 },
        mode: line.steps.length < 20 ? "lines+markers" : "lines",
        hovertemplate: "step %{x}: %{y:.4~g}<extra></extra>",
      };
      if (chart.stacked) return [{ ...smooth, mode: "lines", stackgroup: "all", fillcolor: colour(line.place), line: { width: 0 } }];
      if (line.window < 2) return [smooth];
      const dots = {
        x: line.steps, y: line.values, mode: "markers", hoverinfo: "skip", showlegend: false,
        marker: { color: colour(line.place), size: 4, opacity: 0.25 },
      };
      return [dots, smooth];
    });
  }

  function barTraces(chart) {
    return chart.bars.map((bars) => {
      const side = (end, sign) =>
        bars.values.map((value, i) => (bars.intervals[i] ? sign * (bars.intervals[i][end] - value) : 0));
      const known = bars.intervals.some((interval) => interval);
      return {
        type: "bar", x: chart.labels, y: bars.values, name: bars.name, marker: { color: colour(bars.place) },
        hovertemplate: "%{x}: %{y:.4~g}<extra></extra>",
        ...(known && { error_y: { type: "data", array: side(1, 1), arrayminus: side(0, -1), color: ink("--ink"), thickness: 1.2 } }),
      };
    });
  }

  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  // Plotly interprets some tags, links and formulas in its texts; names must stay as they are.
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/\$/g, "&#36;");

  // With a finger one scrolls the page; only a mouse zooms into a chart.
  const coarse = window.matchMedia("(pointer: coarse)").matches;

  function draw(node) {
    const chart = charts[node.dataset.chart];
    const traces = chart.lines.length ? lineTraces(chart) : barTraces(chart);
    for (const trace of traces) {
      if (trace.name) trace.name = plain(trace.name);
      if (trace.type === "bar") trace.x = trace.x.map(plain);
    }
    const axis = { gridcolor: ink("--line"), zerolinecolor: ink("--line"), automargin: true, fixedrange: coarse };
    const layout = {
      margin: { l: 55, r: 10, t: 25, b: 40 }, height: 280, barmode: "group", showlegend: traces.filter((t) => t.name).length > 1,
      legend: { orientation: "h", y: 1.02, yanchor: "bottom" }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink("--ink"), size: 12 }, hovermode: chart.lines.length ? "x" : "closest", dragmode: coarse ? false : "zoom",
      xaxis: { ...axis, title: { text: chart.lines.length ? "step" : "" }, type: chart.lines.length ? "linear" : "category" },
      yaxis: { ...axis, title: { text: chart.unit }, ...(chart.rates && { range: [-0.02, 1.04] }) },
    };
    Plotly.react(node, traces, layout, { responsive: true, displayModeBar: false, displaylogo: false });
    drawn.add(node);
  }

  // Draws one chart at a time, so that the page stays responsive.
  function drawRest([node, ...rest]) {
    if (!node) return;
    draw(node);
    setTimeout(drawRest, 0, rest);
  }

  // Rollouts. A visit is a question at a step of a run.

  const visits = questions.flatMap((question) => question.visits.map((visit) => ({ question, ...visit })));
  visits.sort((a, b) => a.run - b.run || a.step - b.step || (a.split < b.split ? 1 : a.split > b.split ? -1 : 0));
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / Math.max(values.length, 1);
  for (const visit of visits) {
    visit.rights = visit.completions.map((one) => one.rewards.accuracy > 0);
    visit.right = visit.rights.filter(Boolean).length;
    visit.reward = mean(visit.completions.map((one) => one.total ?? NaN));
  }
  const SPLITS = { train: "in training", held_out: "held out" };
  const form = byId("filters"), list = byId("list"), detail = byId("detail");
  let shown = [], current = null;

  function fill(name, values, label = String, all = "all") {
    const options = values.map((value) => make("option", { value }, label(value)));
    form.elements[name].append(...(all ? [make("option", { value: "" }, all)] : []), ...options);
  }

  function matches(visit) {
    const f = Object.fromEntries(new FormData(form));
    const right = visit.right === 0 ? "none" : visit.right === visit.completions.length ? "all" : "some";
    const words = [visit.question.question, ...visit.question.choices, visit.question.id, visit.question.source ?? "",
      ...visit.completions.flatMap((one) => one.spans.map(([, text]) => text))].join("\n").toLowerCase();
    return (f.run === "" || visit.run === Number(f.run)) && (f.split === "" || visit.split === f.split)
      && (f.task === "" || visit.question.task === f.task) && (f.difficulty === "" || visit.question.difficulty === f.difficulty)
      && visit.step >= Number(f.from) && visit.step <= Number(f.to) && (f.right === "" || right === f.right)
      && (f.low === "" || visit.reward >= Number(f.low)) && (f.high === "" || visit.reward <= Number(f.high))
      && words.includes(f.text.toLowerCase());
  }

  function filter() {
    shown = visits.filter(matches);
    byId("count").textContent = `${shown.length} of ${visits.length} shown`;
    list.replaceChildren(...shown.map((visit) => {
      const number = visits.indexOf(visit);
      const where = [`step ${visit.step}`, visit.question.task, visit.question.difficulty].filter(Boolean);
      if (runs.length > 1) where.unshift(runs[visit.run]);
      const dots = visit.rights.map((right) => (right ? "●" : "○")).join("");
      return make("div", { role: "option", id: `visit-${number}`, "aria-selected": "false" },
        make("div", { class: "where" }, make("span", {}, where.join(" · ")),
          make("span", { class: "dots", role: "img", "aria-label": `${visit.right} of ${visit.rights.length} right` }, dots)),
        make("div", { class: "ask" }, visit.question.question));
    }));
    if (!shown.includes(current)) choose(shown[0] ?? null);
    else mark();
  }

  function mark() {
    for (const option of list.children) option.setAttribute("aria-selected", "false");
    list.removeAttribute("aria-activedescendant");
    const option = current && byId(`visit-${visits.indexOf(current)}`);
    if (!option) return;
    option.setAttribute("aria-selected", "true");
    list.setAttribute("aria-activedescendant", option.id);
    // Scrolls the list only, and not the page.
    const top = option.offsetTop - list.offsetTop;
    if (top < list.scrollTop || top + option.offsetHeight > list.scrollTop + list.clientHeight)
      list.scrollTop = top - list.clientHeight / 3;
  }

  function choose(visit) {
    current = visit;
    mark();
    if (visit) show(visit);
    else detail.replaceChildren(make("p", { class: "note" }, "No rollout matches; clear a filter."));
  }

  function move(by) {
    const place = shown.indexOf(current) + by;
    if (shown.length) choose(shown[Math.max(0, Math.min(shown.length - 1, place))]);
  }

  // The data has null in place of NaN and infinity.
  const number = (value) => (Number.isFinite(value) ? value.toFixed(2) : "–");
  const signed = (value) => (value < 0 ? "−" : "+") + number(Math.abs(value ?? NaN));

  function show(visit) {
    const { question } = visit;
    const facts = [SPLITS[visit.split], question.task, question.kind, question.difficulty, question.source, `id ${question.id}`];
    if (question.pass_rate !== undefined) facts.push(`pass rate before ${number(question.pass_rate)}`);
    const back = make("button", { type: "button", class: "back" }, "Back to the list");
    back.addEventListener("click", () => { list.scrollIntoView(); list.focus(); });
    detail.replaceChildren(
      back,
      make("h3", {}, question.question),
      make("ul", { class: "choices", "aria-label": "Choices" }, ...question.choices.map((choice) =>
        choice === question.answer ? make("li", { class: "right" }, `✓ ${choice}`) : make("li", {}, choice))),
      make("p", { class: "note" }, facts.filter(Boolean).join(" · ")),
      ...question.clips.map(showClip),
      make("h4", {}, `${runs[visit.run]}, step ${visit.step}: ${visit.right} of ${visit.rights.length} right, mean reward ${number(visit.reward)}`),
      ...visit.completions.map(showCompletion),
      showTimes(visit),
    );
  }

  function showClip({ name, sound, lacks }) {
    if (lacks) return make("p", { class: "note" }, `♪ ${name}: no audio on this page (${lacks})`);
    const { mp3, spectrogram, peaks, seconds, shortened } = sounds[sound];
    const caption = `♪ ${name}, ${seconds.toFixed(1)} s${shortened ? ", of which this page has the first 30 s" : ""}`;
    const audio = make("audio", { controls: "", preload: "metadata", src: mp3, "aria-label": name });
    const step = 100 / peaks.length;
    const up = peaks.map((peak, i) => `${(i * step).toFixed(1)},${(50 - peak / 2.1).toFixed(1)}`);
    const down = peaks.map((peak, i) => `${(i * step).toFixed(1)},${(50 + peak / 2.1).toFixed(1)}`).reverse();
    const head = make("div", { class: "head" });
    const view = make("div", { class: "view", title: "Click to play from here" },
      make("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img", "aria-label": "Waveform" },
        make("path", { d: `M${[...up, ...down].join("L")}Z` })),
      make("img", { src: spectrogram, alt: "Log-mel spectrogram, low frequencies at the bottom" }), head);
    view.addEventListener("click", (event) => {
      const box = view.getBoundingClientRect();
      if (audio.duration) audio.currentTime = audio.duration * (event.clientX - box.left) / box.width;
      audio.play();
    });
    audio.addEventListener("timeupdate", () => { head.style.left = `${100 * audio.currentTime / (audio.duration || 1)}%`; });
    return make("div", { class: "clip" }, make("div", { class: "note" }, caption), audio, view);
  }

  function showCompletion(one, place) {
    const { accuracy, ...others } = one.rewards;
    const right = accuracy > 0;
    const facts = [
      make("strong", {}, `${place + 1}`),
      make("span", { class: `badge ${right ? "right" : "wrong"}` }, right ? "right" : "wrong"),
      make("span", {}, `reward ${number(one.total)}`),
      one.advantage === undefined ? null : make("span", {}, `advantage ${signed(one.advantage)}`),
      ...Object.entries(others).map(([name, value]) => make("span", {}, `${name} ${number(value)}`)),
      make("span", {}, `${one.tokens} tokens${one.done ? "" : ", cut off at the limit"}`),
    ];
    const pieces = one.spans.map(([section, text]) =>
      section === "" ? text : make(section === "tag" ? "span" : "mark", { class: section }, text));
    return make("div", { class: "completion" }, make("div", { class: "facts" }, ...facts.filter(Boolean)),
      make("p", { class: "text" }, ...(pieces.length ? pieces : ["(empty)"])));
  }

  function showTimes(visit) {
    const times = visits.filter((other) => other.question === visit.question);
    if (times.length < 2) return make("p", { class: "note" }, "This question is shown at this step only.");
    const rows = times.map((other) => {
      const counts = new Map();
      for (const one of other.completions) {
        const answer = one.answer ?? "no answer";
        counts.set(answer, (counts.get(answer) ?? 0) + 1);
      }
      const answers = [...counts].sort((a, b) => b[1] - a[1]).map(([text, count]) => (count > 1 ? `${text} ×${count}` : text));
      const go = make("button", { type: "button" }, `${runs.length > 1 ? `${runs[other.run]}, ` : ""}step ${other.step}`);
      if (other === visit) go.setAttribute("aria-current", "true");
      go.addEventListener("click", () => choose(other));
      return make("tr", {}, make("th", { scope: "row" }, go), make("td", {}, SPLITS[other.split]),
        make("td", {}, `${other.right} of ${other.rights.length}`), make("td", {}, answers.join(", ")));
    });
    const head = ["step", "asked", "right", "answers"].map((name) => make("th", { scope: "col" }, name));
    return make("div", { class: "times" }, make("h4", {}, "Over training"),
      make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Answers over training" },
        make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows))));
  }

  function startBrowser() {
    const steps = [...new Set(visits.map((visit) => visit.step))].sort((a, b) => a - b);
    const distinct = (name) => [...new Set(questions.map((question) => question[name]).filter((value) => value !== undefined))].sort();
    fill("run", runs.map((_, place) => place), (place) => runs[place]);
    fill("split", [...new Set(visits.map((visit) => visit.split))], (split) => SPLITS[split]);
    fill("task", distinct("task"));
    fill("difficulty", distinct("difficulty"));
    fill("from", steps, String, "");
    fill("to", steps, String, "");
    const last = form.elements.to.options.length - 1;
    form.elements.to.options[last].defaultSelected = true;
    form.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(filter));
    list.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (!option) return;
      choose(visits[Number(option.id.slice("visit-".length))]);
      if (window.innerWidth <= 800) { detail.scrollIntoView(); detail.focus({ preventScroll: true }); }
    });
    list.addEventListener("keydown", (event) => {
      const by = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity, PageDown: 10, PageUp: -10 }[event.key];
      if (by) { event.preventDefault(); move(by); }
    });
    document.addEventListener("keydown", (event) => {
      if (event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
      const play = () => { const audio = detail.querySelector("audio"); if (audio) audio.paused ? audio.play() : audio.pause(); };
      const act = { j: () => move(1), k: () => move(-1), p: play, "/": () => form.elements.text.focus() }[event.key];
      if (act) { event.preventDefault(); act(); }
    });
    filter();
  }

  setTheme(dark.matches);
  let pressed = false;
  dark.addEventListener("change", (event) => { if (!pressed) setTheme(event.matches); });
  byId("theme").addEventListener("click", () => {
    pressed = true;
    setTheme(!document.documentElement.classList.contains("dark"));
  });
  if (visits.length) startBrowser();
  drawRest(document.querySelectorAll("[data-chart]"));
})();
