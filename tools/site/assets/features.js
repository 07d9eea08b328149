"use strict";
// Features of speech as ser_utils/features computes them, and pitch as librosa.yin; tests/tools/test_demo.py holds them against each other.

const POWER_FLOOR = 1e-10; // of librosa
const TOP_DB = 80;
const FAINTEST = 1e-4; // of full scale; ser_utils.features.audio
const HEARD_DB = 40; // below the loudest 10 ms: silence around the voice

const waves = new Map(); // size → cosines and sines of its circle

function circle(size) {
  if (!waves.has(size)) {
    const turn = (wave) => Float64Array.from({ length: size / 2 }, (_, k) => wave((-2 * Math.PI * k) / size));
    waves.set(size, [turn(Math.cos), turn(Math.sin)]);
  }
  return waves.get(size);
}

// FFT in place of re + i·im, whose length is a power of two
function fft(re, im) {
  const n = re.length;
  const [cosines, sines] = circle(n);
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [re[i], re[j]] = [re[j], re[i]];
      [im[i], im[j]] = [im[j], im[i]];
    }
  }
  for (let size = 2; size <= n; size *= 2) {
    const half = size / 2;
    for (let k = 0; k < half; k++) {
      const c = cosines[(k * n) / size];
      const s = sines[(k * n) / size];
      for (let a = k; a < n; a += size) {
        const b = a + half;
        const x = c * re[b] - s * im[b];
        const y = c * im[b] + s * re[b];
        re[b] = re[a] - x;
        im[b] = im[a] - y;
        re[a] += x;
        im[a] += y;
      }
    }
  }
}

// Slaney's mel scale: linear below 1 kHz, logarithmic above
const LOG_STEP = Math.log(6.4) / 27;
const melOfHz = (hz) => (hz < 1000 ? (3 * hz) / 200 : 15 + Math.log(hz / 1000) / LOG_STEP);
const hzOfMel = (mel) => (mel < 15 ? (200 * mel) / 3 : 1000 * Math.exp(LOG_STEP * (mel - 15)));

function melCorners(bands, highestHz) {
  const top = melOfHz(highestHz);
  return Array.from({ length: bands + 2 }, (_, i) => hzOfMel((top * i) / (bands + 1)));
}

// Triangles of area one over the bins of a spectrum: per band its first bin and the weights from there
function melFilters(rate, { size, bands, highestHz }) {
  const corners = melCorners(bands, highestHz);
  return Array.from({ length: bands }, (_, band) => {
    const [low, middle, high] = corners.slice(band, band + 3);
    const weights = [];
    let first = 0;
    for (let bin = 0; bin <= size / 2; bin++) {
      const hz = (bin * rate) / size;
      const weight = Math.min((hz - low) / (middle - low), (high - hz) / (high - middle));
      if (weight <= 0) continue;
      if (!weights.length) first = bin;
      weights.push((weight * 2) / (high - low));
    }
    return { first, weights };
  });
}

// A periodic window of `length` in the middle of `size` samples; share: 0.5 is Hann's, 0.54 Hamming's
function taper(size, length, share) {
  const window = new Float64Array(size);
  for (let i = 0; i < length; i++) {
    window[i + (size - length) / 2] = share - (1 - share) * Math.cos((2 * Math.PI * i) / length);
  }
  return window;
}

// Log-mel spectrogram in dB below its maximum: { frames, bands, values }, values frame by frame.
// grid: { size, length, share, hop, bands, highestHz }, size of the transform and length of the window in samples
function logMel(signal, rate, grid) {
  const { size, hop, bands } = grid;
  const window = taper(size, grid.length, grid.share);
  const filters = melFilters(rate, grid);
  const frames = 1 + Math.floor(signal.length / hop);
  const values = new Float32Array(frames * bands);
  const [re, im, power] = [new Float64Array(size), new Float64Array(size), new Float64Array(size / 2 + 1)];
  let loudest = POWER_FLOOR;
  for (let t = 0; t < frames; t++) {
    for (let i = 0; i < size; i++) re[i] = (signal[t * hop - size / 2 + i] ?? 0) * window[i];
    im.fill(0);
    fft(re, im);
    for (let bin = 0; bin < power.length; bin++) power[bin] = re[bin] ** 2 + im[bin] ** 2;
    filters.forEach(({ first, weights }, band) => {
      let sum = 0;
      for (let i = 0; i < weights.length; i++) sum += weights[i] * power[first + i];
      values[t * bands + band] = sum;
      loudest = Math.max(loudest, sum);
    });
  }
  const top = 10 * Math.log10(loudest);
  for (let i = 0; i < values.length; i++) {
    values[i] = Math.max(10 * Math.log10(Math.max(values[i], POWER_FLOOR)) - top, -TOP_DB);
  }
  return { frames, bands, values };
}

// Autocorrelation of a frame, whose length is a power of two, at as many lags, from 0 on
function autocorrelation(frame, lags) {
  const [re, im] = [frame.slice(), new Float64Array(frame.length)];
  fft(re, im);
  for (let bin = 0; bin < re.length; bin++) re[bin] = re[bin] ** 2 + im[bin] ** 2;
  im.fill(0);
  fft(re, im); // a power spectrum is even: forth is back, but for the length
  return Float64Array.from({ length: lags }, (_, lag) => {
    let around = 0; // a transform takes the frame for a circle
    for (let i = 0; i < lag; i++) around += frame[i] * frame[frame.length - lag + i];
    return re[lag] / frame.length - around;
  });
}

// How unlike itself a frame is after each lag: d′ of YIN (de Cheveigné and Kawahara 2002, equation 8). Behind its end a frame
// is zero, as librosa takes it, so that even a pure tone is not quite like itself
function unlikeness(frame, likeness) {
  const unlike = new Float64Array(likeness.length);
  let [passed, total] = [0, 0];
  for (let lag = 1; lag < unlike.length; lag++) {
    passed += frame[lag - 1] ** 2;
    const difference = 2 * (likeness[0] - likeness[lag]) - (lag > 1 ? passed : 0); // at lag 1, librosa 0.11 takes nothing off
    total += difference;
    unlike[lag] = difference / (total / lag + Number.MIN_VALUE);
  }
  return unlike;
}

// Place of the first trough below a threshold, else of the least value; an end is a trough if its one neighbour is higher
function firstTrough(values, threshold) {
  const isTrough = (value, i) => value < threshold && !(values[i - 1] <= value) && !(values[i + 1] < value);
  const first = values.findIndex(isTrough);
  return first < 0 ? values.indexOf(Math.min(...values)) : first;
}

// Distance from a place to the lowest point of the parabola through its neighbours; 0 if that lies beyond them
function toVertex(values, i) {
  const bend = values[i + 1] + values[i - 1] - 2 * values[i];
  const slope = (values[i + 1] - values[i - 1]) / 2;
  return Math.abs(slope) < Math.abs(bend) ? -slope / bend : 0;
}

// Fundamental frequency of each frame by YIN, and whether the frame is voiced, which YIN leaves open: its best lag has to
// repeat it well enough (voicedBelow), and it has to be loud enough (withinDb of the loudest)
function pitchTrack(signal, rate, { size, hop, lowHz, highHz, trough, voicedBelow, withinDb }) {
  const [shortest, longest] = [Math.floor(rate / highHz), Math.ceil(rate / lowHz)];
  const frames = Array.from({ length: 1 + Math.floor(signal.length / hop) }, (_, t) => {
    const from = t * hop - size / 2;
    const frame = new Float64Array(size);
    frame.set(signal.subarray(Math.max(0, from), from + size), Math.max(0, -from));
    const likeness = autocorrelation(frame, longest + 1);
    const unlike = unlikeness(frame, likeness).subarray(shortest);
    const lag = firstTrough(unlike, trough);
    return { hz: rate / (shortest + lag + toVertex(unlike, lag)), unlike: unlike[lag], power: likeness[0] };
  });
  const least = Math.max(...frames.map(({ power }) => power)) * 10 ** (-withinDb / 10);
  return frames.map(({ hz, unlike, power }) => ({ hz, voiced: unlike < voicedBelow && power > least }));
}

// First and last sample of what is within topDb of the loudest frame, as librosa trims
function trimmed(signal, topDb, length, hop) {
  const powers = Array.from({ length: 1 + Math.floor(signal.length / hop) }, (_, t) => {
    let sum = 0;
    for (let i = 0; i < length; i++) sum += (signal[t * hop - length / 2 + i] ?? 0) ** 2;
    return Math.max(sum / length, 1e-10);
  });
  const least = Math.max(...powers) * 10 ** (-topDb / 10);
  const last = powers.findLastIndex((power) => power > least);
  return [powers.findIndex((power) => power > least) * hop, Math.min((last + 1) * hop, signal.length)];
}

// Mean squares of every 10 ms around the zero line
function blockPowers(signal, rate) {
  const hop = Math.max(1, Math.min(Math.floor(rate / 100), signal.length));
  const zero = signal.reduce((sum, value) => sum + value, 0) / signal.length;
  return Array.from({ length: Math.floor(signal.length / hop) }, (_, block) => {
    let sum = 0;
    for (let i = block * hop; i < (block + 1) * hop; i++) sum += (signal[i] - zero) ** 2;
    return sum / hop;
  });
}

// Why a signal cannot be asked about, in words; "" if it can
function fault(signal, rate, { quietestDb, shortestS }) {
  if (!signal.length) return "This recording is empty.";
  const [low, high] = signal.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
  if (!(high - low >= 2 * FAINTEST)) return "This recording is silent: nothing in it moves.";
  const powers = blockPowers(signal, rate);
  const loudest = Math.max(...powers);
  const loudestDb = 10 * Math.log10(loudest);
  if (loudestDb < quietestDb) {
    return `This recording is silent: its loudest 10 ms lie ${Math.round(-loudestDb)} dB below full scale, where no voice is.`;
  }
  const isLoud = (power) => power >= loudest * 10 ** (-HEARD_DB / 10);
  const heard = (powers.findLastIndex(isLoud) + 1 - powers.findIndex(isLoud)) / 100;
  if (heard < shortestS) return `Only ${heard.toFixed(2)} s of this recording are sound: at least ${shortestS} s are needed.`;
  return "";
}
