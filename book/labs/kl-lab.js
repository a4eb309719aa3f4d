// kl-lab: a posterior q and a prior p to drag; gradient descent on the KL loss shows who moves.
// A die is three logits, a Gaussian is [mean, ln deviation]. All lengths in nats.
import { bars, button, chart, choice, clamp, fmt, h, player, readout, row, s, slider } from "./frame.js";

export function softmax(logits) {
  const top = Math.max(...logits), e = logits.map((x) => Math.exp(x - top));
  const sum = e.reduce((a, b) => a + b);
  return e.map((x) => x / sum);
}

// Each family: KL(q ‖ p), and its gradient by the numbers that a network would put out.
export const FAMILIES = {
  die: {
    kl: (q, p) => softmax(q).reduce((sum, x, k, all) => sum + x * (Math.log(x) - Math.log(softmax(p)[k])), 0),
    // d/d(logits of p) = p - q;  d/d(logits of q) = q (ln q - ln p - KL)
    gradients: (q, p) => {
      const Q = softmax(q), P = softmax(p), kl = FAMILIES.die.kl(q, p);
      return {q: Q.map((x, k) => x * (Math.log(x / P[k]) - kl)), p: P.map((x, k) => x - Q[k])};
    },
  },
  gaussian: {
    kl: ([m, l], [n, k]) => k - l + (Math.exp(2 * l) + (m - n) ** 2) / (2 * Math.exp(2 * k)) - 0.5,
    gradients: ([m, l], [n, k]) => {
      const precision = Math.exp(-2 * k);
      return {
        q: [(m - n) * precision, Math.exp(2 * l) * precision - 1],
        p: [(n - m) * precision, 1 - (Math.exp(2 * l) + (m - n) ** 2) * precision],
      };
    },
  },
};

// The package's kl_loss over M moments: dyn · floor(KL(sg q ‖ p)) + rep · floor(KL(q ‖ sg p)), with
// its gradients. perStep: mean of max(KL, free); else max(mean of KL, free).
export function klLoss(family, qs, ps, {dyn, rep, free, perStep}) {
  const f = FAMILIES[family], M = qs.length;
  const kls = qs.map((q, i) => f.kl(q, ps[i]));
  const mean = kls.reduce((a, b) => a + b) / M;
  const open = kls.map((kl) => (perStep ? kl : mean) >= free);
  const floor = perStep ? kls.reduce((a, kl) => a + Math.max(kl, free), 0) / M : Math.max(mean, free);
  const scaled = (x, weight) => x.map((v) => weight * v / M);
  const both = qs.map((q, i) => f.gradients(q, ps[i]));
  return {
    loss: (dyn + rep) * floor, kls, mean, open,
    dq: both.map((g, i) => scaled(g.q, open[i] ? rep : 0)),
    dp: both.map((g, i) => scaled(g.p, open[i] ? dyn : 0)),
  };
}

// One step of gradient descent. origin: what the picture says, towards which the decoder pulls q
// by KL(origin ‖ q) times `hold`. shared: one prior for all moments, moved by all of them.
// No number moves by more than 0.15; then the whole step is shortened.
export function descend(family, {qs, ps, origin}, settings, {rate = 0.06, hold = 0, shared = false} = {}) {
  const M = qs.length, {dq, dp} = klLoss(family, qs, ps, settings);
  const back = qs.map((q, i) => FAMILIES[family].gradients(origin[i], q).p);
  const gq = dq.map((g, i) => g.map((v, k) => M * v + hold * back[i][k]));
  const all = dp[0].map((_, k) => dp.reduce((sum, g) => sum + g[k], 0));
  const gp = dp.map((g) => (shared ? all : g).map((v) => M * v));
  const most = Math.max(...[...gq, ...gp].flat().map(Math.abs)) * rate;
  const pace = rate / Math.max(1, most / 0.15);
  const move = (x, g) => x.map((row, i) => row.map((v, k) => v - pace * g[i][k]));
  return {qs: move(qs, gq), ps: move(ps, gp), origin};
}

// Where each row y of a picture is in the free zone: [x0, x1] or null; the zone has no holes.
// inside(x, y): whether a prior drawn at that point would cost nothing.
export function zone(inside, xs, ys) {
  const edge = (out, within, y) => {
    for (let i = 0; i < 8; i++) {
      const middle = (out + within) / 2;
      if (inside(middle, y)) within = middle;
      else out = middle;
    }
    return within;
  };
  return ys.map((y) => {
    const hits = xs.map((x, i) => (inside(x, y) ? i : -1)).filter((i) => i >= 0);
    if (!hits.length) return null;
    const [a, b] = [hits[0], hits.at(-1)];
    return [a ? edge(xs[a - 1], xs[a], y) : xs[a], b < xs.length - 1 ? edge(xs[b + 1], xs[b], y) : xs[b]];
  });
}

const PAPERS = {
  V1: {alpha: 0.5, beta: 2, free: 3, perStep: false},
  V2: {alpha: 0.8, beta: 1, free: 1, perStep: false},
  V3: {alpha: 1 / 1.1, beta: 1.1, free: 1, perStep: true},
};
const PLACES = ["the mean", "each moment"];
const W = 300, H = 268, EDGE = 26;
const range = (low, high, count) => Array.from({length: count}, (_, i) => low + (high - low) * i / (count - 1));

// How a family is drawn: from its numbers to a place in the picture, and back.
const SIDE = W - 2 * EDGE, TOP = 20, FOOT = TOP + SIDE * Math.sqrt(3) / 2;
const LOGS = [Math.log(0.25), Math.log(2.5)];
const DRAWN = {
  die: {
    place: (l) => {
      const [a, b, c] = softmax(l);
      return [EDGE + SIDE * (c + b / 2), FOOT - b * (FOOT - TOP)];
    },
    back: (x, y) => {
      const b = (FOOT - y) / (FOOT - TOP), c = (x - EDGE) / SIDE - b / 2;
      const sides = [1 - b - c, b, c].map((v) => Math.max(v, 0.01));
      return sides.map((v) => Math.log(v / sides.reduce((u, w) => u + w)));
    },
    within: (x, y) => {
      const b = (FOOT - y) / (FOOT - TOP), c = (x - EDGE) / SIDE - b / 2;
      return Math.min(b, c, 1 - b - c) > 0.002;
    },
    words: (l, names) => softmax(l).map((v, k) => `${names[k]} ${fmt(v)}`).join(", "),
  },
  gaussian: {
    place: ([m, l]) => [EDGE + SIDE * (clamp(m, -3, 3) + 3) / 6,
      FOOT - (FOOT - TOP) * (clamp(l, ...LOGS) - LOGS[0]) / (LOGS[1] - LOGS[0])],
    back: (x, y) => [clamp((x - EDGE) / SIDE * 6 - 3, -3, 3),
      clamp(LOGS[0] + (FOOT - y) / (FOOT - TOP) * (LOGS[1] - LOGS[0]), ...LOGS)],
    within: () => true,
    words: ([m, l]) => `mean ${fmt(m)}, deviation ${fmt(Math.exp(l))}`,
  },
};

export function mount(root, data) {
  const names = data.names;
  const state = {...PAPERS.V3, hold: 0, family: "die", start: Object.keys(data.starts)[0], moment: 0};
  let now, trail, steps, ghost = null;  // ghost: the run before this one, from the same start
  const drawn = () => DRAWN[state.family], count = () => now.qs.length;
  const shared = () => Boolean(data.starts[state.start].shared);
  const settings = () => ({dyn: state.alpha * state.beta, rep: (1 - state.alpha) * state.beta,
    free: state.free, perStep: state.perStep});

  const copy = (x) => x.map((row) => [...row]);
  const begin = () => {
    const found = data.starts[state.start][state.family];
    const logs = (x) => (state.family === "die" ? x.map((p) => p.map(Math.log)) : x.map(([m, d]) => [m, Math.log(d)]));
    now = {qs: logs(found.q), ps: logs(found.p), origin: logs(found.q)};
    state.moment = Math.min(state.moment, now.qs.length - 1);
    rest();
  };
  const rest = () => {  // trails begin here
    steps = 0;
    now.origin = copy(now.qs);
    trail = [{qs: copy(now.qs), ps: copy(now.ps), kls: klLoss(state.family, now.qs, now.ps, settings()).kls}];
  };
  const step = () => {
    const before = now;
    now = descend(state.family, now, settings(), {hold: state.hold, shared: shared()});
    steps += 1;
    trail.push({qs: copy(now.qs), ps: copy(now.ps), kls: klLoss(state.family, now.qs, now.ps, settings()).kls});
    update();
    const moved = Math.max(...["qs", "ps"].flatMap((k) => now[k].flatMap((x, i) => x.map((v, j) => Math.abs(v - before[k][i][j])))));
    return moved > 2e-4 && steps % 400 > 0;  // a rest every 400 steps; Run goes on
  };

  // --- controls
  const pick = (key) => (x) => { state[key] = x; ghost = null; run.stop(); begin(); update(); };
  const start = choice({label: "Start", options: Object.keys(data.starts), value: state.start, change: pick("start")});
  const latent = choice({label: "Latent", options: ["die", "gaussian"], value: "die", change: pick("family")});
  const paper = choice({label: "Paper", options: Object.keys(PAPERS), value: "V3", change: (name) => {
    Object.assign(state, PAPERS[name]);
    alpha.set(state.alpha);
    free.set(state.free);
    beta.set(state.beta);
    place.set(PLACES[+state.perStep]);
    update();
  }});
  const turn = (key) => (x) => { state[key] = x; paper.set(""); update(); };
  const alpha = slider({label: "α, prior's share", min: 0, max: 1, step: 0.01, value: state.alpha, change: turn("alpha")});
  const free = slider({label: "free nats", min: 0, max: 3, step: 0.05, value: state.free, change: turn("free")});
  const beta = slider({label: "β, strength", min: 0, max: 3, step: 0.05, value: state.beta, change: turn("beta")});
  const hold = slider({label: "hold of the picture", min: 0, max: 5, step: 0.1, value: 0, change: (x) => { state.hold = x; update(); }});
  const place = choice({label: "Floor on", options: PLACES, value: PLACES[1], change: (x) => turn("perStep")(x === PLACES[1])});
  const moment = choice({label: "Moment", options: ["1", "2", "3", "4"], value: "1", change: (x) => { state.moment = x - 1; update(); }});
  const run = player({step, every: 40});
  const buttons = row(button("Step", step), run.node, button("Back to start", () => {
    run.stop();
    const ways = ["ps", "qs"].map(way);
    if (Math.max(...ways) > 1e-6) ghost = {trail, way: ways};
    begin();
    update();
  }));

  // --- drawings
  const map = s("svg", {viewBox: `0 0 ${W} ${H}`, role: "group", style: "touch-action:pan-y", "aria-label": "Map of all distributions"});
  const edit = (side) => (i, v) => {
    const old = softmax(now[side][state.moment]), to = clamp(v, 0.01, 0.98), left = (1 - to) / (1 - old[i]);
    put(side, state.moment, old.map((x, k) => Math.log(k === i ? to : Math.max(x * left, 0.005))));
  };
  const put = (side, i, numbers) => {  // moved by hand: a new start
    run.stop();
    ghost = null;
    (shared() && side === "ps" ? now.ps.map((_, j) => j) : [i]).forEach((j) => { now[side][j] = [...numbers]; });
    rest();
    update();
  };
  const dice = {};
  for (const [side, label, tone] of [["ps", "Prior p, the guess", "blue"], ["qs", "Posterior q, after looking", "orange"]]) {
    dice[side] = bars({label, names, values: [0, 0, 0], min: 0, max: 1, step: 0.01, tone, change: edit(side), height: 96});
  }
  const bell = chart({label: "Prior and posterior", xlabel: "z", height: 130});
  const turnBell = (side, k) => (x) => put(side, state.moment, now[side][state.moment].map((v, j) => (j === k ? (k ? Math.log(x) : x) : v)));
  const bells = [["ps", "prior"], ["qs", "posterior"]].flatMap(([side, word]) => [
    slider({label: `${word} mean`, min: -3, max: 3, step: 0.05, value: 0, change: turnBell(side, 0)}),
    slider({label: `${word} deviation`, min: 0.25, max: 2.5, step: 0.05, value: 1, change: turnBell(side, 1)}),
  ]);
  const bellBox = h("div", {}, bell.node, ...bells.map((b) => b.node));
  const diceBox = h("div", {}, dice.ps.node, dice.qs.node);
  const curve = chart({label: "KL in nats; below the floor nothing moves", xlabel: "steps", height: 130});
  const costs = bars({label: "KL of each moment, and the floor", names: ["1"], values: [0], min: 0, max: 3, tone: "green", height: 104});
  const hint = h("p", {class: "dl-note"});
  const tug = s("svg", {viewBox: "0 0 360 46", role: "img", "aria-label": "Who moved"});
  const said = readout();

  // --- the map: points, trails, the free zone
  const point = (side, i) => {
    const prior = side === "ps", tone = `var(--dl-${prior ? "blue" : "orange"})`, chosen = i === state.moment || (prior && shared());
    const [x, y] = drawn().place(now[side][i]), size = chosen ? 10 : 5;
    const mark = prior ? s("rect", {x: x - size, y: y - size, width: 2 * size, height: 2 * size, rx: 2, fill: tone})
      : s("circle", {cx: x, cy: y, r: size, fill: tone});
    const letter = s("text", {x, y: y + 4, "text-anchor": "middle", style: "font-weight:700;fill:var(--dl-back)"},
      chosen ? (prior ? "p" : "q") : "");
    return s("g", {opacity: chosen ? 1 : 0.55}, mark, letter);
  };
  const path = (side, i, along = trail, dotted = false) => s("path", {
    d: along.map((t, k) => `${k ? "L" : "M"}${drawn().place(t[side][i]).map((v) => v.toFixed(1)).join(" ")}`).join(""),
    fill: "none", stroke: dotted ? "var(--dl-text)" : `var(--dl-${side === "ps" ? "blue" : "orange"})`, "stroke-width": 2.5, "stroke-linecap": "round",
    "stroke-dasharray": dotted ? "0.1 6" : "none", opacity: i === state.moment ? 0.9 : 0.4,
  });
  // The pull on each side of the chosen moment: the next step, made long enough to be seen.
  const pull = (next, side) => {
    const [a, b] = [now, next].map((x) => drawn().place(x[side][state.moment]));
    const [dx, dy] = [b[0] - a[0], b[1] - a[1]], far = Math.hypot(dx, dy), size = Math.min(12 * far, 70);
    if (far < 0.02) return [];
    const [ux, uy] = [dx / far, dy / far], tip = [a[0] + ux * (size + 25), a[1] + uy * (size + 25)];  // it begins outside of the mark
    const wing = (turn) => `L${tip[0] - 7 * ux + turn * 4 * uy} ${tip[1] - 7 * uy - turn * 4 * ux}`;
    return [s("path", {d: `M${a[0] + 15 * ux} ${a[1] + 15 * uy}L${tip.join(" ")}${wing(1)}M${tip.join(" ")}${wing(-1)}`, fill: "none",
      stroke: "var(--dl-text)", "stroke-width": 1.5})];
  };
  const freeZone = () => {
    const f = FAMILIES[state.family], M = count(), i = state.moment, kls = klLoss(state.family, now.qs, now.ps, settings()).kls;
    const others = kls.reduce((sum, kl, j) => sum + (j === i ? 0 : kl), 0);
    const cost = (p) => {
      if (state.perStep) return shared() ? Math.max(...now.qs.map((q) => f.kl(q, p))) : f.kl(now.qs[i], p);
      return (shared() ? now.qs.reduce((sum, q) => sum + f.kl(q, p), 0) : f.kl(now.qs[i], p) + others) / M;
    };
    const ys = range(TOP, FOOT, 75);
    const rows = zone((x, y) => drawn().within(x, y) && cost(drawn().back(x, y)) < state.free, range(EDGE, W - EDGE, 40), ys);
    const edge = [...rows.map((r, k) => r && [r[0], ys[k]]), ...rows.map((r, k) => r && [r[1], ys[k]]).reverse()].filter(Boolean);
    return edge.length > 5 ? edge : [];
  };
  const drawMap = () => {
    const next = descend(state.family, now, settings(), {hold: state.hold, shared: shared()});
    const corner = (x, y, text, anchor) => s("text", {x, y, "text-anchor": anchor, class: "dl-dim"}, text);
    const die = state.family === "die", edge = state.free > 0 ? freeZone() : [];
    const outline = die ? `M${EDGE} ${FOOT}L${W / 2} ${TOP}L${W - EDGE} ${FOOT}Z` : `M${EDGE} ${TOP}V${FOOT}H${W - EDGE}V${TOP}Z`;
    still.replaceChildren(
      s("path", {d: edge.length ? "M" + edge.map((e) => e.map((v) => v.toFixed(1)).join(" ")).join("L") + "Z" : "",
        fill: "var(--dl-shade)", stroke: "var(--dl-muted)", "stroke-dasharray": "3 3"}),
      s("path", {d: outline, fill: "none", stroke: "var(--dl-grid)"}),
      ...(die ? [corner(EDGE, FOOT + 15, names[0], "middle"), corner(W / 2, TOP - 7, names[1], "middle"), corner(W - EDGE, FOOT + 15, names[2], "middle")]
        : [corner(W / 2, FOOT + 15, "mean, −3 to 3", "middle"), corner(EDGE, TOP - 7, "deviation, 0.25 to 2.5 (log)", "start")]),
      ...now.qs.flatMap((q, i) => [
        s("path", {d: `M${drawn().place(q).join(" ")}L${drawn().place(now.ps[i]).join(" ")}`, stroke: "var(--dl-grid)", "stroke-dasharray": "2 4"}),
        path("ps", i), path("qs", i)]),
      ...(ghost ? ["ps", "qs"].map((side) => path(side, state.moment, ghost.trail, true)) : []),
      ...now.qs.flatMap((_, i) => (i === state.moment ? [] : [point("ps", i), point("qs", i)])),
      ...pull(next, "ps"), ...pull(next, "qs"),
    );
    for (const [side, grip] of Object.entries(grips)) {
      grip.replaceChildren(point(side, state.moment), (() => {
        const [x, y] = drawn().place(now[side][state.moment]);
        return s("circle", {cx: x, cy: y, r: 20, fill: "transparent"});
      })());
      const word = side === "ps" ? "Prior" : "Posterior";
      grip.setAttribute("aria-label", `${word} of moment ${state.moment + 1}: ${drawn().words(now[side][state.moment], names)}. Drag, or use the arrow keys.`);
    }
  };
  const still = s("g"), grips = {};
  for (const side of ["ps", "qs"]) {
    const grip = grips[side] = s("g", {role: "button", tabindex: 0, style: "cursor:grab"});
    const to = (x, y) => put(side, state.moment, drawn().back(clamp(x, EDGE, W - EDGE), clamp(y, TOP, FOOT)));
    const drag = (event) => {
      const box = map.getBoundingClientRect();
      to((event.clientX - box.left) / box.width * W, (event.clientY - box.top) / box.height * H);
    };
    grip.addEventListener("touchstart", (event) => event.preventDefault(), {passive: false}); // a finger on p or q drags, beside them it scrolls
    grip.addEventListener("pointerdown", (event) => { grip.setPointerCapture(event.pointerId); grip.focus(); event.preventDefault(); });
    grip.addEventListener("pointermove", (event) => grip.hasPointerCapture(event.pointerId) && drag(event));
    grip.addEventListener("keydown", (event) => {
      const [dx, dy] = {ArrowLeft: [-4, 0], ArrowRight: [4, 0], ArrowUp: [0, -4], ArrowDown: [0, 4]}[event.key] ?? [0, 0];
      if (!dx && !dy) return;
      const [x, y] = drawn().place(now[side][state.moment]);
      to(x + dx, y + dy);
      event.preventDefault();
    });
  }
  map.append(still, grips.ps, grips.qs);

  // How far a side went on the map, as a share of the map's width.
  const way = (side) => {
    const [a, b] = [trail[0], trail.at(-1)].map((t) => drawn().place(t[side][state.moment]));
    return Math.hypot(a[0] - b[0], a[1] - b[1]) / SIDE;
  };
  const drawTug = (p, q) => {
    const cutOf = (a, b) => (a + b > 1e-9 ? 360 * a / (a + b) : 180);
    const all = p + q, cut = cutOf(p, q), share = (x) => (all > 1e-9 ? `${Math.round(100 * x / all)} %` : "has not moved");
    const tone = (name) => (all > 1e-9 ? `var(--dl-${name})` : "var(--dl-shade)");
    tug.replaceChildren(
      s("rect", {x: 0, y: 18, width: cut, height: 14, fill: tone("blue")}),
      s("rect", {x: cut, y: 18, width: 360 - cut, height: 14, fill: tone("orange")}),
      ...(ghost ? [[0, cutOf(...ghost.way), "blue"], [cutOf(...ghost.way), 360, "orange"]].map(([from, to, name]) =>
        s("rect", {x: from, y: 36, width: to - from, height: 4, fill: `var(--dl-${name})`})) : []),
      s("line", {x1: 180, x2: 180, y1: 14, y2: 42, stroke: "var(--dl-text)"}),
      s("text", {x: 0, y: 12, style: "font-weight:600"}, `prior ${share(p)}`),
      s("text", {x: 360, y: 12, "text-anchor": "end", style: "font-weight:600"}, `posterior ${share(q)}`),
    );
    tug.setAttribute("aria-label", `Who moved: prior ${share(p)}, posterior ${share(q)}`);
  };
  // What looking had told, and what is left of it.
  const kept = () => {
    const [then, today] = [trail[0], trail.at(-1)].map((t) => t.qs[state.moment]);
    if (state.family === "gaussian") return `: ${drawn().words(then)} before, ${drawn().words(today)} now`;
    const [was, is] = [then, today].map(softmax), top = was.indexOf(Math.max(...was));
    return `: “${names[top]}” was ${fmt(was[top])} and is ${fmt(is[top])}`;
  };
  const density = ([m, l]) => range(-5, 5, 101).map((z) => [z, Math.exp(-0.5 * ((z - m) / Math.exp(l)) ** 2 - l) / Math.sqrt(2 * Math.PI)]);

  let frame = 0;  // one drawing per frame of the screen, however many steps there were
  function update() {
    frame ||= requestAnimationFrame(() => { frame = 0; draw(); });
  }

  function draw() {
    const {kls, mean, open} = klLoss(state.family, now.qs, now.ps, settings()), i = state.moment, M = count();
    const die = state.family === "die", {dyn, rep} = settings();
    const seen = (node, yes) => { node.style.display = yes ? "" : "none"; };
    seen(diceBox, die);
    seen(bellBox, !die);
    hint.textContent = die ? "Drag the bars. Dashes: where they began." : "Pull the sliders below.";
    for (const node of [moment.node, costs.node, place.node]) seen(node, M > 1);
    moment.node.querySelectorAll("label").forEach((label, k) => seen(label, k < M));
    moment.set(String(i + 1));
    for (const side of ["ps", "qs"]) if (die) dice[side].draw(softmax(now[side][i]), {marks: softmax(trail[0][side][i])});
    if (!die) {
      bell.draw([{name: "prior", tone: "blue", points: density(now.ps[i])}, {name: "posterior", tone: "orange", points: density(now.qs[i])}], {x: [-5, 5], y: [0, Math.max(1, ...[now.ps[i], now.qs[i]].map(([, l]) => 0.4 / Math.exp(l)))]});
      [...now.ps[i], ...now.qs[i]].forEach((v, k) => bells[k].set(k % 2 ? Math.exp(v) : v));
    }
    drawMap();
    const label = [...kls.map((_, k) => String(k + 1)), "mean"];
    const most = Math.max(1, ...[...trail, ...(ghost?.trail ?? [])].map((t) => Math.max(...t.kls)), state.free), top = Math.ceil(most * 2) / 2;
    costs.draw([...kls, mean], {names: label, tones: [...open.map((o) => (o ? "green" : "muted")), "purple"],
      marks: label.map((_, k) => (state.free > 0 && state.perStep === (k < M) ? state.free : null)), top});
    const line = (name, tone, value, dashed = false) => ({name, tone, dashed, points: trail.map((t, k) => [k, value(t.kls)])});
    const average = (x) => x.reduce((a, b) => a + b) / M;
    curve.draw([line(M > 1 ? `moment ${i + 1}` : "KL", "green", (x) => x[i]), ...(M > 1 ? [line("mean", "purple", average, true)] : []),
      ...(ghost ? [{name: "last run", tone: "muted", points: ghost.trail.map((t, k) => [k, t.kls[i]])}] : [])],
      {x: [0, Math.max(20, steps, ghost ? ghost.trail.length - 1 : 0)], y: [0, top], band: state.free > 0 ? [0, state.free] : null});
    const p = way("ps"), q = way("qs");
    drawTug(p, q);
    const rests = !(shared() ? open.some(Boolean) : open[i]) && !state.hold;
    said.say(`KL(q ‖ p)${M > 1 ? ` of moment ${i + 1}` : ""} = ${fmt(kls[i], 3)} nats${steps ? ` after ${steps} step${steps > 1 ? "s" : ""}, ${fmt(trail[0].kls[i], 3)} at the start` : ""}. ` +
      (steps && p + q > 1e-6 ? `The posterior${kept()}. ` : "") + `Pull on the prior αβ = ${fmt(dyn)}, on the posterior (1 − α)β = ${fmt(rep)}. ` +
      (rests ? `${!state.perStep && M > 1 ? "The mean is" : shared() ? "Both are" : "It is"} below the floor of ${fmt(state.free)} nats: nothing pulls.`
        : shared() && !open[i] && open.some(Boolean) ? `This moment is below the floor of ${fmt(state.free)} nats; the other one still pulls at the prior.` : steps ? "" : "Press Step or Run."));
  }

  begin();
  root.append(
    row(start.node, latent.node),
    row(paper.node, place.node, moment.node),
    row(alpha.node, free.node, beta.node, hold.node),
    h("div", {class: "dl-two"},
      h("div", {}, h("p", {class: "dl-title"}, "Drag p or q"), map,
        h("p", {class: "dl-note"}, "Arrows: the pull. Gray: a prior in there costs nothing more. Dots: the last run."),
        buttons, h("p", {class: "dl-title"}, "Who moved? Thin: the last run"), tug),
      h("div", {}, hint, diceBox, bellBox, curve.node, costs.node)),
    said.node,
  );
  draw();
}
