// Waveform, spectrogram and heart states of one recording on a canvas.

const HEART_HZ = 800, BINS = 64, LEFT = 44, STATE_HEIGHT = 16, AXIS = 20;
export const STATES = ["S1", "systole", "S2", "diastole"];

// Frequencies are drawn up to `topHz`, as far as the recording has any; five times as many samples a second are enough.
export function prepare(samples, rateHz, topHz = HEART_HZ) {
  const step = Math.max(1, Math.floor(rateHz / (5 * topHz))), rate = rateHz / step, top = Math.min(topHz, rateHz / 2);
  const low = new Float32Array(Math.floor(samples.length / step));
  for (let i = 0; i < low.length; i++) {
    let sum = 0;
    for (let k = 0; k < step; k++) sum += samples[i * step + k];
    low[i] = sum / step;
  }
  return {low, rate, seconds: samples.length / rateHz, top, levels: spectrogram(low, rate, top)};
}

// Columns of BINS levels in dB from 0 to `top` Hz, windows of 50 ms.
function spectrogram(low, rate, top) {
  const width = Math.round(rate * 0.05), columns = Math.min(500, Math.max(1, Math.floor((low.length - width) / (rate * 0.02))));
  const hop = Math.max(1, (low.length - width) / columns);
  const cos = [], sin = [];
  for (let bin = 0; bin < BINS; bin++) {
    const hz = (bin + 0.5) * top / BINS, c = new Float32Array(width), s = new Float32Array(width);
    for (let n = 0; n < width; n++) {
      const window = 0.5 - 0.5 * Math.cos(2 * Math.PI * n / width), angle = 2 * Math.PI * hz * n / rate;
      c[n] = window * Math.cos(angle); s[n] = window * Math.sin(angle);
    }
    cos.push(c); sin.push(s);
  }
  return Array.from({length: columns}, (_, column) => {
    const start = Math.floor(column * hop), levels = new Float32Array(BINS);
    for (let bin = 0; bin < BINS; bin++) {
      let a = 0, b = 0;
      const c = cos[bin], s = sin[bin];
      for (let n = 0; n < width && start + n < low.length; n++) { a += low[start + n] * c[n]; b += low[start + n] * s[n]; }
      levels[bin] = 10 * Math.log10(a * a + b * b + 1e-12);
    }
    return levels;
  });
}

const HEIGHTS = {S1: 1, systole: 0.45, S2: 0.75, diastole: 0.25};      // so that colour is not all that tells them apart

// Draws the picture, made once for a size and a colour scheme, and the cursor at `at` seconds; null: no cursor.
export function draw(canvas, picture, answer, at) {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width) return;
  const style = getComputedStyle(canvas), colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const key = [width, height, ratio, colour("line")].join();
  if (picture.key !== key) {
    picture.key = key;
    picture.still = Object.assign(document.createElement("canvas"), {width: Math.round(width * ratio), height: Math.round(height * ratio)});
    still(picture.still.getContext("2d"), picture, answer, width, height, ratio, colour);
  }
  if (canvas.width !== picture.still.width || canvas.height !== picture.still.height) {
    canvas.width = picture.still.width; canvas.height = picture.still.height;
  }
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.drawImage(picture.still, 0, 0);
  if (at !== null) {
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = colour("model");
    context.fillRect(LEFT + at / picture.seconds * (width - LEFT - 2) - 1, 0, 2, height - AXIS);
  }
}

function still(context, picture, answer, width, height, ratio, colour) {
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  const x = (seconds) => LEFT + seconds / picture.seconds * (width - LEFT - 2);
  const half = (height - STATE_HEIGHT - AXIS) / 2;
  const states = answer && answer.ownChecks.length === 0 ? spans(answer, picture.seconds) : [];
  for (const {state, from, to} of states) {
    context.fillStyle = colour(state);
    const tall = (STATE_HEIGHT - 3) * HEIGHTS[state];
    context.fillRect(x(from), STATE_HEIGHT - 3 - tall, Math.max(0.5, x(to) - x(from) - 0.5), tall);
    if (state === "S1" || state === "S2") {
      context.globalAlpha = 0.1;
      context.fillRect(x(from), STATE_HEIGHT, x(to) - x(from), half - 4);
      context.globalAlpha = 1;
    }
  }
  waveform(context, picture, x, STATE_HEIGHT, half - 4, colour("line"));
  image(context, picture, LEFT, STATE_HEIGHT + half, width - LEFT - 2, half, colour("line"));
  axes(context, picture, x, width, height, half, colour);
}

export const secondsAt = (canvas, picture, clientX) => {
  const box = canvas.getBoundingClientRect();
  return Math.min(picture.seconds, Math.max(0, (clientX - box.left - LEFT) / (box.width - LEFT - 2) * picture.seconds));
};

function spans({starts, states}, seconds) {
  return starts.map((from, i) => ({from, to: Math.min(seconds, starts[i + 1] ?? seconds), state: STATES[states[i]]}));
}

function waveform(context, {low, seconds}, x, top, height, colour) {
  const peak = low.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-9), middle = top + height / 2;
  context.fillStyle = colour;
  const first = x(0), last = x(seconds), columns = Math.floor(last - first);
  for (let column = 0; column < columns; column++) {
    let least = 0, most = 0;
    const from = Math.floor(column / columns * low.length), to = Math.floor((column + 1) / columns * low.length);
    for (let i = from; i < to; i++) { least = Math.min(least, low[i]); most = Math.max(most, low[i]); }
    context.fillRect(first + column, middle - most / peak * height / 2, 1, Math.max(1, (most - least) / peak * height / 2));
  }
}

function image(context, {levels}, left, top, width, height, colour) {
  const all = Float32Array.from(levels.flatMap((column) => Array.from(column))).sort();
  const low = all[Math.floor(all.length * 0.3)], high = all[Math.floor(all.length * 0.998)];
  context.fillStyle = colour;
  const cell = [width / levels.length, height / BINS];
  levels.forEach((column, i) => column.forEach((level, bin) => {
    const share = Math.min(1, Math.max(0, (level - low) / Math.max(1e-6, high - low)));
    if (share < 0.03) return;
    context.globalAlpha = share ** 1.5;
    context.fillRect(left + i * cell[0], top + height - (bin + 1) * cell[1], cell[0] + 0.4, cell[1] + 0.4);
  }));
  context.globalAlpha = 1;
}

function axes(context, {seconds, top}, x, width, height, half, colour) {
  context.fillStyle = colour("soft");
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (const share of [1, 2, 3]) context.fillText(`${Math.round(top * share / 4)} Hz`, LEFT - 5, STATE_HEIGHT + 2 * half - share / 4 * half);
  context.textAlign = "center";
  const step = [0.5, 1, 2, 5, 10, 20, 60].find((s) => seconds / s <= Math.max(3, (width - LEFT) / 60)) ?? 120;
  for (let s = 0; s <= seconds; s += step) context.fillText(`${s} s`, Math.min(width - 14, Math.max(LEFT + 8, x(s))), height - AXIS / 2);
}
