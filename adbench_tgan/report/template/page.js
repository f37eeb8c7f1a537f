"use strict";
(() => {
  const board = document.getElementById("board");
  const filters = document.getElementById("filters");
  const views = new Map(); // by a chart's name
  const choices = {}; // what the selectors say, by signal
  const dark = matchMedia("(prefers-color-scheme: dark)");

  const rows = (table = board) => [...table.tBodies[0].rows];
  const shown = () => rows().filter((row) => !row.hidden).map((row) => row.dataset.entry);

  function sortBy(button) {
    const [head, table] = [button.closest("th"), button.closest("table")];
    const column = head.cellIndex;
    const opposite = { ascending: "descending", descending: "ascending" };
    const order = opposite[head.getAttribute("aria-sort")] ?? button.dataset.first;
    const sign = order === "descending" ? -1 : 1;
    const value = (row) => row.cells[column].dataset.value;
    const compare = button.dataset.numeric === "true" ? (a, b) => Number(a) - Number(b) : (a, b) => a.localeCompare(b);
    const sorted = rows(table).sort((a, b) => {
      const [left, right] = [value(a), value(b)];
      if (left === "" || right === "") return (left === "") - (right === ""); // what was not measured comes last
      return sign * compare(left, right);
    });
    table.tBodies[0].append(...sorted);
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
  }

  function filter() {
    const wanted = new FormData(filters);
    const part = wanted.get("entry").trim().toLowerCase();
    for (const row of rows()) {
      const named = row.dataset.entry.toLowerCase().includes(part);
      const fits = ["supervision", "pretrained", "preset"].every((name) => !wanted.get(name) || wanted.get(name) === row.dataset[name]);
      row.hidden = !(named && fits);
    }
    const left = shown();
    for (const other of document.querySelectorAll("#heat tbody tr, #examples details")) other.hidden = !left.includes(other.dataset.entry);
    document.getElementById("count").textContent = `${left.length} of ${rows().length} rows`;
    tell("shown", left);
  }

  function tell(signal, value) {
    choices[signal] = value;
    for (const view of views.values()) set(view, signal, value);
    for (const select of document.querySelectorAll(".choice")) if (select.dataset.signal === signal) choose(select, value);
  }

  function choose(select, value) {
    select.value = value;
    select.parentElement.dataset.chosen = value; // what a printed page shows in place of the list
  }

  function set(view, signal, value) {
    if (!(signal in (view.getState({ signals: () => true, data: () => false }).signals || {}))) return;
    view.signal(signal, value).resize().runAsync().then(() => finish(view));
  }

  function finish(view) {
    markEmpty(view);
    hideCovered(view);
    if (view.legend) drawLegend(view);
  }

  function markEmpty(view) {
    const figure = view.container().closest("figure");
    const drawn = figure.querySelector(".role-mark:not(.chance_marks) :is(path[d]:not([d='']), line)");
    figure.querySelector(".empty").hidden = Boolean(drawn);
    figure.querySelector(".chart").classList.toggle("nothing", !drawn);
  }

  function hideCovered(view) { // of names beside points, those that lie on an earlier row's name or on another's point
    const boxes = (marks) => [...view.container().querySelectorAll(marks)].map((mark) => [mark, mark.getBoundingClientRect()]);
    const points = boxes(".points_marks path").map(([, box]) => box);
    const written = [];
    boxes(".names_marks text").forEach(([name, box], i) => {
      const meets = (other) => box.left < other.right && other.left < box.right && box.top < other.bottom && other.top < box.bottom;
      const covered = written.some(meets) || points.some((point, j) => j !== i && meets(point));
      name.style.visibility = covered ? "hidden" : "";
      if (!covered) written.push(box);
    });
  }

  function drawLegend(view) {
    const [colour, dash] = [view.scale("color"), view.scale("strokeDash")];
    const entries = colour.domain().filter((name) => view.legend !== "entry" || (choices.shown?.includes(name) ?? true));
    const lines = entries.map((name) => {
      const line = document.createElement("li");
      line.innerHTML = '<svg width="30" height="10" aria-hidden="true"><path d="M0 5H30" fill="none" stroke-width="2"></path></svg>';
      line.querySelector("path").setAttribute("stroke", colour(name));
      line.querySelector("path").setAttribute("stroke-dasharray", dash(name));
      line.append(name);
      return line;
    });
    view.container().closest("figure").querySelector(".legend").replaceChildren(...lines);
  }

  function theme() {
    const style = getComputedStyle(document.documentElement);
    const [ink, soft, line] = ["--ink", "--soft", "--line"].map((name) => style.getPropertyValue(name).trim());
    return {
      background: null,
      font: "system-ui, sans-serif",
      view: { stroke: line },
      axisX: { labelSeparation: 8 },
      axis: { labelColor: ink, titleColor: ink, gridColor: line, domainColor: soft, tickColor: soft, labelFontSize: 12, titleFontSize: 12 },
      legend: { labelColor: ink, titleColor: ink, labelFontSize: 12 },
      text: { color: ink, fontSize: 12 },
    };
  }

  async function draw(chart) {
    const spec = JSON.parse(chart.parentElement.querySelector(".spec").textContent);
    const name = chart.dataset.name;
    views.get(name)?.finalize();
    const options = { renderer: "svg", actions: false, ast: true, logLevel: 1, config: theme(), tooltip: { theme: dark.matches ? "dark" : "light" } };
    const { view } = await vegaEmbed(chart, spec, options);
    view.legend = spec.usermeta.legend;
    views.set(name, view);
    for (const [signal, value] of Object.entries(choices)) set(view, signal, value);
    view.addResizeListener(() => setTimeout(() => finish(view))); // called before it is drawn anew
    finish(view);
  }

  const drawAll = () => Promise.all([...document.querySelectorAll(".chart")].map(draw));

  for (const button of document.querySelectorAll("thead button")) button.addEventListener("click", () => sortBy(button));
  filters.addEventListener("input", filter);
  filters.addEventListener("reset", () => setTimeout(filter));
  filters.addEventListener("submit", (event) => event.preventDefault());
  for (const select of document.querySelectorAll(".choice")) {
    choices[select.dataset.signal] ??= select.value;
    choose(select, select.value);
    select.addEventListener("change", () => tell(select.dataset.signal, select.value));
  }
  addEventListener("pageshow", () => { // a browser that comes back to the page restores lists and filters late
    for (const select of document.querySelectorAll(".choice")) if (select.value !== choices[select.dataset.signal]) tell(select.dataset.signal, select.value);
    if ([...new FormData(filters).values()].some(Boolean)) filter(); // else all is shown as it was drawn
  });
  dark.addEventListener("change", drawAll);
  let opened = []; // for the printer only
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => { for (const details of opened) details.open = false; });
  drawAll().then(() => { document.documentElement.dataset.drawn = "yes"; });
})();
