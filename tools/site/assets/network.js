"use strict";
// The forward pass of notebook 05's deep CNN (ser_utils/systems/feature_network.py) for one clip, by hand: four blocks of
// 3 × 3 convolution, max-pool, batch norm and ReLU, attentive statistics, one dense layer. Batch norms arrive as
// scale and shift. Positions are stored frame by frame, band by band, channel by channel.

// A 3 × 3 convolution whose border is zero. kernel: (3, 3, channels, filters)
function convolve({ frames, bands, channels, values }, { kernel, filters }) {
  const convolved = new Float32Array(frames * bands * filters);
  const sums = new Float64Array(filters);
  for (let t = 0; t < frames; t++) {
    for (let b = 0; b < bands; b++) {
      sums.fill(0);
      for (let dt = Math.max(-1, -t); dt <= Math.min(1, frames - 1 - t); dt++) {
        for (let db = Math.max(-1, -b); db <= Math.min(1, bands - 1 - b); db++) {
          const from = ((t + dt) * bands + b + db) * channels;
          addProducts(sums, values, from, channels, kernel, ((dt + 1) * 3 + db + 1) * channels * filters);
        }
      }
      convolved.set(sums, (t * bands + b) * filters);
    }
  }
  return { frames, bands, channels: filters, values: convolved };
}

// sums += values[from …] · kernel[place …], a row of (channels) times a matrix (channels, filters)
function addProducts(sums, values, from, channels, kernel, place) {
  const filters = sums.length;
  for (let c = 0; c < channels; c++) {
    const value = values[from + c];
    if (value === 0) continue; // half of them, after a ReLU
    const row = place + c * filters;
    for (let f = 0; f < filters; f++) sums[f] += value * kernel[row + f];
  }
}

// Maximum of each pool, what is left at an end on its own; then batch norm and ReLU
function pool({ frames, bands, channels, values }, { pool: [down, across], scale, shift }) {
  const [rows, columns] = [Math.ceil(frames / down), Math.ceil(bands / across)];
  const largest = new Float32Array(rows * columns * channels).fill(-Infinity);
  for (let t = 0; t < frames; t++) {
    for (let b = 0; b < bands; b++) {
      const from = (t * bands + b) * channels;
      const to = (Math.floor(t / down) * columns + Math.floor(b / across)) * channels;
      for (let c = 0; c < channels; c++) largest[to + c] = Math.max(largest[to + c], values[from + c]);
    }
  }
  for (let i = 0; i < largest.length; i++) {
    largest[i] = Math.max(0, largest[i] * scale[i % channels] + shift[i % channels]);
  }
  return { frames: rows, bands: columns, channels, values: largest };
}

// values · matrix + bias for one row; matrix: (values.length, size), row by row
function dense(values, matrix, size, bias) {
  const sums = bias ? Float64Array.from(bias) : new Float64Array(size);
  for (let i = 0; i < values.length; i++) {
    for (let k = 0; k < size; k++) sums[k] += values[i] * matrix[i * size + k];
  }
  return sums;
}

function softmax(scores) {
  const top = Math.max(...scores);
  const powers = Array.from(scores, (score) => Math.exp(score - top));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / total);
}

// Weighted mean and standard deviation over the steps of a clip
function attend(steps, { hidden, bias, score }) {
  const weights = softmax(steps.map((x) => dense(dense(x, hidden, bias.length, bias).map(Math.tanh), score, 1)[0]));
  const size = steps[0].length;
  const [mean, square] = [new Float64Array(size), new Float64Array(size)];
  steps.forEach((x, t) => x.forEach((value, i) => { mean[i] += weights[t] * value; }));
  steps.forEach((x, t) => x.forEach((value, i) => { square[i] += weights[t] * (value - mean[i]) ** 2; }));
  return [...mean, ...square.map((variance) => Math.sqrt(variance + 1e-5))];
}

// Frames on the scale of the training clips
function scaled({ frames, bands, values }, { mean, spread }) {
  return { frames, bands, channels: 1, values: values.map((value, i) => (value - mean[i % bands]) / spread[i % bands]) };
}

// Probabilities of the classes for scaled frames
function ask(network, input) {
  let x = input;
  for (const block of network.blocks) x = pool(convolve(x, block), block);
  const size = x.bands * x.channels;
  const steps = Array.from({ length: x.frames }, (_, t) => x.values.subarray(t * size, (t + 1) * size));
  const { scale, shift, classes } = network;
  const statistics = attend(steps, network.attention).map((value, i) => value * scale[i] + shift[i]);
  return softmax(dense(statistics, classes.kernel, classes.bias.length, classes.bias));
}

const clip = (input, first, last) => ({
  ...input, frames: last - first, values: input.values.subarray(first * input.bands, last * input.bands),
});

const logOdds = (p, label) => Math.log(p[label]) - Math.log(p.reduce((sum, value, i) => sum + (i === label ? 0 : value), 0));

// Corners of patches along an axis, the last one moved back inside
const corners = (size, patch) => [
  ...new Set([...Array(Math.max(1, Math.ceil((size - patch + 1) / patch))).keys()].map((i) => i * patch).concat(Math.max(0, size - patch))),
];

// Fall of the log-odds of a class where a patch of (frames, bands) is as quiet as the clip gets there: a generator that
// yields after every patch, so that the page stays alive, and returns one value a position
function* occlude(network, input, label, [long, wide]) {
  const { frames, bands, values } = input;
  const quiet = Array.from({ length: bands }, (_, b) => {
    let least = Infinity;
    for (let t = 0; t < frames; t++) least = Math.min(least, values[t * bands + b]);
    return least;
  });
  const before = logOdds(ask(network, input), label);
  const [total, count] = [new Float32Array(values.length), new Uint8Array(values.length)];
  for (const first of corners(frames, long)) {
    for (const low of corners(bands, wide)) {
      const hidden = values.slice();
      const places = [];
      for (let t = first; t < Math.min(first + long, frames); t++) {
        for (let b = low; b < Math.min(low + wide, bands); b++) places.push([t * bands + b, b]);
      }
      for (const [i, b] of places) hidden[i] = quiet[b];
      const fall = before - logOdds(ask(network, { ...input, values: hidden }), label);
      for (const [i] of places) {
        total[i] += fall;
        count[i] += 1;
      }
      yield;
    }
  }
  return total.map((sum, i) => sum / count[i]);
}
