// rssm-lab: step a trained world model through a recorded game. At each tick it may look (the
// posterior draws z) or dream (the prior does). The model runs here, in plain JavaScript.
import { button, choice, fmt, h, readout, row, s, sub } from "./frame.js";

// Weights travel as one signed byte each: {shape, scale, data (base64)} -> numbers, row by row.
export function unpack({shape, scale, data}) {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  return {shape, values: [...new Int8Array(bytes.buffer)].map((x) => x * scale)};
}

export function load(packed) {
  const weights = Object.entries(packed.weights).map(([name, w]) => [name, unpack(w)]);
  return {...packed, weights: Object.fromEntries(weights)};
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const mean = (x) => x.reduce((a, b) => a + b, 0) / x.length;

function linear(m, name, x) {
  const w = m.weights[`${name}.weight`], b = m.weights[`${name}.bias`].values;
  return b.map((sum, i) => x.reduce((y, v, j) => y + w.values[i * w.shape[1] + j] * v, sum));
}

// One hidden layer: linear, RMS norm, SiLU.
function hidden(m, name, x) {
  const y = linear(m, `${name}.0`, x), size = Math.sqrt(mean(y.map((v) => v * v)) + 1e-4);
  const scaled = y.map((v, i) => v / size * m.weights[`${name}.1.weight`].values[i]);
  return scaled.map((v) => v * sigmoid(v));
}

function layerNorm(m, name, x) {
  const center = mean(x), size = Math.sqrt(mean(x.map((v) => (v - center) ** 2)) + 1e-3);
  const [scale, shift] = ["weight", "bias"].map((k) => m.weights[`${name}.${k}`].values);
  return x.map((v, i) => (v - center) / size * scale[i] + shift[i]);
}

// h_t = f(h, z, a), all of t - 1: the cell of V2.
export function recur(m, state, a) {
  const x = hidden(m, "rssm.cell.inputs", [...state.z, ...a]);
  const y = layerNorm(m, "rssm.cell.norm", linear(m, "rssm.cell.gates", [...x, ...state.h]));
  const D = state.h.length;
  return state.h.map((old, i) => {
    const u = sigmoid(y[2 * D + i] - 1);
    return u * Math.tanh(sigmoid(y[i]) * y[D + i]) + (1 - u) * old;
  });
}

// Logits -> probabilities of each die, flat; 1 % is spread evenly.
function dice(m, logits) {
  const K = m.classes;
  return logits.map((_, i) => {
    const own = logits.slice(i - i % K, i - i % K + K), top = Math.max(...own);
    const e = own.map((v) => Math.exp(v - top));
    return (1 - m.unimix) * e[i % K] / e.reduce((a, b) => a + b) + m.unimix / K;
  });
}

export function prior(m, memory) {
  return dice(m, linear(m, "rssm.prior_net.3", hidden(m, "rssm.prior_net", memory)));
}

export function posterior(m, memory, embed) {
  return dice(m, linear(m, "rssm.post_net.3", hidden(m, "rssm.post_net", [...memory, ...embed])));
}

// Faces drawn with one number from 0 to 1 for each die -> one-hots, flat.
export function draw(m, probs, uniform) {
  const K = m.classes;
  return probs.map((_, i) => {
    const g = Math.floor(i / K), own = probs.slice(g * K, g * K + K);
    let sum = 0;
    const below = own.filter((p) => (sum += p) <= uniform[g]).length;
    return +(i % K === Math.min(below, K - 1));
  });
}

export function kl(q, p) {
  return q.reduce((sum, x, i) => sum + x * Math.log(x / p[i]), 0);
}

// What the model believes to see: numbers from 0 to 1.
export function decode(m, state) {
  const x = hidden(m, "decoder.mlp", [...state.h, ...state.z]);
  return linear(m, "decoder.outs.vector", x).map((y) => Math.sign(y) * Math.expm1(Math.abs(y)));
}

export function initial(m) {
  return {h: Array(m.deter).fill(0), z: Array(m.groups * m.classes).fill(0)};
}

// One tick. embed: what the encoder makes of x_t, or null for a tick with closed eyes.
export function advance(m, state, a, embed, uniform) {
  const memory = recur(m, state, a), p = prior(m, memory);
  const q = embed && posterior(m, memory, embed);
  const now = {h: memory, z: draw(m, q || p, uniform)};
  return {...now, p, q, frame: decode(m, now), kl: q ? kl(q, p) : null};
}

// Random numbers that a test can repeat (mulberry32).
export function dicebox(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let x = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 4294967296;
  };
}

const PIXELS = 16, CELL = 9, LEFT = 4;
const TONE = {look: "orange", dream: "blue"};

export function mount(root, data) {
  const worlds = Object.fromEntries(Object.entries(data.worlds).map(([k, w]) => [k, {...w, model: load(w.model)}]));
  const state = {world: Object.keys(worlds)[0], ticks: []};
  const random = dicebox(data.seed ?? 1);
  const world = () => worlds[state.world], length = () => world().frames.length;
  const last = () => state.ticks.at(-1) ?? initial(world().model);

  const step = (mode) => {
    const {model, actions, embeds} = world(), t = state.ticks.length;
    if (t === length()) return false;
    const uniform = Array.from({length: model.groups}, random);
    state.ticks.push({mode, ...advance(model, last(), actions[t], mode === "look" ? embeds[t] : null, uniform)});
    return true;
  };
  const begin = () => {
    state.ticks = [];
    for (let t = 0; t < 3; t++) step("look");
    update();
  };

  const which = choice({label: "World", options: Object.keys(worlds), value: state.world, change: (x) => { state.world = x; begin(); }});
  const look = button("Observe", () => { step("look"); update(); });
  const dream = button("Imagine", () => { step("dream"); update(); });
  const finish = button("Imagine to the end", () => { while (step("dream")); update(); });
  const back = button("Back", () => { state.ticks.pop(); update(); });
  const start = button("To the start", () => { state.ticks = []; update(); });
  const games = picture("What happened"), beliefs = picture("What the model believes");
  const map = s("svg", {viewBox: "0 0 360 138", role: "img"});
  const faces = s("svg", {viewBox: "0 0 360 116", role: "img"});
  const memory = s("svg", {viewBox: "0 0 360 50", role: "img"});
  const said = readout();

  // A film: time runs right, one column of 16 pixels for each tick; a second object in green.
  function picture(title) {
    const svg = s("svg", {viewBox: `0 0 ${13 * CELL + 2 * LEFT} ${PIXELS * CELL + 16}`, role: "img", style: "max-width:15rem"});
    return {node: h("div", {style: "flex:1 1 0;max-width:20rem"}, h("p", {class: "dl-title"}, title), svg), svg, title};
  }
  const film = ({svg, title}, columns, tone) => {
    const cells = columns.flatMap((column, t) => [...column].map((v, i) => {
      const second = i >= PIXELS, level = Math.min(1, Math.max(0, v));
      return level < 0.03 ? null : s("rect", {x: LEFT + t * CELL + (second ? 2.5 : 0.5), width: CELL - (second ? 5 : 1),
        y: (i % PIXELS) * CELL + 0.5, height: CELL - 1, opacity: level.toFixed(2), fill: `var(--dl-${second ? "green" : tone(t)})`});
    })).filter(Boolean);
    const marks = state.ticks.map(({mode}, t) => s("text", {x: LEFT + (t + 0.5) * CELL, y: PIXELS * CELL + 13, "text-anchor": "middle",
      style: `fill:var(--dl-${TONE[mode]})`}, mode === "look" ? "o" : "–"));
    svg.replaceChildren(s("rect", {x: LEFT, y: 0, width: length() * CELL, height: PIXELS * CELL, fill: "none", stroke: "var(--dl-grid)"}), ...cells, ...marks);
    svg.setAttribute("aria-label", `${title}: ${columns.length} ticks. ` + (columns.length ? `Last: ${seen(columns.at(-1))}.` : ""));
  };

  // Where the objects of a column are, in words: an object is two rows with more ink than those beside them.
  const seen = (column) => {
    const one = (name, v) => {
      const ink = v.slice(1).map((x, i) => (Math.max(0, x) + Math.max(0, v[i])) / 2);
      const found = ink.flatMap((x, i) => (x >= 0.2 && x > (ink[i - 1] ?? 0) && x >= (ink[i + 1] ?? 0) ? [[x, i + 1.5]] : []));
      return found.map(([x, row]) => `${x < 0.7 ? "a faint " : ""}${name} at ${fmt(row, 1)}`).join(" and ") || `no ${name}`;
    };
    return world().names.map((name, i) => one(name, column.slice(i * PIXELS, (i + 1) * PIXELS))).join(", ");
  };

  const drawMap = (now) => {
    const t = state.ticks.length - 1, mode = now?.mode;
    const at = {past: [52, 69], h: [158, 69], x: [158, 18], q: [262, 18], p: [262, 120], z: [334, 69]};
    const label = {past: "h, z, a before", h: sub("h", Math.max(t, 0)), x: sub("x", Math.max(t, 0)), q: "posterior q", p: "prior p", z: sub("z", Math.max(t, 0))};
    const wide = {past: 92, h: 40, x: 40, q: 78, p: 64, z: 40};
    const on = {look: ["past", "h", "x", "q", "z"], dream: ["past", "h", "p", "z"]}[mode] ?? [];
    const used = {look: ["past>h", "h>q", "x>q", "q>z"], dream: ["past>h", "h>p", "p>z"]}[mode] ?? [];
    const tone = `var(--dl-${TONE[mode] ?? "grid"})`;
    const arrow = (name) => {
      const [a, b] = name.split(">"), active = used.includes(name), check = name === "h>p" && mode === "look";
      const [dx, dy] = [at[b][0] - at[a][0], at[b][1] - at[a][1]];
      const [from, to] = [a, b].map((k) => Math.min(wide[k] / 2 / Math.max(Math.abs(dx), 1), 12 / Math.max(Math.abs(dy), 1)));
      const point = (share) => [at[a][0] + dx * share, at[a][1] + dy * share];
      const [p, q] = [point(from), point(1 - to)], far = Math.hypot(dx, dy), [ux, uy] = [dx / far, dy / far];
      const wing = (turn) => `L${q[0] - 8 * ux + turn * 4 * uy} ${q[1] - 8 * uy - turn * 4 * ux}`;
      return s("path", {d: `M${p.join(" ")}L${q.join(" ")}${wing(1)}M${q.join(" ")}${wing(-1)}`, fill: "none",
        stroke: active ? tone : check ? "var(--dl-blue)" : "var(--dl-grid)", "stroke-width": active ? 3 : 1.2, "stroke-dasharray": active ? "none" : "3 3"});
    };
    const box = (k) => s("g", {}, s("rect", {x: at[k][0] - wide[k] / 2, y: at[k][1] - 12, width: wide[k], height: 24, rx: 5,
      fill: on.includes(k) ? "var(--dl-shade)" : "none", stroke: on.includes(k) ? tone : "var(--dl-grid)", "stroke-width": on.includes(k) ? 2 : 1}),
      s("text", {x: at[k][0], y: at[k][1] + 4, "text-anchor": "middle", class: on.includes(k) ? "" : "dl-dim"}, label[k]));
    map.replaceChildren(...["past>h", "h>q", "x>q", "h>p", "q>z", "p>z"].map(arrow), ...Object.keys(at).map(box));
    const words = {look: "memory, picture and posterior are used; the prior only for the KL", dream: "memory and prior are used; picture and posterior are not"};
    map.setAttribute("aria-label", `Which boxes are at work: ${words[mode] ?? "none yet"}.`);
  };

  // Prior and posterior bars of all dice; a dot below the face that was drawn.
  const drawFaces = (now) => {
    const {groups: G, classes: K} = world().model, gap = 360 / G, wide = (gap - 14) / K, low = 92;
    const bar = (x, w, v, tone) => s("rect", {x, width: w, y: low - 78 * v, height: Math.max(0.5, 78 * v), fill: `var(--dl-${tone})`});
    const items = [s("line", {x1: 0, x2: 360, y1: low, y2: low, stroke: "var(--dl-grid)"})];
    for (let g = 0; g < G; g++) {
      items.push(s("text", {x: (g + 0.5) * gap, y: 114, "text-anchor": "middle", class: "dl-dim"}, `die ${g + 1}`));
      for (let k = 0; now && k < K; k++) {
        const i = g * K + k, x = g * gap + 7 + k * wide;
        items.push(bar(x + 1, wide / 2 - 1, now.p[i], "blue"));
        if (now.q) items.push(bar(x + wide / 2, wide / 2 - 1, now.q[i], "orange"));
        if (now.z[i]) items.push(s("circle", {cx: x + (now.q ? wide / 2 : wide / 4 + 0.5), cy: low + 7, r: 3, fill: "var(--dl-text)"}));
      }
    }
    faces.replaceChildren(...items);
    const top = (v, g) => { const own = v.slice(g * K, g * K + K), k = own.indexOf(Math.max(...own)); return `face ${k + 1} with ${fmt(own[k])}`; };
    const words = Array.from({length: now ? G : 0}, (_, g) => `die ${g + 1}: prior ${top(now.p, g)}${now.q ? `, posterior ${top(now.q, g)}` : ""}`);
    faces.setAttribute("aria-label", `Prior and posterior. ${words.join("; ")}`);
  };

  const drawMemory = (now) => {
    const gap = 360 / now.h.length;
    memory.replaceChildren(s("line", {x1: 0, x2: 360, y1: 25, y2: 25, stroke: "var(--dl-grid)"}), ...now.h.map((v, i) => s("rect",
      {x: i * gap + 1, width: gap - 2, y: 25 - 24 * Math.max(v, 0), height: Math.max(0.5, 24 * Math.abs(v)), fill: "var(--dl-green)"})));
    memory.setAttribute("aria-label", `The memory h: ${now.h.length} numbers from ${fmt(Math.min(...now.h))} to ${fmt(Math.max(...now.h))}`);
  };

  function update() {
    const now = state.ticks.at(-1), t = state.ticks.length - 1, dreamt = now?.mode === "dream";
    film(games, world().frames.slice(0, t + 1), (i) => (state.ticks[i].mode === "look" ? "text" : "muted"));
    film(beliefs, state.ticks.map((x) => x.frame), (i) => TONE[state.ticks[i].mode]);
    drawMap(now);
    drawFaces(now);
    drawMemory(last());
    const over = t + 1 === length();
    for (const node of [look, dream, finish]) node.setAttribute("aria-disabled", over);
    for (const node of [back, start]) node.setAttribute("aria-disabled", !now);
    if (!now) return said.say("Nothing has happened: memory and latent are zero. Press Observe or Imagine.");
    const news = dreamt ? "Eyes closed: the prior drew z." : `Eyes open: the posterior drew z. News: KL = ${fmt(now.kl)} nats.`;
    said.say(`Tick ${t} of ${length() - 1}. ${news} The model believes: ${seen(now.frame)}. ` +
      `${dreamt ? "What it did not see" : "It saw"}: ${seen(world().frames[t])}.${over ? " The game is over." : ""}`);
  }

  root.append(
    ...(Object.keys(worlds).length > 1 ? [row(which.node)] : []), row(look, dream, finish, back, start),
    h("div", {style: "display:flex;gap:1rem;align-items:flex-end"}, games.node, beliefs.node),
    h("p", {class: "dl-note"}, "Time runs to the right; rows are counted from the top. o: eyes open, –: eyes closed. Gray: what the model did not look at."),
    h("div", {class: "dl-two"},
      h("div", {}, h("p", {class: "dl-title"}, "Which boxes are at work"), map),
      h("div", {}, h("p", {class: "dl-title"}, "Prior (blue), posterior (orange), drawn face (dot)"), faces,
        h("p", {class: "dl-title"}, "The memory h"), memory)),
    said.node,
  );
  begin();
}

// For tests: calls one of the functions above with a packed model as its first argument.
export function withModel(packed, name, cases) {
  const model = load(packed), all = {recur, prior, posterior, draw, decode, advance};
  return cases.map((args) => all[name](model, ...args));
}
