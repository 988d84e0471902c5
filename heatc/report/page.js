"use strict";
// Draws the charts, and makes the controls and the tables of the page work. No request is made.
(() => {
  const NARROW = 600;
  const charts = [...document.querySelectorAll(".chart")];

  // ---- plotly.js ---------------------------------------------------------------------------

  async function inflated(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).text();
  }

  async function loadPlotly() {
    const packed = document.getElementById("plotly");
    const script = document.createElement("script");
    script.textContent = await inflated(packed.textContent);
    packed.remove();
    document.head.append(script);
  }

  // ---- colours -----------------------------------------------------------------------------

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Data names colours by the variables of the style, so that they follow light and dark.
  function coloured(value) {
    if (typeof value === "string") {
      const found = /^var\((--[a-z0-9-]+)\)$/.exec(value);
      return found ? css(found[1]) : value;
    }
    if (Array.isArray(value)) return value.map(coloured);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, coloured(part)]));
  }

  // ---- charts ------------------------------------------------------------------------------

  const dataOf = new Map();
  for (const chart of charts) {
    dataOf.set(chart.id, JSON.parse(document.getElementById(`${chart.id}-data`).textContent));
  }

  const chosen = (id) =>
    [...document.querySelectorAll("select")]
      .filter((select) => select.dataset.target === id)
      .map((select) => select.value)
      .join("-");

  // Names of modules differ at their ends.
  function shortened(text, most) {
    if (text.length <= most) return text;
    const tail = text.slice(1 - most);
    return `…${tail.slice(tail.indexOf(".") + 1)}`;
  }

  function axis(own, width) {
    const shared = {
      gridcolor: css("--line"),
      zerolinecolor: css("--line"),
      linecolor: css("--line"),
      automargin: true,
    };
    const made = { ...shared, ...own };
    const title = own?.title?.text ?? "";
    made.title = {
      text: width < NARROW ? title.replace(" (", "<br>(") : title,
      standoff: 10,
      font: { color: css("--muted") },
    };
    if (made.ticktext) {
      const most = width < NARROW ? 24 : 52;
      made.ticktext = made.ticktext.map((text) => shortened(text, most));
    } else if (width < NARROW) {
      made.nticks = 4;
    }
    return made;
  }

  function layoutOf(data, figure, width) {
    const own = coloured({ ...data.layout, ...figure.layout });
    for (const name of ["xaxis", "yaxis"]) {
      own[name] = { ...coloured(data.layout[name] ?? {}), ...own[name] };
    }
    return {
      height: data.height,
      margin: { l: 10, r: 10, t: 10, b: 10 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: css("--text"), size: 12, family: getComputedStyle(document.body).fontFamily },
      hoverlabel: { bgcolor: css("--surface"), bordercolor: css("--line"), font: { color: css("--text") } },
      legend: { orientation: "h", x: 0, y: 1.02, xanchor: "left", yanchor: "bottom" },
      hovermode: "closest",
      dragmode: width < NARROW ? false : "zoom",
      ...own,
      xaxis: axis(own.xaxis, width),
      yaxis: axis(own.yaxis, width),
    };
  }

  // What a bar says to the pointer: its module, its run, its figure.
  function labelBars(traces, axis) {
    for (const trace of traces.filter((one) => one.type === "bar")) {
      trace.hoverinfo = "text";
      trace.hovertext = trace.x.map((value, place) => {
        const figure = value?.toLocaleString("en", { maximumSignificantDigits: 5 }) ?? "–";
        return `${axis.ticktext[place]}<br>${trace.name}: ${figure} ${trace.meta.unit}`;
      });
    }
  }

  const CONFIG = {
    displaylogo: false,
    responsive: true,
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
  };

  async function draw(chart) {
    const data = dataOf.get(chart.id);
    const plot = document.getElementById(`${chart.id}-plot`);
    const wanted = chosen(chart.id);
    const figure = data.figures[wanted];
    chart.querySelector(".empty").hidden = figure !== undefined;
    plot.hidden = figure === undefined;
    if (figure === undefined) {
      chart.dataset.shown = wanted;
      return;
    }
    const layout = layoutOf(data, figure, plot.clientWidth);
    const traces = coloured(figure.data);
    for (const trace of traces) {
      if (trace.colorbar) trace.showscale = plot.clientWidth >= NARROW;
    }
    labelBars(traces, figure.layout?.yaxis);
    plot.style.minHeight = `${layout.height}px`;
    await Plotly.react(plot, traces, layout, CONFIG);
    chart.dataset.shown = wanted;
    if (!plot.dataset.followed) {
      plot.dataset.followed = "yes";
      plot.on("plotly_click", follow);
    }
  }

  // A click on a point with a link is one on the link.
  function follow(event) {
    const address = event.points[0]?.customdata;
    if (typeof address === "string") window.location.href = address;
  }

  // ---- panels ------------------------------------------------------------------------------

  function showPanel(panels) {
    const wanted = chosen(panels.id);
    let found = false;
    for (const part of panels.querySelectorAll(":scope > [data-key]")) {
      part.hidden = part.dataset.key !== wanted;
      found ||= !part.hidden;
    }
    panels.querySelector(":scope > .empty").hidden = found;
  }

  function showItem(select) {
    const panels = document.getElementById(select.dataset.items);
    panels.classList.toggle("alone", select.value !== "");
    for (const item of panels.querySelectorAll("[data-item]")) {
      item.classList.toggle("chosen", item.dataset.item === select.value);
    }
  }

  // ---- tables ------------------------------------------------------------------------------

  function sort(button) {
    const head = button.closest("th");
    const table = button.closest("table");
    const column = Number(button.dataset.column);
    const isNumber = table.tBodies[0].rows[0]?.cells[column].classList.contains("number");
    // Numbers begin with the greatest, names with the first.
    const first = isNumber ? "descending" : "ascending";
    const other = isNumber ? "ascending" : "descending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const keyOf = (row) => row.cells[column].dataset.key ?? row.cells[column].textContent;
    const value = (text) => (text === "-inf" ? -Infinity : Number(text));
    const compare = (a, b) =>
      isNumber ? value(keyOf(a)) - value(keyOf(b)) : keyOf(a).localeCompare(keyOf(b), "en", { numeric: true });
    const rows = [...table.tBodies[0].rows].sort((a, b) => sign * compare(a, b));
    table.tBodies[0].append(...rows);
  }

  // ---- the page ----------------------------------------------------------------------------

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(".sortable thead button");
    if (button) sort(button);
  });

  document.addEventListener("change", (event) => {
    const select = event.target;
    if (select.dataset?.items) showItem(select);
    const target = select.dataset?.target && document.getElementById(select.dataset.target);
    if (target?.classList.contains("panels")) showPanel(target);
    if (target?.classList.contains("chart") && window.Plotly) draw(target);
  });

  function fail(reason) {
    for (const chart of charts) {
      const told = document.createElement("p");
      told.className = "failed";
      told.textContent = `No picture: this browser cannot inflate the drawing library (${reason}). The tables have the same figures.`;
      chart.querySelector(".plot").replaceChildren(told);
    }
  }

  const isSeen = (chart) => chart.getBoundingClientRect().top < innerHeight;
  const pause = () => new Promise((resolve) => setTimeout(resolve));
  // Whoever measures the page waits for these.
  const mark = (name) => {
    document.documentElement.dataset[name] = String(Math.round(performance.now()));
  };

  // What a reader sees first is drawn first; the rest follows piece by piece, so that the page answers.
  async function drawAll() {
    const first = charts.filter(isSeen);
    for (const chart of first) await draw(chart);
    if (first.length) mark("seen");
    for (const chart of charts.filter((other) => !first.includes(other))) {
      await pause();
      await draw(chart);
    }
    const redraw = () => charts.forEach(draw);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  }

  async function main() {
    // A browser may keep what was chosen before the page was loaded again.
    for (const panels of document.querySelectorAll(".panels")) showPanel(panels);
    if (!charts.some(isSeen)) mark("seen");
    if (!charts.length) return;
    await pause();
    await loadPlotly();
    await drawAll();
  }

  main()
    .catch((error) => fail(error.message))
    .finally(() => mark("drawn"));
})();
