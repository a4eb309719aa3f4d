// twohot-lab: a target to drag along the bins; its two weights, what two heads learn to say about a
// lottery, the symlog curve, and how hard three losses pull. u is always symlog of a plain number.
import { bars, chart, choice, clamp, fmt, h, readout, row, s, slider } from "./frame.js";

export function symlog(x) {
  return Math.sign(x) * Math.log1p(Math.abs(x));
}

export function symexp(x) {
  return Math.sign(x) * Math.expm1(Math.abs(x));
}

// b_i = symexp(-limit + 2 limit i / (count - 1)); the upper half mirrors the lower. count is odd.
export function symexpBins(count, limit) {
  const middle = (count - 1) / 2;
  return Array.from({length: count}, (_, i) => {
    const b = symexp(limit * Math.abs(i - middle) / middle);
    return i < middle ? -b : b;
  });
}

// The weights of y on its two neighbors; beyond the ends all weight is on the end bin.
export function twohot(y, bins) {
  const x = clamp(y, bins[0], bins.at(-1)), weights = bins.map(() => 0);
  let k = bins.length - 2;
  while (k > 0 && x < bins[k]) k--;
  const share = (x - bins[k]) / (bins[k + 1] - bins[k]);
  weights[k] += 1 - share;
  weights[k + 1] += share;
  return weights;
}

function dot(p, b) {
  return p.reduce((sum, x, i) => sum + x * b[i], 0);
}

function mix(p, q, chance) {
  return p.map((x, i) => chance * x + (1 - chance) * q[i]);
}

// What is learned about a lottery, `prize` with `chance` and else 0: by twohot, and by the head of
// 2023, which shares and averages in symlog space.
export function learned(prize, chance, bins) {
  const even = bins.map(symlog);
  return [
    dot(mix(twohot(prize, bins), twohot(0, bins), chance), bins),
    symexp(dot(mix(twohot(symlog(prize), even), twohot(0, even), chance), even)),
  ];
}

// Length of the gradient at the outputs of a head that is sure of `guess`: squared error, squared
// error in symlog space, twohot.
export function pulls(y, guess, bins) {
  const p = twohot(guess, bins), tau = twohot(y, bins);
  return [
    Math.abs(guess - y),
    Math.abs(symlog(guess) - symlog(y)),
    Math.hypot(...p.map((x, i) => x - tau[i])),
  ];
}

function plain(x) {
  const size = Math.abs(x);
  if (size < 1e6 && Math.abs(x - Math.round(x)) < 1e-6) return fmt(x, 0);
  if (size >= 1e6) return x.toExponential(1).replaceAll("-", "\u2212").replace("e+", "e");
  return fmt(x, size >= 100 ? 0 : size >= 10 ? 1 : 2);
}

const SETS = {
  "7, by hand": {count: 7, limit: 3 * Math.log(2), step: 0.05, named: [-7, -3, -1, 0, 1, 3, 7]},
  "255, as in V3": {count: 255, limit: 20, step: 0.1, named: [-1e8, -1e6, -1e4, -100, 0, 100, 1e4, 1e6, 1e8]},
};

// The bins on a line, evenly spaced in symlog space, with a target that can be dragged.
function line(change) {
  const W = 360, side = 20, base = 84;
  const svg = s("svg", {viewBox: `0 0 ${W} 116`, role: "group", style: "touch-action:pan-y", "aria-label": "Bins and target"});
  const grip = s("path", {d: "M0 0L8 14H-8Z", fill: "var(--dl-orange)"});
  const area = s("rect", {x: 0, y: 0, width: W, height: 116, fill: "transparent"});
  const handle = s("g", {class: "dl-bar", style: "cursor:ew-resize", role: "slider", tabindex: 0,
    "aria-label": "Target", "aria-orientation": "horizontal"}, area, grip);
  const scene = s("g", {}); // redrawn; the handle stays where it is, or it would lose the focus
  svg.append(scene, handle);
  let set = null, now = 0, touched = null;  // touched: where a finger came down that has not dragged yet
  const px = (u) => side + (clamp(u, -1.05 * set.limit, 1.05 * set.limit) / set.limit + 1) / 2 * (W - 2 * side);
  const move = (u) => change(clamp(u, -1.05 * set.limit, 1.05 * set.limit));
  const drag = (event) => {
    const box = svg.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * W;
    move(((at - side) / (W - 2 * side) * 2 - 1) * set.limit);
  };
  handle.addEventListener("pointerdown", (event) => {
    handle.setPointerCapture(event.pointerId);
    handle.focus();
    touched = event.pointerType === "touch" ? [event.clientX, event.clientY] : null;
    if (!touched) drag(event);
    event.preventDefault();
  });
  handle.addEventListener("pointermove", (event) => {
    if (!handle.hasPointerCapture(event.pointerId)) return;
    if (touched && Math.abs(event.clientX - touched[0]) <= Math.abs(event.clientY - touched[1])) return;  // it scrolls
    touched = null;
    drag(event);
  });
  handle.addEventListener("pointerup", (event) => touched && drag(event));  // a tap
  handle.addEventListener("keydown", (event) => {
    const by = {ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10}[event.key];
    if (by) move(now + by * set.step);
    else if (event.key === "Home") move(-set.limit);
    else if (event.key === "End") move(set.limit);
    else return;
    event.preventDefault();
  });
  const mark = (u, text, height, tone) => [
    s("line", {x1: px(u), x2: px(u), y1: base, y2: 32, stroke: `var(--dl-${tone})`, "stroke-width": 1.5, "stroke-dasharray": tone === "purple" ? "3 2" : "none"}),
    s("text", {x: clamp(px(u), 56, W - 56), y: height - 3, "text-anchor": "middle", style: `fill:var(--dl-${tone})`}, text),
  ];
  const draw = (chosen, places, weights, u, [mean, squeezed]) => {
    set = chosen;
    now = u;
    const tick = (v, low) => s("line", {x1: px(v), x2: px(v), y1: base, y2: base + low, stroke: "var(--dl-muted)"});
    const few = places.length < 20;
    scene.replaceChildren(
      s("line", {x1: 4, x2: W - 4, y1: base, y2: base, stroke: "var(--dl-grid)"}),
      ...places.map((v) => tick(v, few ? 6 : 3)),
      ...set.named.map((b) => s("text", {x: px(symlog(b)), y: base + 28, "text-anchor": "middle", class: "dl-dim"}, few ? plain(b) : plain(b).replace(".0e", "e").replace("10000", "1e4"))),
      ...places.flatMap((v, i) => (weights[i] > 0
        ? [s("rect", {x: px(v) - 2.5, width: 5, y: base - 40 * weights[i], height: 40 * weights[i], fill: "var(--dl-blue)", opacity: 0.75})] : [])),
      ...mark(symlog(mean), `twohot says ${plain(mean)}`, 28, "blue"),
      ...mark(symlog(squeezed), `2023 says ${plain(squeezed)}`, 13, "purple"),
    );
    grip.setAttribute("transform", `translate(${px(u)} ${base + 1})`);
    for (const [key, value] of Object.entries({"aria-valuemin": -1.05 * set.limit, "aria-valuemax": 1.05 * set.limit, "aria-valuenow": +u.toFixed(4), "aria-valuetext": plain(symexp(u))})) handle.setAttribute(key, value);
  };
  return {node: h("div", {}, h("p", {class: "dl-title"}, "Bins, even in symlog space. Drag the target"), svg), draw};
}

export function mount(root, data) {
  const state = {
    name: Object.keys(SETS).find((name) => SETS[name].count === data.bins),
    u: symlog(data.target), guess: symlog(data.guess), chance: data.chance,
  };
  const count = choice({label: "Bins", options: Object.keys(SETS), value: state.name, change: (name) => {
    state.name = name;
    const limit = SETS[name].limit;
    state.u = clamp(state.u, -limit, limit);
    state.guess = clamp(state.guess, -limit, limit);
    guess.limit(-limit, limit);
    guess.set(state.guess);
    update();
  }});
  const axis = line((u) => { state.u = u; update(); });
  const chance = slider({label: "Chance of the target, else 0", min: 0, max: 1, step: 0.01, value: state.chance, change: (x) => { state.chance = x; update(); }});
  const guess = slider({label: "The head says", min: -SETS[state.name].limit, max: SETS[state.name].limit, step: 0.01, value: state.guess, show: (u) => plain(symexp(u)), change: (u) => { state.guess = u; update(); }});
  const near = bars({label: "Weights", names: ["0"], values: [0], min: 0, max: 1, height: 110, digits: 3});
  const curve = chart({label: "Symlog of the target", xlabel: "target"});
  const pull = chart({label: "Pull of three losses: length of the gradient", xlabel: "symlog of the target"});
  const said = readout();

  function update() {
    const set = SETS[state.name], bins = symexpBins(set.count, set.limit);
    const y = symexp(state.u), g = symexp(state.guess), zero = (set.count - 1) / 2;
    const weights = mix(twohot(y, bins), twohot(0, bins), state.chance);
    const means = learned(y, state.chance, bins);
    axis.draw(set, bins.map(symlog), weights, state.u, means);

    const k = twohot(y, bins).findIndex((w) => w > 0);
    const shown = set.count < 20 ? bins.map((_, i) => i)
      : [...new Set([zero, k - 1, k, k + 1, k + 2])].filter((i) => i >= 0 && i < set.count).sort((a, b) => a - b);
    near.draw(shown.map((i) => weights[i]), {names: shown.map((i) => plain(bins[i]))});

    const reach = Math.max(8, 1.2 * Math.abs(y));
    const along = (from, to, f) => Array.from({length: 121}, (_, i) => { const x = from + (to - from) * i / 120; return [x, f(x)]; });
    curve.draw([{name: "symlog", tone: "green", points: along(-symlog(reach), symlog(reach), symexp).map(([u, x]) => [x, u])}],
      {x: [-reach, reach], y: [-symlog(reach), symlog(reach)], cursor: y, words: `At ${plain(y)} it is ${fmt(state.u)}.`});

    const end = 1.05 * set.limit, all = along(-end, end, (u) => pulls(symexp(u), g, bins));
    const top = set.count < 20 ? 4 : 24, now = pulls(y, g, bins);
    const part = (i) => all.filter(([, p]) => p[i] <= top).map(([u, p]) => [u, p[i]]);
    pull.draw([
      {name: "squared error", tone: "orange", dashed: true, points: part(0)},
      {name: "in symlog space", tone: "green", points: part(1)},
      {name: "twohot", tone: "blue", points: part(2)},
    ], {x: [-end, end], y: [0, top], cursor: state.u, words: `At the target: ${now.map(plain).join(", ")}.`});

    const beyond = Math.abs(y) > bins.at(-1) * (1 + 1e-9) ? " It lies beyond the bins, so the end bin stands for it." : "";
    const on = shown.filter((i) => weights[i] > 0.0005).map((i) => `${fmt(weights[i], 3)} on ${plain(bins[i])}`).join(", ");
    said.say(`Target ${plain(y)}${state.chance < 1 ? ` with chance ${fmt(state.chance)}, else 0: mean ${plain(state.chance * y)}` : ""}. Weights: ${on}.${beyond} ` +
      `The twohot head learns to say ${plain(means[0])}, the head of 2023 ${plain(means[1])}. ` +
      `A head that is sure of ${plain(g)} is pulled with ${plain(now[0])} by squared error, ${fmt(now[1])} in symlog space, ${fmt(now[2])} by twohot.`);
  }

  root.append(
    row(count.node), axis.node, row(chance.node, guess.node),
    h("div", {class: "dl-two"}, near.node, pull.node, curve.node), said.node,
  );
  update();
}
