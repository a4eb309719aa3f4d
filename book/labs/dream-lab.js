// dream-lab: the dream of Flicker-Catch beside the game. The game is computed here. The dream comes
// from the package, for every sequence of actions up to the landing, and is looked up.
import { button, chart, choice, fmt, h, readout, row, s, slider, toggle } from "./frame.js";

const SIZE = 16, STEPS = 10, LANDING_ROW = 13, COLUMNS = 15, PADDLE = 4, PADDLE_START = 6;

// Column and velocity of the ball one step later; it is mirrored at both walls.
export function roll(column, velocity) {
  const next = column + velocity;
  return next >= 0 && next < COLUMNS ? [next, velocity] : [next - 2 * velocity, -velocity];
}

// The game after these actions (0 left, 1 stay, 2 right); from the landing on it stands still.
export function game(column, velocity, actions) {
  let paddle = PADDLE_START;
  const played = actions.slice(0, STEPS);
  for (const action of played) {
    paddle = Math.min(Math.max(paddle + 2 * (action - 1), 0), SIZE - PADDLE);
    [column, velocity] = roll(column, velocity);
  }
  const row = Math.floor(LANDING_ROW * played.length / STEPS);
  const caught = paddle <= column && column <= paddle + PADDLE - 2;
  return {time: played.length, row, column, paddle, reward: played.length < STEPS ? 0 : caught ? 1 : -1};
}

// Its picture: 256 numbers from 0 (black) to 1, row by row.
export function picture({row, column, paddle}) {
  const pixels = Array(SIZE * SIZE).fill(0);
  for (const y of [row, row + 1]) for (const x of [column, column + 1]) pixels[SIZE * y + x] = 1;
  for (let x = paddle; x < paddle + PADDLE; x++) pixels[SIZE * (SIZE - 1) + x] = 1;
  return pixels;
}

// How much of all light is in one picture and not in the other: 0 the same, 1 nothing in common.
export function disagreement(a, b) {
  const light = a.reduce((sum, x, i) => sum + x + b[i], 0);
  return light ? a.reduce((sum, x, i) => sum + Math.abs(x - b[i]), 0) / light : 0;
}

// w_0 .. w_H of a dream with these discounts d_1 .. d_H: w_t = d_1 ... d_t.
export function weights(discounts) {
  return discounts.reduce((w, d) => [...w, w.at(-1) * d], [1]);
}

// What the dream says its first state is worth: the weighted rewards, then the critic.
export function worth(rewards, discounts, value) {
  const w = weights(discounts);
  return rewards.reduce((sum, r, t) => sum + w[t] * r, 0) + w.at(-1) * value;
}

// Where the dream after these actions stands in the data: a tree of `depth` levels, then chains of
// `after` steps in which actions no longer count.
export function place(actions, depth, after) {
  const chosen = actions.slice(0, depth), code = chosen.reduce((sum, a) => 3 * sum + a, 0);
  const before = (levels) => (3 ** levels - 1) / 2;
  if (actions.length <= depth) return before(chosen.length) + code;
  return before(depth + 1) + code * after + actions.length - depth - 1;
}

// The dreams as packed by the page. Frames come in two pieces, each kept once: the upper 15 rows and
// the paddle's; 4 bits a pixel. Then for every node the numbers of its pieces (low byte, high byte),
// reward, discount and value (1/50 is the unit of the first and the last). Returns look(game, actions).
export const unpack = async ({blob, upper, lower, levels, nodes, games, depth, after}) => {
  const packed = Uint8Array.from(atob(blob), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const high = (SIZE - 1) * SIZE / 2, low = SIZE / 2, all = nodes * games.length;
  const tables = upper * high + lower * low;
  const plane = (k, at) => bytes[tables + k * all + at];
  return (number, actions) => {
    const at = number * nodes + place(actions, depth, after), pixels = [];
    const piece = (from, size) => {
      for (const byte of bytes.subarray(from, from + size)) pixels.push((byte >> 4) / (levels - 1), (byte & 15) / (levels - 1));
    };
    piece(high * (plane(0, at) + 256 * plane(1, at)), high);
    piece(upper * high + low * (plane(2, at) + 256 * plane(3, at)), low);
    return {pixels, reward: (plane(4, at) - 128) / 50, discount: plane(5, at) / 255, value: (plane(6, at) - 128) / 50};
  };
};

// One entry of the packed dreams, for the tests.
export const lookUp = async (data, number, actions) => (await unpack(data))(number, actions);

// Ball and paddle as an eye would find them in a picture: {row, column} and a column; null if too faint.
export function find(pixels) {
  const light = (y, x, high, wide) => {
    let sum = 0;
    for (let i = y; i < y + high; i++) for (let j = x; j < x + wide; j++) sum += pixels[SIZE * i + j];
    return sum / high / wide;
  };
  let ball = null, paddle = null, best = 0.35, most = 0.35;
  for (let y = 0; y < SIZE - 2; y++) for (let x = 0; x < COLUMNS; x++) if (light(y, x, 2, 2) > best) [best, ball] = [light(y, x, 2, 2), {row: y, column: x}];
  for (let x = 0; x <= SIZE - PADDLE; x++) if (light(SIZE - 1, x, 1, PADDLE) > most) [most, paddle] = [light(SIZE - 1, x, 1, PADDLE), x];
  return {ball, paddle};
}

function words(pixels) {
  const {ball, paddle} = find(pixels);
  return `${ball ? `a ball in row ${ball.row}, column ${ball.column}` : "no ball"}, ${paddle === null ? "no paddle" : `the paddle from column ${paddle}`}`;
}

// A picture of 16 by 16 pixels; draw(pixels, note) redraws, with a note across it.
function screen(label, tone, width) {
  const svg = s("svg", {viewBox: "-0.4 -0.4 16.8 16.8", role: "img", "aria-label": label, "shape-rendering": "crispEdges", style: `max-width:${width}`});
  const title = h("p", {class: "dl-title", style: `color:var(--dl-${tone})`}, label);
  const node = h("div", {style: `flex:1 1 0;max-width:${width}`}, title, svg);
  const draw = (pixels, note = "") => {
    svg.replaceChildren(s("rect", {x: -0.2, y: -0.2, width: 16.4, height: 16.4, fill: "#101418", stroke: `var(--dl-${tone})`, "stroke-width": 0.4}));
    pixels.forEach((v, i) => {
      if (v > 0.03) svg.append(s("rect", {x: i % SIZE, y: Math.floor(i / SIZE), width: 1.02, height: 1.02, fill: "#fff", opacity: fmt(v)}));
    });
    if (note) svg.append(s("text", {x: 8, y: 8.5, "text-anchor": "middle", style: "font-size:2px;fill:#ffd27a"}, note));
    svg.setAttribute("aria-label", `${label}: ${pixels.some((v) => v > 0.03) ? words(pixels) : "blank"}`);
  };
  return {node, draw};
}

export function mount(root, data) {
  const {context, depth, after, gamma, games} = data, most = depth + after;
  const state = {game: 0, actions: [], H: most, plain: false};
  let look = null;

  const act = (action) => {
    if (state.actions.length === state.H) return;
    state.actions.push(action);
    update();
  };
  const back = () => { state.actions.pop(); update(); };
  const begin = () => { state.actions = []; update(); };

  const which = choice({label: "Game", options: games.map((g) => g.name), value: games[0].name, change: (name) => {
    state.game = games.findIndex((g) => g.name === name);
    begin();
  }});
  const horizon = slider({label: "horizon H", min: 1, max: most, step: 1, value: most, show: String, change: (x) => {
    state.H = x;
    state.actions = state.actions.slice(0, x);
    update();
  }});
  const drive = [["\u2190 left", 0], ["\u2193 stay", 1], ["\u2192 right", 2]].map(([label, action]) => button(label, () => act(action)));
  const undo = button("\u2191 back", back), again = button("Start again", begin);
  const plain = toggle("Without the continue head", (on) => { state.plain = on; update(); });

  const world = screen("The world", "orange", "15rem"), dream = screen("The dream", "blue", "15rem");
  const seen = games[0].blank.map((_, t) => screen(`t = ${t}`, "muted", "3.4rem"));
  const stage = h("div", {style: "display:flex;gap:1rem", tabindex: 0, role: "group", "aria-label": "The world and the dream; drive with the arrow keys: left, down to stay, right, up to go back"}, world.node, dream.node);
  stage.addEventListener("keydown", (event) => {
    const action = {ArrowLeft: 0, ArrowDown: 1, ArrowRight: 2}[event.key];
    if (action !== undefined) act(action);
    else if (event.key === "ArrowUp") back();
    else return;
    event.preventDefault();
  });
  const meter = chart({label: "Disagreement", xlabel: "steps with closed eyes", height: 130});
  const counts = chart({label: "What is promised, and how much it counts", xlabel: "steps with closed eyes", height: 130});
  const said = readout();

  // Everything along the way that was driven: entry k after k steps.
  function way() {
    const {column, velocity} = games[state.game], stay = Array(context - 1).fill(1);
    return Array.from({length: state.actions.length + 1}, (_, k) => {
      const done = state.actions.slice(0, k), real = game(column, velocity, [...stay, ...done]);
      const imagined = look(state.game, done);
      if (state.plain && k) imagined.discount = gamma;
      return {...imagined, real, truth: picture(real), gap: disagreement(picture(real), imagined.pixels)};
    });
  }

  function update() {
    if (!look) return;
    const path = way(), k = state.actions.length, now = path[k], over = k > depth, end = k === state.H;
    const {column, velocity, blank} = games[state.game];
    seen.forEach((small, t) => {
      const shown = picture(game(column, velocity, Array(t).fill(1)));
      small.draw(blank[t] ? shown.fill(0) : shown);
    });
    world.draw(now.truth, over ? "over" : "");
    dream.draw(now.pixels, "");
    drive.forEach((node) => node.setAttribute("aria-disabled", end)); // not `disabled`, which would drop the focus
    for (const node of [undo, again]) node.setAttribute("aria-disabled", !k);

    const w = weights(path.slice(1).map((x) => x.discount)), ticks = {x: [0, most]};
    const alive = path.filter((_, i) => i <= depth);
    meter.draw([{name: "share of the light that is in one picture only", tone: "purple", points: alive.map((x, i) => [i, x.gap])}],
      {...ticks, y: [0, 1], shade: [depth, most], words: `Now ${fmt(now.gap)}.`});
    counts.draw([
      {name: "weight of this step's reward", tone: "green", points: w.slice(0, -1).map((x, i) => [i + 1, x])},
      {name: "reward dreamt", tone: "blue", points: path.slice(1).map((x, i) => [i + 1, x.reward])},
      {name: "reward paid", tone: "orange", dashed: true, points: alive.slice(1).map((x, i) => [i + 1, x.real.reward])},
    ], {...ticks, y: [-1, 1], shade: [depth, most], words: k ? `The reward of this step weighs ${fmt(w[k - 1])}.` : "No step yet."});

    const total = worth(path.slice(1).map((x) => x.reward), path.slice(1).map((x) => x.discount), now.value);
    const paid = k < depth ? "the world has paid nothing yet" : `the world paid ${fmt(path[depth].real.reward, 0)} at the landing`;
    said.say(`${k} of ${state.H} steps with closed eyes. The world ${over ? "is over" : "shows " + words(now.truth)}. The dream shows ${words(now.pixels)}. ` +
      (over ? "" : `They disagree by ${fmt(100 * now.gap, 0)}%. `) +
      (k ? `On this step the dream expects a reward of ${fmt(now.reward)} and weighs it with ${fmt(w[k - 1])}; ${paid}. ` : "Press an arrow. ") +
      `${end ? "Here the dream stops, and the critic is asked: it says" : "If the dream stopped here, the critic would say"} ${fmt(now.value)}. All weighted${state.plain ? ", without the continue head," : ""} and added up: ${fmt(total)}.`);
  }

  root.append(
    row(which.node), h("p", {class: "dl-note"}, `What the agent saw, then it closed its eyes:`),
    h("div", {class: "dl-row", style: "flex-wrap:nowrap;gap:.5rem"}, ...seen.map((small) => small.node)),
    stage, row(...drive, undo, again), row(horizon.node, plain),
    h("div", {class: "dl-two"}, meter.node, counts.node),
    h("p", {class: "dl-note"}, "Gray: past the landing. The game is over there, and your keys no longer count; the dream does not know it."),
    said.node,
  );
  unpack(data).then((found) => { look = found; update(); });
}
