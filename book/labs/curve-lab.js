// curve-lab: one learning curve, four clocks. Our runs as lines, published results as points, over
// frames, agent steps, updates or hours.
import { choice, fmt, h, readout, row, s, slider } from "./frame.js";

export const AXES = ["frames", "agent steps", "updates", "hours"];
const SCORE = 4; // of a point [frames, steps, updates, hours, score]
const TONES = ["blue", "green", "purple"], DASHES = ["none", "6 3", "2 3"];
const W = 360, H = 240, LEFT = 34, RIGHT = 8, TOP = 20, LOW = H - 34;

// Points [x, score] on an axis; those that have no place on it are left out.
export function along(points, axis) {
  const column = AXES.indexOf(axis);
  return points.filter((p) => p[column] !== null).map((p) => [p[column], p[SCORE]]);
}

// Each score replaced by the mean of its neighbors, `reach` of them on either side where there are.
export function smooth(points, reach) {
  return points.map(([x], i) => {
    const near = points.slice(Math.max(0, i - reach), i + reach + 1);
    return [x, near.reduce((sum, [, y]) => sum + y, 0) / near.length];
  });
}

// The score at a place of the axis, linear between the points; null outside of them.
export function at(points, x) {
  if (!points.length || x < points[0][0] || x > points.at(-1)[0]) return null;
  const i = Math.max(1, points.findIndex(([a]) => a >= x));
  if (points.length === 1) return points[0][1];
  const [[a, low], [b, high]] = [points[i - 1], points[i]];
  return b > a ? low + (high - low) * (x - a) / (b - a) : high;
}

// The first place at which a curve is above a level; null if it never is.
export function passes(points, level) {
  const found = points.find(([, y]) => y > level);
  return found ? found[0] : null;
}

// 1, 2 or 5 times a power of ten: a step that divides a range into four parts or a few more.
export function tickStep(range) {
  const raw = range / 4, power = 10 ** Math.floor(Math.log10(raw));
  return power * [5, 2, 1].find((k) => k * power <= raw * 1.0001);
}

function ticks(low, high) {
  const by = tickStep(high - low), found = [];
  for (let v = Math.ceil(low / by) * by; v <= high + 1e-9; v += by) found.push(v);
  return found;
}

function short(x, axis) {
  if (axis === "hours") return fmt(x, x < 10 && x % 1 ? 1 : 0);
  return x >= 1e6 ? `${fmt(x / 1e6, x % 1e6 ? 1 : 0)}M` : x >= 1e3 ? `${fmt(x / 1e3, x % 1e3 ? 1 : 0)}k` : fmt(x, 0);
}

function said(x, axis) {
  return axis === "hours" ? `${fmt(x)} hours` : `${Math.round(x).toLocaleString("en-US")} ${axis}`;
}

export function mount(root, data) {
  const games = [...new Set(data.runs.map((run) => run.game))];
  const state = {axis: AXES[0], game: games[0], reach: 0, place: 50};
  const svg = s("svg", {viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "Score over frames"});
  const key = h("p", {class: "dl-note"}), words = readout();
  const axis = choice({label: "Horizontal axis", options: AXES, value: state.axis, change: (x) => { state.axis = x; draw(); }});
  const game = choice({label: "Game", options: games, value: state.game, change: (x) => { state.game = x; draw(); }});
  const reach = slider({label: "Smooth over neighbors", min: 0, max: 5, step: 1, value: 0, show: (x) => fmt(x, 0),
    change: (x) => { state.reach = x; draw(); }});
  const place = slider({label: "Look at, % of the axis", min: 0, max: 100, step: 1, value: 50, show: (x) => fmt(x, 0),
    change: (x) => { state.place = x; draw(); }});

  function draw() {
    const mine = data.runs.filter((run) => run.game === state.game)
      .map((run) => ({...run, points: smooth(along(run.points, state.axis), state.reach)}));
    const others = data.published.filter((one) => one.game === state.game)
      .map((one) => ({...one, points: along(one.points, state.axis)}));
    const [random, human] = data.baselines[state.game];
    const all = [...mine, ...others].flatMap((one) => one.points);
    const xs = [0, 1.03 * Math.max(...all.map(([x]) => x))];
    const heights = [random, human, ...all.map(([, y]) => y)];
    const span = Math.max(...heights) - Math.min(...heights);
    const ys = [Math.min(...heights) - 0.06 * span, Math.max(...heights) + 0.12 * span];
    const px = (x) => LEFT + (x - xs[0]) / (xs[1] - xs[0]) * (W - LEFT - RIGHT);
    const py = (y) => LOW - (y - ys[0]) / (ys[1] - ys[0]) * (LOW - TOP);
    const put = (tag, attributes, ...children) => svg.append(s(tag, attributes, ...children));
    svg.replaceChildren();
    put("path", {d: `M${LEFT} ${TOP}V${LOW}H${W - RIGHT}`, fill: "none", stroke: "var(--dl-grid)"});
    for (const x of ticks(...xs)) put("text", {x: px(x), y: LOW + 15, "text-anchor": "middle", class: "dl-dim"}, short(x, state.axis));
    for (const y of ticks(...ys)) put("text", {x: LEFT - 5, y: py(y) + 4, "text-anchor": "end", class: "dl-dim"}, fmt(y, 0));
    put("text", {x: (LEFT + W) / 2, y: H - 5, "text-anchor": "middle", class: "dl-dim"}, state.axis);
    put("text", {x: 0, y: 11, class: "dl-dim"}, "score of an episode");
    for (const [level, name] of [[random, "random player"], [human, "human"]]) {
      put("line", {x1: LEFT, x2: W - RIGHT, y1: py(level), y2: py(level), stroke: "var(--dl-muted)", "stroke-dasharray": "2 4"});
      put("text", {x: W - RIGHT, y: py(level) - 4, "text-anchor": "end", class: "dl-dim"}, name);
    }
    const cursor = xs[0] + state.place / 100 * (xs[1] - xs[0]);
    put("line", {x1: px(cursor), x2: px(cursor), y1: TOP, y2: LOW, stroke: "var(--dl-text)", "stroke-dasharray": "2 3"});
    mine.forEach(({points}, i) => {
      const d = points.map(([x, y], j) => `${j ? "L" : "M"}${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join("");
      put("path", {d, fill: "none", stroke: `var(--dl-${TONES[i % 3]})`, "stroke-width": 2, "stroke-dasharray": DASHES[i % 3]});
    });
    others.forEach(({points, spread}, i) => points.forEach(([x, y], j) => {
      const color = `var(--dl-${i ? "purple" : "orange"})`, r = 5;
      if (spread && j === points.length - 1) put("line", {x1: px(x), x2: px(x), y1: py(y - spread), y2: py(y + spread), stroke: color, "stroke-width": 2});
      if (i) put("rect", {x: px(x) - r + 1, y: py(y) - r + 1, width: 2 * r - 2, height: 2 * r - 2, fill: color});
      else put("path", {d: `M${px(x)} ${py(y) - r}l${r} ${r}l${-r} ${r}l${-r} ${-r}z`, fill: color});
    }));
    const label = (name, tone, mark) => h("span", {style: `color:var(--dl-${tone});font-weight:600;margin-right:1em`}, `${mark} ${name}`);
    key.replaceChildren(
      ...mine.map(({name}, i) => label(name, TONES[i % 3], ["\u2014", "- -", "\u00b7\u00b7"][i % 3])),
      ...others.filter(({points}) => points.length).map(({name}, i) => label(name, i ? "purple" : "orange", i ? "\u25a0" : "\u25c6")));

    const told = mine.map(({name, points}) => {
      const here = at(points, cursor), first = passes(points, human);
      return `${name}: ${here === null ? "no score here" : `score ${fmt(here, 1)}`}` +
        (first === null ? ", never above the human." : `; first above the human at ${said(first, state.axis)}.`);
    });
    const hidden = state.axis === "hours" ? " The hours of the published runs are not known." : "";
    const text = `At ${said(cursor, state.axis)}: ${told.join(" ")}${hidden}`;
    svg.setAttribute("aria-label", `${state.game}, score over ${state.axis}. ${text}`);
    words.say(text);
  }

  root.append(row(axis.node), ...(games.length > 1 ? [row(game.node)] : []), svg, key, row(reach.node, place.node), words.node);
  draw();
}
