// lambda-lab: rewards, values and continue flags to drag; the λ-return by both formulas.
// All arrays follow the package: entry t of r, d, v belongs to time t + 1, t = 0 .. H - 1.
import { bars, fmt, h, readout, row, slider, sub, toggle } from "./frame.js";

// R_t = r_{t+1} + d_{t+1} [(1 - λ) v_{t+1} + λ R_{t+1}],  R_H = v_H.
export function recursion(r, d, v, lam) {
  let ret = v.at(-1);
  const found = [];
  for (let t = r.length - 1; t >= 0; t--) {
    ret = r[t] + d[t] * ((1 - lam) * v[t] + lam * ret);
    found.unshift(ret);
  }
  return found;
}

// n rewards after time t, then the value: G_t^n.
export function nstep(r, d, v, t, n) {
  let total = 0, weight = 1;
  for (let k = t; k < t + n; k++) {
    total += weight * r[k];
    weight *= d[k];
  }
  return total + weight * v[t + n - 1];
}

// How much the mixture trusts 1, 2, ... `steps` steps: (1 - λ) λ^(n-1), the rest on the last.
export function weights(steps, lam) {
  const w = Array.from({length: steps}, (_, n) => (1 - lam) * lam ** n);
  w[steps - 1] = lam ** (steps - 1);
  return w;
}

// Σ_n w_n G_t^n for every t.
export function mixture(r, d, v, lam) {
  return r.map((_, t) => weights(r.length - t, lam)
    .reduce((sum, w, n) => sum + w * nstep(r, d, v, t, n + 1), 0));
}

// The off-by-one that everybody makes: v_t, the value of the state that is left, where v_{t+1}
// belongs. `before` is v_0.
export function shifted(r, d, v, lam, before) {
  let ret = v.at(-1);
  const found = [];
  for (let t = r.length - 1; t >= 0; t--) {
    ret = r[t] + d[t] * ((1 - lam) * (t ? v[t - 1] : before) + lam * ret);
    found.unshift(ret);
  }
  return found;
}

export function mount(root, data) {
  const all = {r: data.reward, c: data.cont, v: data.value};
  const most = all.r.length;
  const state = {lam: data.lam, gamma: data.gamma, H: most, t: 0, shift: false};
  const names = (letter, from, to) => Array.from({length: to - from + 1}, (_, i) => sub(letter, from + i));
  const counts = (n) => Array.from({length: n}, (_, i) => `n=${i + 1}`);
  const cut = (x) => x.slice(0, state.H);
  const d = () => cut(all.c).map((c) => state.gamma * c);

  const set = (key) => (x) => { state[key] = x; update(); };
  const lam = slider({label: "λ", min: 0, max: 1, step: 0.01, value: state.lam, change: set("lam")});
  const gamma = slider({label: "γ", min: 0, max: 1, step: 0.01, value: state.gamma, change: set("gamma")});
  const horizon = slider({label: "H", min: 2, max: most, step: 1, value: most, show: String, change: set("H")});
  const time = slider({label: "time t", min: 0, max: most - 1, step: 1, value: 0, show: String, change: set("t")});
  const shift = toggle("Use v of the state that is left", set("shift"));

  const edit = (key, offset = 0) => (i, x) => {
    if (i + offset < 0) state.before = x;
    else all[key][i + offset] = x;
    update();
  };
  state.before = data.before;
  const reward = bars({label: "Rewards r", names: names("r", 1, most), values: all.r, min: -2, max: 4, step: 0.1, tone: "green", change: edit("r"), digits: 1});
  const value = bars({label: "Values v; v\u2080 only for the button", names: names("v", 0, most), values: [state.before, ...all.v], min: -2, max: 8, step: 0.1, tone: "orange", change: edit("v", -1), digits: 1});
  const cont = bars({label: "Continue c (0 ends the episode)", names: names("c", 1, most), values: all.c, min: 0, max: 1, step: 0.1, tone: "purple", change: edit("c"), height: 80, digits: 1});
  const trust = bars({label: "Weight of each n-step return", names: counts(most), values: weights(most, state.lam), min: 0, max: 1, tone: "blue", height: 100});
  const result = bars({label: "λ-returns R", names: names("R", 0, most - 1), values: all.r, min: -4, max: 12, tone: "blue", height: 130});
  const note = h("p", {class: "dl-note"});
  const said = readout();

  function update() {
    state.t = Math.min(state.t, state.H - 1);
    time.limit(0, state.H - 1);
    time.set(state.t);
    const [r, v, disc] = [cut(all.r), cut(all.v), d()];
    const R = recursion(r, disc, v, state.lam), M = mixture(r, disc, v, state.lam);
    const wrong = shifted(r, disc, v, state.lam, state.before);
    const gap = Math.max(...R.map((x, t) => Math.abs(x - M[t])));
    reward.draw(r, {names: names("r", 1, state.H)});
    value.draw([state.before, ...v], {names: names("v", 0, state.H)});
    cont.draw(cut(all.c), {names: names("c", 1, state.H)});
    const w = weights(state.H - state.t, state.lam);
    trust.draw(w, {names: counts(state.H - state.t)});
    result.draw(state.shift ? wrong : R, {
      names: names("R", 0, state.H - 1),
      marks: M,
      tones: R.map((_, t) => (state.shift ? "purple" : t === state.t ? "blue" : "muted")),
    });
    note.textContent = state.shift
      ? "Purple bars: the recursion with v of the state that is left. Dashed lines: the right returns, by the mixture."
      : "Bars: by the recursion. Dashed lines: by the mixture. They agree.";
    const t = state.t, best = w.indexOf(Math.max(...w)) + 1;
    said.say(`${sub("R", t)} = ${fmt(R[t], 4)} by the recursion, ${fmt(M[t], 4)} by the mixture; over all t they differ by at most ${gap ? gap.toExponential(1).replace("-", "\u2212") : "0"}. ` +
      `The ${best}-step return, ${fmt(nstep(r, disc, v, t, best), 3)}, weighs most (${fmt(w[best - 1])}).` +
      (state.shift ? ` With the index shifted ${sub("R", t)} is ${fmt(wrong[t], 4)}, off by ${fmt(wrong[t] - R[t], 4)}.` : ""));
  }

  root.append(
    row(lam.node, gamma.node, horizon.node, time.node),
    h("div", {class: "dl-two"}, reward.node, value.node, cont.node, trust.node),
    result.node, note, row(shift), said.node,
  );
  update();
}
