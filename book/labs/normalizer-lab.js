// normalizer-lab: shape the returns of a batch, change their size, and watch the return scale S find
// its way; the advantages it divides, and what an actor that is paid for entropy makes of them.
import { bars, button, chart, choice, fmt, h, player, readout, row, slider } from "./frame.js";

const RATE = 0.01, LOW = 0.05, HIGH = 0.95;
const VALUES = [-5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5]; // returns at size 1
const EDGES = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]; // between the bars of the histogram
const STEPS = 81, ETAS = [-4, 4]; // points of the curve over the weight of entropy, 1e-4 .. 1e4

// Every dream's return on its own: counts of dreams for each value, times the size of the rewards.
export function expand(counts, values, size) {
  return values.flatMap((v, i) => Array(Math.round(counts[i])).fill(v * size));
}

// The quantile of a list with linear interpolation, as torch.quantile has it.
export function quantile(list, q) {
  const sorted = [...list].sort((a, b) => a - b);
  const place = q * (sorted.length - 1), below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
}

// One update of the two running percentiles [low, high] by a batch of returns.
export function update(range, returns, rate = RATE) {
  return [LOW, HIGH].map((q, i) => range[i] + rate * (quantile(returns, q) - range[i]));
}

// S = max(limit, high - low).
export function scale(range, limit) {
  return Math.max(limit, range[1] - range[0]);
}

// Return minus mean, over S. The critic knows the mean.
export function advantages(returns, S) {
  const mean = returns.reduce((sum, x) => sum + x, 0) / returns.length;
  return returns.map((x) => (x - mean) / S);
}

// The policy that maximizes Σ p A + η entropy, where each dream is a button: p ∝ exp(A / η).
export function policy(advantage, eta) {
  const top = Math.max(...advantage);
  const weights = advantage.map((a) => Math.exp((a - top) / eta));
  const sum = weights.reduce((total, w) => total + w, 0);
  return weights.map((w) => w / sum);
}

export function entropy(p) {
  return -p.reduce((sum, x) => sum + (x > 0 ? x * Math.log(x) : 0), 0);
}

// What the best policy is like: its entropy as a share of the largest, and where its return lies
// between the mean (0) and the best of the returns (1).
export function tradeoff(returns, S, eta) {
  const p = policy(advantages(returns, S), eta), n = returns.length;
  const mean = returns.reduce((sum, x) => sum + x, 0) / n, best = Math.max(...returns);
  const found = p.reduce((sum, x, i) => sum + x * returns[i], 0);
  return {
    entropy: n > 1 ? entropy(p) / Math.log(n) : 0,
    gain: best > mean ? (found - mean) / (best - mean) : 0,
  };
}

// Share of the advantages in each bar of the histogram.
function histogram(list) {
  const found = Array(EDGES.length + 1).fill(0);
  for (const a of list) found[EDGES.filter((edge) => a > edge).length] += 1 / list.length;
  return found;
}

function plain(x) {
  const size = Math.abs(x);
  if (size && size < 1e-4) return x.toExponential(0).replaceAll("-", "\u2212");
  return fmt(x, size >= 100 ? 0 : size >= 10 ? 1 : size >= 0.095 || size === 0 ? 2 : 4);
}

export function mount(root, data) {
  const state = {counts: [...data.counts], power: Math.log10(data.size), range: [0, 0], updates: 0,
    rule: "by S", eta: Math.log10(data.eta), path: [[0, 0]]};
  const shape = bars({label: "Dreams with each return, at size 1", names: VALUES.map((v) => fmt(v, 0)), values: state.counts,
    min: 0, max: 12, step: 1, tone: "green", digits: 0, change: (i, x) => { state.counts[i] = x; draw(); }});
  const size = slider({label: "Size of the rewards", min: -2, max: 3, step: 0.1, value: state.power, show: (p) => plain(10 ** p),
    change: (p) => { state.power = p; draw(); }});
  const eta = slider({label: "Weight of entropy η", min: ETAS[0], max: ETAS[1], step: 0.1, value: state.eta, show: (e) => plain(10 ** e),
    change: (e) => { state.eta = e; draw(); }});
  const rule = choice({label: "Advantages are divided", options: ["by S", "by the range alone", "not at all"], value: state.rule,
    change: (x) => { state.rule = x; draw(); }});
  const advance = (count) => {
    for (let i = 0; i < count; i++) {
      state.range = update(state.range, now());
      state.updates += 1;
      state.path.push([state.updates, state.range[1] - state.range[0]]);
    }
    draw();
  };
  const reset = button("Forget", () => { run.stop(); Object.assign(state, {range: [0, 0], updates: 0, path: [[0, 0]]}); draw(); });
  const run = player({label: "Run", every: 40, step: () => advance(2)});
  const spread = chart({label: "Range of the returns: this batch (dashed), running (solid)", xlabel: "updates"});
  const shares = bars({label: "Advantages as the actor sees them, shares", names: ["below", "\u22122", "\u22121", "0", "1", "2", "above"],
    values: histogram([0]), min: 0, max: 1, tone: "blue", height: 130});
  const trade = chart({label: "The best policy for each weight of entropy", xlabel: "log\u2081\u2080 \u03b7"});
  const said = readout();

  function now() {
    const list = expand(state.counts, VALUES, 10 ** state.power);
    return list.length ? list : [0];
  }

  function draw() {
    const list = now(), span = quantile(list, HIGH) - quantile(list, LOW);
    const running = state.range[1] - state.range[0];
    const S = state.rule === "not at all" ? 1 : scale(state.range, state.rule === "by S" ? 1 : 1e-8);
    shape.draw(state.counts);

    const end = Math.max(100, state.updates), top = Math.max(1.2, 1.1 * span, 1.1 * Math.max(...state.path.map(([, y]) => y)));
    spread.draw([
      {name: "running range", tone: "blue", points: state.path},
      {name: "this batch", tone: "green", dashed: true, points: [[0, span], [end, span]]},
      {name: "1", tone: "muted", dashed: true, points: [[0, 1], [end, 1]]},
    ], {x: [0, end], y: [0, top], words: `After ${state.updates} updates the running range is ${plain(running)}, that of this batch ${plain(span)}.`});

    shares.draw(histogram(advantages(list, S)));
    const along = Array.from({length: STEPS}, (_, i) => ETAS[0] + (ETAS[1] - ETAS[0]) * i / (STEPS - 1));
    const all = along.map((e) => [e, tradeoff(list, S, 10 ** e)]);
    const here = tradeoff(list, S, 10 ** state.eta);
    trade.draw([
      {name: "entropy, share of the largest", tone: "purple", dashed: true, points: all.map(([e, t]) => [e, t.entropy])},
      {name: "return, 0 mean to 1 best", tone: "orange", points: all.map(([e, t]) => [e, t.gain])},
    ], {x: ETAS, y: [0, 1], cursor: state.eta, words: `At the cursor: entropy ${fmt(here.entropy)}, return ${fmt(here.gain)}.`});

    const ruler = state.rule === "not at all" ? "Nothing is divided" : `The advantages are divided by ${plain(S)}`;
    said.say(`${list.length} dreams, 5th percentile ${plain(quantile(list, LOW))}, 95th ${plain(quantile(list, HIGH))}. ` +
      `After ${state.updates} update${state.updates === 1 ? "" : "s"} the running range is ${plain(running)}. ${ruler}. ` +
      `With \u03b7 = ${plain(10 ** state.eta)} the best policy keeps ${fmt(100 * here.entropy, 0)} % of the entropy and gets ${fmt(100 * here.gain, 0)} % of the way from the mean to the best return.`);
  }

  root.append(
    shape.node, row(size.node, eta.node), row(rule.node),
    row(button("1 update", () => advance(1)), button("100 updates", () => advance(100)), run.node, reset),
    h("div", {class: "dl-two"}, spread.node, shares.node, trade.node), said.node,
  );
  draw();
}
