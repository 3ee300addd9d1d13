// @ts-check
// The numbers of a control room. Paints the trait `facts`; the radio buttons choose the phase that the chart shows.

/**
 * @typedef {{ counts: string[][], rates: string[][], latency: string[][], phase: string, summary: string }} Facts
 */

/** @param {string} tag @param {Record<string, any>} props @param {(Node | string)[]} children */
function element(tag, props = {}, ...children) {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children);
  return node;
}

/** @param {Node} node @param {string} text */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A tile for each state: how many jobs are in it. */
function tiles(/** @type {Facts} */ facts) {
  const values = facts.counts.map(() => element("span", { className: "qml-many" }));
  const node = element("ul", { className: "qml-tiles" });
  facts.counts.forEach(([state], place) => {
    const tile = element("li", { className: "qml-tile" }, element("span", { className: "qml-name" }, state), values[place]);
    tile.dataset.state = tile.title = state;
    node.append(tile);
  });
  node.setAttribute("aria-label", "jobs by state");
  const paint = (/** @type {Facts} */ now) => now.counts.forEach(([, many], place) => write(values[place], many));
  return { node, paint };
}

/** What throughput, queue and slots show, as text. */
function rates(/** @type {Facts} */ facts) {
  const cells = facts.rates.map(() => element("td"));
  const heads = facts.rates.map(([name]) => element("th", { scope: "col" }, name));
  const rows = [element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, element("tr", {}, ...cells))];
  const node = element("table", { className: "qml-rates" }, ...rows);
  node.setAttribute("aria-label", "the curves' latest values");
  const paint = (/** @type {Facts} */ now) => now.rates.forEach(([, value], place) => write(cells[place], value));
  return { node, paint };
}

/** Latency by phase, as text; the chosen phase is the one in the chart. */
function latency(/** @type {Facts} */ facts, choose) {
  const group = Math.random().toString(36).slice(2);
  const cells = facts.latency.map((row) => row.slice(2).map(() => element("td")));
  const radios = facts.latency.map(([phase]) => element("input", { type: "radio", name: group, value: phase }));
  radios.forEach((radio) => radio.addEventListener("change", () => choose(radio.value)));
  const heads = ["plotted", "p50", "p95", "p99"].map((name) => element("th", { scope: "col" }, name));
  const body = element("tbody");
  facts.latency.forEach(([, name], row) => {
    const head = element("th", { scope: "row" }, element("label", {}, radios[row], name));
    body.append(element("tr", {}, head, ...cells[row]));
  });
  const caption = element("caption", {}, "Latency of the last second in ms");
  const node = element("table", { className: "qml-latency" }, caption, element("thead", {}, element("tr", {}, ...heads)), body);
  const paint = (/** @type {Facts} */ now) =>
    now.latency.forEach(([phase, , ...values], row) => {
      values.forEach((value, column) => write(cells[row][column], value));
      if (!node.contains(document.activeElement)) radios[row].checked = phase === now.phase;
    });
  return { node, paint };
}

/** An arrow chooses a phase, not a cell of the notebook; what has Ctrl in it is the notebook's, as Ctrl+S.
 * @param {KeyboardEvent} event */
function keepKey(event) {
  if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
}

function render({ model, el }) {
  const facts = () => /** @type {Facts} */ (model.get("facts"));
  const choose = (/** @type {string} */ phase) => {
    try {
      model.send({ do: "phase", value: phase });
    } catch (error) {
      console.debug("[control room] not sent:", error); // the kernel is gone, as the panel says
    }
  };
  const parts = [tiles(facts()), rates(facts()), latency(facts(), choose)];
  const sentence = element("p", { className: "qml-summary" });
  sentence.setAttribute("aria-live", "polite");
  const phases = parts[2].node;
  const nodes = [...parts.map((part) => part.node), sentence];
  phases.addEventListener("keydown", keepKey);
  el.classList.add("qml-readout");
  el.append(...nodes);

  const paint = () => {
    parts.forEach((part) => part.paint(facts()));
    write(sentence, facts().summary);
  };
  model.on("change:facts", paint);
  paint();
  return () => {
    model.off("change:facts", paint);
    nodes.forEach((node) => node.remove());
  };
}

export default { render };
