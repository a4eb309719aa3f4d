// drive-lab: an Atari dream beside the game itself, under every order of a few keys. Both come from
// the package: frames as one picture for each start, the numbers as bytes; the lab only looks up.
import { button, chart, choice, fmt, h, readout, row, slider, toggle } from "./frame.js";

const SIZE = 64, UNIT = 50; // pixels a side; reward and value are kept in steps of 1/50 and 1/5
const FIELDS = ["paid", "reward", "value"]; // what is known of every frame, a byte each

// Where the frames after these keys stand: row 0 is what was seen, then all orders of one key, of
// two, and so on.
export function place(keys, count) {
  const before = keys.reduce((sum, _, n) => sum + count ** n, 0);
  return before + keys.reduce((code, key) => count * code + key, 0);
}

// Row and column on the sheet of step t; 0 is the last look, 1 the first dreamt step, negative ones
// were seen.
export function cell(keys, t, {count, hold}) {
  if (t <= 0) return [0, hold - 1 + t];
  const n = Math.ceil(t / hold);
  return [place(keys.slice(0, n), count), (t - 1) % hold];
}

// The numbers of one frame, as bytes around 128.
export function numbers(bytes, [line, column], hold) {
  const at = FIELDS.length * (hold * line + column);
  const [paid, reward, value] = FIELDS.map((_, i) => bytes[at + i] - 128);
  return {paid: paid / UNIT, reward: reward / UNIT, value: value / 5};
}

// Decibels between two pictures of bytes; as in the package, nothing below the rounding is resolved.
export function psnr(a, b) {
  const mean = a.reduce((sum, x, i) => sum + ((x - b[i]) / 255) ** 2, 0) / a.length;
  return -10 * Math.log10(Math.max(mean, 1 / 12 / 255 ** 2));
}

// Red where the dream is too bright, blue where it is too dark, white where they agree.
export function errorColor(truth, dream, gain = 2) {
  const x = Math.max(-1, Math.min(1, gain * (dream - truth) / 255)), fade = Math.round(255 * (1 - Math.abs(x)));
  return x > 0 ? [255, fade, fade] : [fade, fade, 255];
}

export const decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

// A picture of 64 by 64 pixels under a title; draw(bytes RGBA, words).
function screen(title, tone) {
  const canvas = h("canvas", {width: SIZE, height: SIZE, role: "img", "aria-label": title, style: `width:100%;image-rendering:pixelated;border:2px solid var(--dl-${tone})`});
  const node = h("div", {style: "flex:1 1 0;max-width:15rem"}, h("p", {class: "dl-title", style: `color:var(--dl-${tone})`}, title), canvas);
  const draw = (pixels, words) => {
    canvas.getContext("2d").putImageData(new ImageData(pixels, SIZE, SIZE), 0, 0);
    canvas.setAttribute("aria-label", `${title}: ${words}`);
  };
  return {node, draw};
}

// The gray values of a picture on the sheet.
function reader() {
  const canvas = h("canvas", {width: SIZE, height: SIZE}), pen = canvas.getContext("2d", {willReadFrequently: true});
  return (image, x, y) => {
    pen.drawImage(image, SIZE * x, SIZE * y, SIZE, SIZE, 0, 0, SIZE, SIZE);
    const {data} = pen.getImageData(0, 0, SIZE, SIZE);
    return Uint8Array.from({length: SIZE * SIZE}, (_, i) => data[4 * i]);
  };
}

// The boxers' middles, as an eye would find them: {white: [column, row], black: ...}, or null.
export function boxers(gray) {
  const middle = (light) => {
    let all = 0, x = 0, y = 0;
    for (let j = 10; j < 56; j++) for (let i = 8; i < 54; i++) {
      const w = Math.max(0, light(gray[SIZE * j + i]));
      all += w; x += w * i; y += w * j;
    }
    return all > 200 ? [x / all, y / all] : null;
  };
  return {white: middle((v) => v - 165), black: middle((v) => 75 - v)};
}

const at = (name, p) => p ? `${name} at column ${Math.round(p[0])}, row ${Math.round(p[1])}` : `no ${name}`;
const words = (gray) => { const b = boxers(gray); return `${at("white boxer", b.white)}, ${at("black boxer", b.black)}`; };
const shades = (gray, paint) => {
  const out = new Uint8ClampedArray(4 * gray.length);
  gray.forEach((v, i) => { const [r, g, b] = paint(v, i); out.set([r, g, b, 255], 4 * i); });
  return out;
};

export function mount(root, data) {
  const {starts, keys, hold, depth} = data, count = keys.length, most = hold * depth;
  const sheets = JSON.parse(document.querySelector('[data-sheets="drive-lab"]')?.textContent ?? JSON.stringify(data.sheets));
  const bytes = starts.map((start) => decode(start.numbers)), images = [], read = reader();
  const state = {start: 0, keys: [], t: 0, error: false};
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  let timer = 0;

  const image = (i) => images[i] ??= Object.assign(new Image(), {src: sheets[i]});
  const end = () => hold * state.keys.length;
  const stop = () => { clearInterval(timer); timer = 0; };
  const press = (key) => {
    if (state.keys.length === depth) return;
    stop();
    state.keys.push(key);
    if (still.matches) { state.t = end(); update(); return; }
    state.t = end() - hold + 1;
    update();
    timer = setInterval(() => { if (state.t >= end() || !root.isConnected) stop(); else { state.t++; update(); } }, 140);
  };
  const back = () => { stop(); state.keys.pop(); state.t = end(); update(); };
  const begin = () => { stop(); state.keys = []; state.t = 0; update(); };

  const which = choice({label: "Moment", options: starts.map((x) => x.name), value: starts[0].name, change: (name) => {
    state.start = starts.findIndex((x) => x.name === name);
    begin();
  }});
  const drive = keys.map(({label}, i) => button(label, () => press(i)));
  const undo = button("Back", back), again = button("Start again", begin);
  const wrong = toggle("Show the error", (on) => { state.error = on; update(); });
  const scrub = slider({label: "step", min: 1 - hold, max: 0, step: 1, value: 0, show: (x) => fmt(x, 0), change: (x) => { stop(); state.t = x; update(); }});
  const world = screen("The game", "orange"), dream = screen("The dream", "blue"), error = screen("Error", "purple"), legend = h("p", {class: "dl-note"}, "Error: red where the dream is too bright, blue where it is too dark.");
  const stage = h("div", {style: "display:flex;gap:.8rem", tabindex: 0, role: "group", "aria-label": "The game and the dream; arrow keys move, space punches, backspace goes back"}, world.node, dream.node, error.node);
  const codes = {ArrowUp: "UP", ArrowDown: "DOWN", ArrowLeft: "LEFT", ArrowRight: "RIGHT", " ": "FIRE"};
  stage.addEventListener("keydown", (event) => {
    const key = keys.findIndex((k) => k.name === codes[event.key]);
    if (key >= 0) press(key);
    else if (event.key === "Backspace") back();
    else return;
    event.preventDefault();
  });
  const meter = chart({label: "How close the dream is", xlabel: "steps with closed eyes", ylabel: "dB", height: 130});
  const money = chart({label: "Rewards so far", xlabel: "steps with closed eyes", height: 130});
  const said = readout();

  // What is shown at step t.
  function moment(t) {
    const [line, column] = cell(state.keys, t, {count, hold}), picture = image(state.start);
    return {t, truth: read(picture, column, line), dream: read(picture, hold + column, line), ...numbers(bytes[state.start], [line, column], hold)};
  }

  function update() {
    const picture = image(state.start);
    if (!picture.complete || !picture.naturalWidth) { picture.onload = update; return; }
    const way = Array.from({length: end() + 1}, (_, t) => moment(t)), now = moment(state.t);
    world.draw(shades(now.truth, (v) => [v, v, v]), words(now.truth));
    dream.draw(shades(now.dream, (v) => [v, v, v]), words(now.dream));
    error.node.hidden = legend.hidden = !state.error;
    if (state.error) error.draw(shades(now.truth, (v, i) => errorColor(v, now.dream[i])), `${fmt(psnr(now.truth, now.dream), 1)} decibels`);
    scrub.limit(1 - hold, end());
    scrub.set(state.t);
    const full = state.keys.length === depth;
    drive.forEach((node) => node.setAttribute("aria-disabled", full)); // not `disabled`, which would drop the focus
    for (const node of [undo, again]) node.setAttribute("aria-disabled", !state.keys.length);

    let dreamt = 0, paid = 0;
    const sums = way.slice(1).map((x) => { dreamt += x.reward; paid += x.paid; return {t: x.t, dreamt, paid}; });
    const ticks = {x: [0, most], cursor: Math.max(0, state.t)}, here = sums.filter((x) => x.t <= state.t).at(-1) ?? {dreamt: 0, paid: 0};
    meter.draw([{name: "dream against game", tone: "purple", points: way.map((x) => [x.t, psnr(x.truth, x.dream)])}],
      {...ticks, y: [15, 40], words: `Now ${fmt(psnr(now.truth, now.dream), 1)} decibels.`});
    money.draw([{name: "dreamt", tone: "blue", points: sums.map((x) => [x.t, x.dreamt])}, {name: "paid", tone: "orange", dashed: true, points: sums.map((x) => [x.t, x.paid])}],
      {...ticks, y: [-3, 5], words: `Dreamt ${fmt(here.dreamt)}, paid ${fmt(here.paid)}.`});
    const when = state.t > 0 ? `${state.t} of ${most} steps with closed eyes` : state.t ? `${-state.t} ${state.t === -1 ? "step" : "steps"} before the last look, eyes open` : "The last look";
    said.say(`${when}${state.t > 0 ? ` (${state.keys.map((k) => keys[k].label).join(", ")})` : ""}. The game shows a ${words(now.truth)}. The dream shows a ${words(now.dream)}. ` +
      `They agree to ${fmt(psnr(now.truth, now.dream), 1)} dB. ` + (state.t > 0 ? `So far the dream expects ${fmt(here.dreamt)}, the game paid ${fmt(here.paid)}. ` : "") +
      `The critic says ${fmt(now.value, 1)}.` + (full && state.t === end() ? " Here the precomputed dream ends: go back, or start again." : state.keys.length ? "" : " Press a key."));
  }

  root.append(row(which.node), stage, legend, row(...drive, undo, again), row(scrub.node, wrong),
    h("div", {class: "dl-two"}, meter.node, money.node), said.node);
  update();
}
