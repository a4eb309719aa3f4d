// straight-lab: one die, a loss for each face, and three ways to the gradient of the expected loss.
// l are logits, f the losses of the faces, u the unimix, sag how far the loss hangs through between
// the faces: f(z) = f·z - sag Σ z_k (1 - z_k), which at a face is just the loss of that face.
import { bars, button, chart, fmt, h, readout, row, slider, toggle } from "./frame.js";

function dot(a, b) {
  return a.reduce((sum, x, k) => sum + x * b[k], 0);
}

export function softmax(l) {
  const top = Math.max(...l), e = l.map((x) => Math.exp(x - top)), sum = e.reduce((a, b) => a + b);
  return e.map((x) => x / sum);
}

// p = (1-u) softmax(l) + u/K.
export function mixed(l, u) {
  return softmax(l).map((x) => (1 - u) * x + u / l.length);
}

// Σ_j w_j ∂p_j/∂l_k = (1-u) s_k (w_k - s·w), s the softmax without the mixture.
export function pull(l, u, w) {
  const s = softmax(l), mean = dot(s, w);
  return s.map((x, k) => (1 - u) * x * (w[k] - mean));
}

// The gradient of Σ p_k f_k.
export function exact(l, u, f) {
  return pull(l, u, f);
}

// The straight-through gradient when face j is up: ∂f/∂z at that face, carried on to the logits.
export function straight(l, u, f, sag, j) {
  return pull(l, u, f.map((x, k) => x - sag * (1 - 2 * (k === j))));
}

// REINFORCE when face j is up: (f_j - base) ∂ ln p_j/∂l_k; base is the mean loss, or 0.
export function reinforce(l, u, f, baseline, j) {
  const p = mixed(l, u), base = baseline ? dot(p, f) : 0;
  return pull(l, u, f.map((_, k) => (k === j ? (f[j] - base) / p[j] : 0)));
}

// Over all faces, each as often as it falls: mean of an estimate, its distance from the exact
// gradient, and its spread (the root of the summed variances).
export function quality(p, estimates, goal) {
  const mean = goal.map((_, k) => p.reduce((sum, x, j) => sum + x * estimates[j][k], 0));
  const far = (a, b) => a.reduce((sum, x, k) => sum + (x - b[k]) ** 2, 0);
  return {
    mean, bias: Math.sqrt(far(mean, goal)),
    spread: Math.sqrt(p.reduce((sum, x, j) => sum + x * far(estimates[j], mean), 0)),
  };
}

// Numbers in [0, 1) that look random and are the same for the same seed.
export function dice(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

// The face whose share of [0, 1) holds x.
export function face(p, x) {
  let below = 0;
  for (let k = 0; k < p.length - 1; k++) {
    below += p[k];
    if (x < below) return k;
  }
  return p.length - 1;
}

// Gradient descent from l, one roll a step: the expected losses on the way, and where it ends.
export function descent(kind, l, u, f, sag, baseline, steps, rate, seed) {
  const roll = dice(seed), losses = [];
  let now = [...l];
  for (let i = 0; i <= steps; i++) {
    const p = mixed(now, u), j = face(p, roll());
    losses.push(dot(p, f));
    const g = kind === "exact" ? exact(now, u, f)
      : kind === "straight" ? straight(now, u, f, sag, j) : reinforce(now, u, f, baseline, j);
    if (i < steps) now = now.map((x, k) => x - rate * g[k]);
  }
  return {losses, end: now};
}

const WAYS = {straight: "straight-through", reinforce: "REINFORCE"};
const STEPS = 200, RATE = 0.2;

export function mount(root, data) {
  const names = data.losses.map((_, k) => `face ${k + 1}`), flat = names.map(() => 0);
  let state, fallen, up, luck;  // fallen: how often each face was up
  const forget = () => { up = null; fallen = [...flat]; };
  const begin = () => {
    state = {l: [...data.logits], f: [...data.losses], sag: data.sag, u: data.unimix, base: false};
    luck = 1;
    forget();
  };
  begin();
  let roll = dice(7);

  const changed = (act) => (...args) => { act(...args); forget(); update(); };  // other chances: the rolls are void
  const kept = (act) => (...args) => { act(...args); update(); };  // the same rolls, judged anew
  const logits = bars({label: "Logits: drag", names, values: state.l, min: -5, max: 5, step: 0.1, change: changed((k, x) => { state.l[k] = x; })});
  const losses = bars({label: "Loss of each face: drag", names, values: state.f, min: 0, max: 5, step: 0.1, tone: "purple", change: kept((k, x) => { state.f[k] = x; })});
  const sag = slider({label: "sag between the faces", min: -3, max: 3, step: 0.1, value: state.sag, change: kept((x) => { state.sag = x; })});
  const unimix = slider({label: "unimix", min: 0, max: 0.5, step: 0.01, value: state.u, change: changed((x) => { state.u = x; })});
  const base = toggle("Baseline for REINFORCE", kept((on) => { state.base = on; }));
  const throwing = (count) => () => {
    for (let i = 0; i < count; i++) {
      up = face(mixed(state.l, state.u), roll());
      fallen[up]++;
    }
    update();
  };
  const again = button("Back to start", () => {
    begin();
    roll = dice(7);
    sag.set(state.sag);
    unimix.set(state.u);
    base.setAttribute("aria-pressed", false);
    update();
  });
  const other = button("Other luck", () => { luck++; update(); });
  const chances = bars({label: "Probability (orange: face up)", names, values: flat, min: 0, max: 1});
  const goal = bars({label: "Exact gradient of the expected loss", names, values: flat, min: -1, max: 1, tone: "green"});
  const panels = {
    straight: bars({label: "Straight-through", names, values: flat, min: -1, max: 1, tone: "orange"}),
    reinforce: bars({label: "REINFORCE", names, values: flat, min: -1, max: 1, tone: "purple"}),
  };
  const notes = {straight: h("p", {class: "dl-note"}), reinforce: h("p", {class: "dl-note"})};
  const curve = chart({label: "Learning from these logits, one roll a step", xlabel: "steps", ylabel: "expected loss"});
  const said = readout();

  function estimates(j) {
    return {
      straight: straight(state.l, state.u, state.f, state.sag, j),
      reinforce: reinforce(state.l, state.u, state.f, state.base, j),
    };
  }

  function update() {
    const {l, u, f} = state, p = mixed(l, u), g = exact(l, u, f);
    logits.draw(l);
    losses.draw(f);
    chances.draw(p, {tones: p.map((_, k) => (k === up ? "orange" : "blue"))});
    goal.draw(g);
    const words = [], rolls = fallen.reduce((a, b) => a + b), each = p.map((_, j) => estimates(j));
    for (const [way, name] of Object.entries(WAYS)) {
      const {bias, spread} = quality(p, each.map((x) => x[way]), g);
      panels[way].draw(flat.map((_, k) => (rolls ? dot(fallen, each.map((x) => x[way][k])) / rolls : 0)), {marks: g});
      notes[way].textContent = (rolls ? `mean of ${rolls} roll${rolls > 1 ? "s" : ""}; ` : "no roll yet; ") +
        `dashed: exact. Over all rolls: bias ${fmt(bias, 3)}, spread ${fmt(spread, 3)}`;
      words.push(`${name}: bias ${fmt(bias, 3)}, spread of one roll ${fmt(spread, 3)}.`);
    }
    const run = (kind) => descent(kind, l, u, f, state.sag, state.base, STEPS, RATE, luck);
    const runs = {exact: run("exact"), straight: run("straight"), reinforce: run("reinforce")};
    const line = (name, tone, kind, dashed) => ({name, tone, dashed, points: runs[kind].losses.map((y, x) => [x, y])});
    const ends = Object.values(runs).map((r) => fmt(r.losses.at(-1)));  // exact, straight-through, REINFORCE
    curve.draw([
      line("straight-through", "orange", "straight"),
      line("REINFORCE", "purple", "reinforce"),
      line("exact", "green", "exact", true),  // on top: at sag 0 straight-through lies under it
    ], {x: [0, STEPS], y: [0, Math.max(1, ...f)], words: `After ${STEPS} steps: exact ${ends[0]}, straight-through ${ends[1]}, REINFORCE ${ends[2]}.`});
    said.say((up === null ? "" : `Face ${up + 1} is up. `) + `Expected loss ${fmt(dot(p, f))}. ${words.join(" ")} ` +
      `After ${STEPS} steps of learning: exact ${ends[0]}, straight-through ${ends[1]}, REINFORCE ${ends[2]}.`);
  }

  root.append(
    h("div", {class: "dl-two"}, logits.node, losses.node),
    row(sag.node, unimix.node),
    row(button("Roll", throwing(1)), button("Roll 100 times", throwing(100)), base, other, again),
    h("div", {class: "dl-two"}, chances.node, goal.node,
      h("div", {}, panels.straight.node, notes.straight), h("div", {}, panels.reinforce.node, notes.reinforce)),
    curve.node, said.node,
  );
  update();
}
