// The frame of all labs: controls that work by mouse, touch and keyboard, drawings that follow the
// theme, and a read-out for screen readers. A lab imports from here and from nowhere else.

const SVG = "http://www.w3.org/2000/svg";

// Called once on a lab's root, before mount. Keys stay inside, or JupyterLab would take them.
export function frame(root) {
  for (const kind of ["keydown", "keyup", "keypress"]) {
    root.addEventListener(kind, (event) => event.stopPropagation());
  }
}

// An HTML element: h("p", {class: "dl-note"}, "text", child, ...).
export function h(tag, attributes = {}, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

// An SVG element, the same way.
export function s(tag, attributes = {}, ...children) {
  return dress(document.createElementNS(SVG, tag), attributes, children);
}

function dress(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

export function row(...children) {
  return h("div", {class: "dl-row"}, ...children);
}

// A number as text: two decimals by default, a true minus sign.
export function fmt(x, digits = 2) {
  const text = Math.abs(x) < 0.5 * 10 ** -digits ? (0).toFixed(digits) : x.toFixed(digits);
  return text.replace("-", "\u2212");
}

// A small digit below a letter: sub("r", 10) is r₁₀.
export function sub(letter, number) {
  return letter + [...String(number)].map((digit) => "₀₁₂₃₄₅₆₇₈₉"[+digit]).join("");
}

export function clamp(x, low, high) {
  return Math.min(high, Math.max(low, x));
}

// slider({label, min, max, step, value, show, change}): change(value) at every move.
// Returns {node, value (now), set(value)}.
export function slider({label, min, max, step, value, show = (x) => fmt(x), change = () => {}}) {
  const input = h("input", {type: "range", min, max, step, value, "aria-label": label});
  const output = h("output", {"aria-live": "off"}, show(value)); // the slider says its value itself
  const node = h("label", {class: "dl-slider"}, h("span", {}, label), input, output);
  const tell = () => {
    output.textContent = show(+input.value);
    input.setAttribute("aria-valuetext", show(+input.value));
  };
  tell();
  input.addEventListener("input", () => { tell(); change(+input.value); });
  const set = (x) => { input.value = x; tell(); };
  return {node, set, limit: (low, high) => { input.min = low; input.max = high; tell(); },
          get value() { return +input.value; }};
}

let groups = 0;

// choice({label, options: ["V1", "V2"], value, change}): one of several, as radio buttons.
export function choice({label, options, value, change = () => {}}) {
  const name = `dl-choice-${groups++}`;
  const inputs = options.map((option) => h("input", {type: "radio", name, value: option}));
  const node = h("fieldset", {}, h("legend", {}, label),
    ...inputs.map((input, i) => h("label", {}, input, " " + options[i])));
  const set = (option) => inputs.forEach((input) => { input.checked = input.value === option; });
  set(value);
  inputs.forEach((input) => input.addEventListener("change", () => change(input.value)));
  return {node, set, get value() { return inputs.find((input) => input.checked).value; }};
}

// button("Step", act) -> node.
export function button(label, act) {
  const node = h("button", {type: "button"}, label);
  node.addEventListener("click", act);
  return node;
}

// toggle("Shift the index", change, false): a button that stays down; change(on).
export function toggle(label, change, on = false) {
  const node = button(label, () => {
    const now = node.getAttribute("aria-pressed") !== "true";
    node.setAttribute("aria-pressed", now);
    change(now);
  });
  node.setAttribute("aria-pressed", on);
  return node;
}

// readout() -> {node, say(text)}: what the picture shows, in words; read aloud when it rests.
export function readout() {
  const node = h("p", {class: "dl-said"});
  const spoken = h("span", {
    "aria-live": "polite",
    style: "position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)",
  });
  let timer = 0;
  const say = (text) => {
    const first = node.textContent === "";
    node.textContent = text;
    if (first) return; // the page has just come up: nobody asked
    clearTimeout(timer);
    timer = setTimeout(() => { spoken.textContent = text; }, 600);
  };
  return {node: h("div", {style: "position:relative"}, node, spoken), say};
}

// bars({label, names, values, min, max, step, tone, change, height, shade}): bars over a zero line.
// With `change(index, value)` they can be dragged, or moved by the arrow keys: left and right choose
// a bar, up and down change it. draw(values, {marks, tones, names}) redraws: marks are short lines
// across the bars (null: none), e.g. a second result. Number of bars may change with `draw`.
export function bars({label, names, values, min, max, step = (max - min) / 40, tone = "blue",
                      change = null, height = 110, digits = 2}) {
  const W = 360, top = 14, low = height - 16;
  const y = (v) => low - (clamp(v, min, high) - min) / (high - min) * (low - top);
  const svg = s("svg", {viewBox: `0 0 ${W} ${height}`, role: change ? "group" : "img", "aria-label": label});
  if (change) svg.style.touchAction = "pan-x"; // a finger drags; browsers heed it on the drawing, not on its parts
  const node = h("div", {}, h("p", {class: "dl-title"}, label), svg);
  let now = [...values], chosen = 0, called = [...names], items = [], high = max;

  const tell = () => {
    if (!change) svg.setAttribute("aria-label", `${label}: ` + now.map((v, i) => `${called[i]} ${fmt(v, digits)}`).join(", "));
  };
  const move = (i, v) => {
    const rounded = clamp(Math.round(v / step) * step, min, max);
    now[i] = rounded;
    change(i, rounded);
  };
  const key = (event) => {
    const by = {ArrowUp: 1, ArrowDown: -1, PageUp: 5, PageDown: -5}[event.key];
    const to = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (by) move(chosen, now[chosen] + by * step);
    else if (event.key === "Home") move(chosen, min);
    else if (event.key === "End") move(chosen, max);
    else if (to) choose(clamp(chosen + to, 0, now.length - 1), true);
    else return;
    event.preventDefault();
  };
  const choose = (i, focus) => {
    chosen = i;
    items.forEach((item, j) => item.group.setAttribute("tabindex", j === i ? 0 : -1));
    if (focus) items[i].group.focus();
  };
  const build = () => {
    const gap = W / called.length, wide = Math.min(34, 0.7 * gap);
    svg.replaceChildren(s("line", {x1: 0, x2: W, y1: y(0), y2: y(0), stroke: "var(--dl-grid)"}));
    items = called.map((name, i) => {
      const middle = (i + 0.5) * gap;
      const area = s("rect", {x: i * gap, width: gap, y: 0, height, fill: "transparent"});
      const bar = s("rect", {x: middle - wide / 2, width: wide, rx: 2});
      const mark = s("line", {x1: middle - wide / 2 - 4, x2: middle + wide / 2 + 4,
        stroke: "var(--dl-text)", "stroke-width": 2, "stroke-dasharray": "4 2", visibility: "hidden"});
      const text = s("text", {x: middle, "text-anchor": "middle"});
      const foot = s("text", {x: middle, y: height - 3, "text-anchor": "middle", class: "dl-dim"}, name);
      const group = s("g", {class: "dl-bar" + (change ? "" : " dl-fixed")}, area, bar, mark, text, foot);
      if (change) live(group, i);
      svg.append(group);
      return {group, bar, mark, text};
    });
    choose(Math.min(chosen, called.length - 1), false);
    if (!change) items.forEach((item) => item.group.removeAttribute("tabindex"));
  };
  const live = (group, i) => {
    dress(group, {role: "slider", "aria-label": `${label}, ${called[i]}`, "aria-valuemin": min,
      "aria-valuemax": max, "aria-orientation": "vertical", tabindex: -1}, []);
    const drag = (event) => {
      const box = svg.getBoundingClientRect();
      const at = (event.clientY - box.top) / box.height * height;
      move(i, min + (low - at) / (low - top) * (max - min));
    };
    group.addEventListener("pointerdown", (event) => {
      group.setPointerCapture(event.pointerId);
      choose(i, true);
      drag(event);
      event.preventDefault();
    });
    group.addEventListener("pointermove", (event) => group.hasPointerCapture(event.pointerId) && drag(event));
    group.addEventListener("keydown", key);
    group.addEventListener("focus", () => choose(i, false)); // a screen reader may come here without the arrows
  };
  const draw = (next, {marks = [], tones = [], names: fresh = called, top: most = max} = {}) => {
    now = [...next];
    high = most; // only where min is 0: the zero line stays
    if (fresh.join() !== called.join() || items.length !== now.length) {
      called = [...fresh];
      build();
    }
    items.forEach(({group, bar, mark, text}, i) => {
      const at = y(now[i]), zero = y(0);
      dress(bar, {y: Math.min(at, zero), height: Math.max(1, Math.abs(at - zero)), fill: `var(--dl-${tones[i] ?? tone})`}, []);
      text.textContent = fmt(now[i], digits) + (now[i] > high ? " \u2191" : now[i] < min ? " \u2193" : ""); // taller than there is room
      const marked = marks[i] !== undefined && marks[i] !== null, above = Math.min(at, zero) - 3;
      const hidden = marked && Math.abs(y(marks[i]) - (above - 4)) < 8;  // by the mark: go above it
      text.setAttribute("y", Math.max(10, hidden ? Math.min(above, y(marks[i]) - 3) : above));
      mark.setAttribute("visibility", marked ? "visible" : "hidden");
      if (marked) dress(mark, {y1: y(marks[i]), y2: y(marks[i])}, []);
      if (change) dress(group, {"aria-valuenow": +now[i].toFixed(6), "aria-valuetext": fmt(now[i], digits)}, []);
    });
    tell();
  };
  build();
  draw(now);
  return {node, draw, get values() { return [...now]; }};
}

// chart({label, xlabel, ylabel, height}): lines over x. draw([{name, tone, points: [[x, y], ...],
// dashed}], {x: [low, high], y: [low, high], shade: [x0, x1] or null, cursor: x or null}).
export function chart({label, xlabel = "", ylabel = "", height = 150}) {
  const W = 360, left = 38, right = 8, top = 10, low = height - 30;
  const svg = s("svg", {viewBox: `0 0 ${W} ${height}`, role: "img", "aria-label": label});
  const key = h("p", {class: "dl-note"});
  const node = h("div", {}, h("p", {class: "dl-title"}, label), svg, key);
  const draw = (lines, {x, y, shade = null, band = null, cursor = null, words = ""}) => {
    const px = (v) => left + (v - x[0]) / (x[1] - x[0]) * (W - left - right);
    const py = (v) => low - (clamp(v, y[0], y[1]) - y[0]) / (y[1] - y[0]) * (low - top);
    svg.replaceChildren();
    if (shade) svg.append(s("rect", {x: px(shade[0]), width: px(shade[1]) - px(shade[0]), y: top, height: low - top, fill: "var(--dl-shade)"}));
    if (band) svg.append(s("rect", {x: left, width: W - left - right, y: py(band[1]), height: py(band[0]) - py(band[1]), fill: "var(--dl-shade)"}));
    svg.append(s("path", {d: `M${left} ${top}V${low}H${W - right}`, fill: "none", stroke: "var(--dl-grid)"}));
    for (const [v, place] of [[x[0], "start"], [x[1], "end"]]) svg.append(s("text", {x: px(v), y: low + 13, "text-anchor": place, class: "dl-dim"}, tick(v)));
    for (const v of y) svg.append(s("text", {x: left - 4, y: py(v) + 4, "text-anchor": "end", class: "dl-dim"}, tick(v)));
    svg.append(s("text", {x: (left + W) / 2, y: height - 4, "text-anchor": "middle", class: "dl-dim"}, xlabel));
    svg.append(s("text", {x: left + 4, y: top + 8, class: "dl-dim"}, ylabel));
    for (const {tone, points, dashed} of lines) {
      const d = points.map(([a, b], i) => `${i ? "L" : "M"}${px(a).toFixed(1)} ${py(b).toFixed(1)}`).join("");
      svg.append(s("path", {d, fill: "none", stroke: `var(--dl-${tone})`, "stroke-width": 2, "stroke-dasharray": dashed ? "5 3" : "none"}));
      const last = points.at(-1);
      if (last) svg.append(s("circle", {cx: px(last[0]), cy: py(last[1]), r: 3, fill: `var(--dl-${tone})`}));
    }
    if (cursor !== null) svg.append(s("line", {x1: px(cursor), x2: px(cursor), y1: top, y2: low, stroke: "var(--dl-text)", "stroke-dasharray": "2 3"}));
    key.replaceChildren(...lines.flatMap(({name, tone, dashed}) => [
      h("span", {style: `color:var(--dl-${tone});font-weight:600`}, `${dashed ? "- -" : "\u2014"} ${name}`), "  "]));
    if (words) svg.setAttribute("aria-label", `${label}. ${words}`);
  };
  return {node, draw};
}

function tick(v) {
  const text = Math.abs(v) >= 10000 || (v && Math.abs(v) < 0.01) ? v.toExponential(1).replace("e+", "e") : String(+v.toFixed(2));
  return text.replaceAll("-", "\u2212");
}

// player({label, step, every}): a button that calls step() again and again until it is pressed
// again or step() returns false. Who asked for reduced motion gets all steps at once (at most 400).
export function player({label = "Run", stop = "Stop", step, every = 60}) {
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  let timer = 0;
  const node = button(label, () => (timer ? halt() : start()));
  const halt = () => { clearInterval(timer); timer = 0; node.textContent = label; };
  const start = () => {
    if (still.matches) {
      for (let i = 0; i < 400 && step() !== false; i++);
      return;
    }
    node.textContent = stop;
    timer = setInterval(() => (!node.isConnected || step() === false) && halt(), every);
  };
  return {node, stop: halt};
}
