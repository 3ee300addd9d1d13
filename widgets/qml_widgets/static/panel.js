// @ts-check
// The knobs of a control room. Paints the trait `facts`, and sends commands: {do: NAME, value: …}.
// The view owns only what a hand is on: a knob in use does not jump back to the last known value.

/**
 * @typedef {{ pool: string, pool_on: boolean, load_on: boolean, rate: number, workers: number, arrivals: string,
 *   tasks: string, mixes: string[], failing: number, storage: Place, away: boolean, troubles: string[] }} Facts
 * @typedef {{ choices: string[], choice: string, where: string, progress: string, stays: string }} Place
 * @typedef {{ node: HTMLElement, paint: (facts: Facts) => void }} Part
 */

const SEND_EVERY = 100; // ms: as often as a picture is drawn
const HANDS_OFF = 700; // ms after the last touch, until a knob shows what Python says again
const FASTEST = 5000; // jobs a second at the end of the slider; the number beside it goes further
const BEND = 2.5; // the slider is finer where rates are low

/** @param {string} tag @param {Record<string, any>} props @param {(Node | string)[]} children */
function element(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "class") node.className = value;
    else if (name.includes("-") || name === "role") node.setAttribute(name, value);
    else /** @type {any} */ (node)[name] = value;
  }
  node.append(...children);
  return node;
}

/** Calls `action` at most every SEND_EVERY ms, the last time with the last value. @param {(value: any) => void} action */
function limited(action) {
  let timer = 0;
  let last;
  return (/** @type {any} */ value) => {
    last = value;
    timer ||= window.setTimeout(() => ((timer = 0), action(last)), SEND_EVERY);
  };
}

/** A slider and a number that stand for the same value.
 * @returns {Part} */
function knob({ label, unit, value, send, least, most, end, step = 1, toSlider = Number, fromSlider = Number }) {
  const slider = element("input", { type: "range", min: toSlider(least), max: toSlider(end), step });
  const number = element("input", { type: "number", min: least, max: most, "aria-label": `${label}, ${unit}, as a number` });
  let touched = -Infinity;
  const tell = limited(send);
  const paint = (/** @type {number} */ now) => {
    slider.value = String(toSlider(now));
    slider.setAttribute("aria-valuetext", `${now} ${unit}`);
    if (document.activeElement !== number) number.value = String(now);
  };
  slider.addEventListener("input", () => {
    touched = performance.now();
    const now = fromSlider(Number(slider.value));
    number.value = String(now);
    slider.setAttribute("aria-valuetext", `${now} ${unit}`);
    tell(now);
  });
  const take = () => {
    if (number.value === "" || !number.checkValidity()) return number.reportValidity();
    touched = performance.now();
    slider.value = String(toSlider(Number(number.value)));
    tell(Number(number.value));
  };
  number.addEventListener("change", take);
  number.addEventListener("keydown", (event) => event.key === "Enter" && take());
  const node = element(
    "div",
    { class: "qml-knob" },
    element("label", {}, element("span", {}, label), slider),
    element("span", { class: "qml-number" }, number, element("span", { class: "qml-unit" }, unit)),
  );
  return { node, paint: (facts) => performance.now() - touched > HANDS_OFF && paint(value(facts)) };
}

/** @returns {Part} */
function menu({ label, options, value, send }) {
  const select = element("select");
  select.addEventListener("change", () => send(select.value));
  const paint = (/** @type {Facts} */ facts) => {
    const names = options(facts);
    if (select.options.length !== names.length) {
      select.replaceChildren(...names.map((/** @type {string} */ name) => element("option", { value: name }, name)));
    }
    if (document.activeElement !== select || select.value === "") select.value = value(facts);
  };
  return { node: element("label", { class: "qml-menu" }, element("span", {}, label), select), paint };
}

/** @returns {Part} */
function toggle({ label, value, send }) {
  const box = element("input", { type: "checkbox", role: "switch" });
  box.addEventListener("change", () => send(box.checked));
  return { node: element("label", { class: "qml-switch" }, box, label), paint: (facts) => (box.checked = value(facts)) };
}

/** @returns {Part} */
function group(title, onOff, ...parts) {
  const head = element("legend", {}, title, onOff.node);
  const node = element("fieldset", {}, head, ...parts.map((part) => part.node));
  return { node, paint: (facts) => [onOff, ...parts].forEach((part) => part.paint(facts)) };
}

/** @returns {Part} */
function burst(send) {
  const jobs = element("input", { type: "number", min: 1, max: 1_000_000, value: "100", "aria-label": "jobs in a burst" });
  const button = element("button", { type: "button" }, "Burst");
  button.addEventListener("click", () => (jobs.checkValidity() ? send(Number(jobs.value)) : jobs.reportValidity()));
  const node = element("div", { class: "qml-burst" }, button, jobs, element("span", { class: "qml-unit" }, "jobs"));
  return { node, paint() {} };
}

const twoDigits = (/** @type {number} */ value) => (value ? Number(value.toPrecision(2)) : 0);

/** @returns {Part} */
function pool(send) {
  const onOff = toggle({ label: "on", value: (f) => f.pool_on, send: (on) => send("pool", on) });
  const slots = knob({
    label: "Slots", unit: "slots", least: 1, end: 64, most: 10000,
    value: (f) => f.workers, send: (value) => send("resize", value),
  });
  return group("Worker pool", onOff, slots);
}

/** @returns {Part} */
function load(send) {
  const onOff = toggle({ label: "on", value: (f) => f.load_on, send: (on) => send("load", on) });
  const rate = knob({
    label: "Rate", unit: "jobs/s", least: 0, end: FASTEST, most: 1_000_000,
    value: (f) => f.rate, send: (value) => send("rate", value),
    toSlider: (/** @type {number} */ value) => Math.round(100 * (value / FASTEST) ** (1 / BEND)),
    fromSlider: (/** @type {number} */ place) => twoDigits(Math.round(FASTEST * (place / 100) ** BEND)),
  });
  const arrivals = menu({
    label: "Arrivals", options: () => ["constant", "poisson"],
    value: (f) => f.arrivals, send: (value) => send("arrivals", value),
  });
  const tasks = menu({
    label: "Tasks", options: (f) => (f.tasks === "custom" ? [...f.mixes, "custom"] : f.mixes),
    value: (f) => f.tasks, send: (value) => value !== "custom" && send("tasks", value),
  });
  const failing = knob({
    label: "Failing", unit: "%", least: 0, end: 100, most: 100,
    value: (f) => Math.round(f.failing * 1000) / 10, send: (value) => send("failing", value / 100),
  });
  return group("Load", onOff, rate, tasks, arrivals, failing, burst((jobs) => send("burst", jobs)));
}

/** A line for any URL, with a button that says when it is complete. */
function address(send) {
  const url = element("input", { type: "text", placeholder: "redis:// postgresql://", "aria-label": "storage URL" });
  Object.assign(url, { spellcheck: false, autocomplete: "off" });
  const connect = element("button", { type: "button" }, "Connect");
  const take = () => (/** @type {any} */ (url).value.trim() ? send("storage", /** @type {any} */ (url).value) : url.focus());
  connect.addEventListener("click", take);
  url.addEventListener("keydown", (event) => event.key === "Enter" && take());
  return { node: element("div", { class: "qml-address", hidden: true }, url, connect), url };
}

/** Shows a text, which may be an address: a line of it rather ends before the host than within its port.
 * @param {HTMLElement} node @param {string} text */
function say(node, text) {
  if (node.textContent === text) return;
  node.replaceChildren(...text.split(/(?=@)/).flatMap((part, place) => (place ? [element("wbr"), part] : [part])));
}

/** Where the jobs are: a button for each place, and one for any other. Python opens it and tells how that goes.
 * @returns {Part} */
function storage(send) {
  const { node: line, url } = address(send);
  const other = element("button", { type: "button", "aria-expanded": "false" }, "URL…");
  const open = (/** @type {boolean} */ wide) => {
    line.hidden = !wide;
    other.setAttribute("aria-expanded", String(wide));
  };
  other.addEventListener("click", () => (open(line.hidden), line.hidden || url.focus()));
  const choices = element("div", { class: "qml-choices" }, other);
  const where = element("p", { class: "qml-where", role: "status" });
  const stays = element("p", { class: "qml-where", role: "status" });
  const node = element("fieldset", { class: "qml-storage" }, element("legend", {}, "Storage"), choices, line, where, stays);
  let buttons = /** @type {HTMLElement[]} */ ([]);
  let known = "";
  let reached = "";
  const offer = (/** @type {string[]} */ names) => {
    if (names.join() === known) return;
    known = names.join();
    buttons.forEach((button) => button.remove());
    buttons = names.map((name) => element("button", { type: "button", value: name }, name));
    buttons.forEach((button, place) => button.addEventListener("click", () => (open(false), send("storage", names[place]))));
    choices.prepend(...buttons);
  };
  const paint = ({ storage: place }) => {
    offer(place.choices);
    const pressed = (button) => (button === other ? place.choice === "URL" : button.value === place.choice);
    for (const button of [...buttons, other]) button.setAttribute("aria-pressed", String(pressed(button)));
    if (place.choice === "URL" && place.where !== reached) {
      open(false);
      /** @type {any} */ (url).value = ""; // it may have a password in it
    }
    reached = place.where;
    say(where, place.progress || place.where);
    say(stays, place.stays);
    node.dataset.progress = String(place.progress !== "");
  };
  return { node, paint };
}

/** Start, Stop, and how things stand. @returns {Part} */
function head(send) {
  const start = element("button", { type: "button", class: "qml-start" }, "Start");
  const stop = element("button", { type: "button", class: "qml-stop" }, "Stop");
  const state = element("span", { class: "qml-state", role: "status" });
  start.addEventListener("click", () => send("start"));
  stop.addEventListener("click", () => send("stop"));
  const paint = (/** @type {Facts} */ facts) => {
    const text = facts.away ? "storage away" : facts.load_on && facts.pool === "stopped" ? "load only" : facts.pool;
    if (state.textContent !== text) state.textContent = text;
    state.dataset.state = text;
  };
  return { node: element("div", { class: "qml-head" }, start, stop, state), paint };
}

/** What went wrong. @returns {Part} */
function troubles() {
  const node = element("div", { class: "qml-troubles", role: "alert" });
  let shown = "";
  const paint = (/** @type {Facts} */ facts) => {
    if (facts.troubles.join("\n") === shown) return;
    shown = facts.troubles.join("\n");
    node.replaceChildren(...facts.troubles.map((line) => element("p", {}, line)));
  };
  return { node, paint };
}

/** An arrow moves a slider, not the notebook's selection; what has Ctrl in it is the notebook's, as Ctrl+S.
 * @param {KeyboardEvent} event */
function keepKey(event) {
  if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
}

/** Tells Python whether the room can be seen: nothing is drawn for nobody. Returns its clean-up. */
function watch(el, send) {
  const view = Math.random().toString(36).slice(2);
  let onScreen = false;
  let told;
  let frame = 0;
  const tell = () => {
    const visible = onScreen && document.visibilityState === "visible";
    if (visible !== told) send("seen", { view, visible: (told = visible) });
  };
  const leave = () => send("seen", { view, visible: null });
  const observer = new IntersectionObserver((entries) => ((onScreen = entries.at(-1)?.isIntersecting ?? false), tell()));
  const attach = () => {
    const room = el.closest(".qml-room");
    if (room) observer.observe(room);
    else frame = requestAnimationFrame(attach); // the view is made before it has its place in the page
  };
  attach();
  document.addEventListener("visibilitychange", tell);
  window.addEventListener("pagehide", leave);
  return () => {
    cancelAnimationFrame(frame);
    observer.disconnect();
    document.removeEventListener("visibilitychange", tell);
    window.removeEventListener("pagehide", leave);
    leave();
  };
}

function render({ model, el }) {
  let isDead = el.classList.contains("jupyter-widgets-disconnected"); // as in a notebook that was run elsewhere
  const send = (/** @type {string} */ what, /** @type {any} */ value) => {
    if (isDead) return;
    try {
      model.send({ do: what, value });
    } catch (error) {
      console.debug("[control room] not sent:", what, error); // the kernel was shut down, and the page was not told
    }
  };
  const parts = [head(send), troubles(), storage(send), pool(send), load(send)];
  const gone = element("p", { class: "qml-gone", role: "status" });
  const form = element("div", { class: "qml-form", role: "group", "aria-label": "control room" });
  form.append(...parts.map((part) => part.node), gone);
  form.addEventListener("keydown", keepKey);
  el.classList.add("qml-panel");
  el.append(form);

  const paint = () => parts.forEach((part) => part.paint(model.get("facts")));
  const showLife = () => {
    gone.textContent = isDead ? "The kernel is gone; this is the last picture." : "";
    form.querySelectorAll("button, input, select").forEach((node) => (/** @type {any} */ (node).disabled = isDead));
  };
  const onLife = /** @this {any} the view, if it is known */ function () {
    isDead = !this?.model?.comm_live;
    showLife();
  };
  model.on("change:facts", paint);
  model.on("comm_live_update", onLife);
  paint();
  showLife();
  const forget = watch(el, send);
  return () => {
    forget();
    model.off("change:facts", paint);
    model.off("comm_live_update", onLife);
    form.remove();
  };
}

export default { render };
