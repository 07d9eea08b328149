"use strict";
// The demo: from a microphone or a file to probabilities and what they rest on, all of it in this page.

const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const WINDOW_S = 1; // of one point of the probabilities over time
const POINTS = 12; // of the probabilities over time, at most
const LEAST_STEP_S = 0.1;
const PATCH = [8, 8]; // frames and bands that are silenced together
const ALIKE = 4; // prototypes shown
const SEGMENT_S = 0.1;
const OCTAVES_HZ = [100, 200, 400]; // lines behind the pitch
const LEAP_OCTAVES = 0.5; // from frame to frame: no voice does it, so no line is drawn
const known = new Map(); // dataset → its demo, arrays decoded
const waiting = new Map();
let heard = null; // { signal, rate, answer }: what the page shows; tests read it
let turn = 0; // of what was asked last: what is still computed for an earlier recording is dropped

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function draw(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const percent = (p) => `${(100 * p).toFixed(0)} %`;
const path = (...parts) => parts.flatMap((part) => String(part).split("/")).map(encodeURIComponent).join("/");
const pause = () => new Promise((resolve) => setTimeout(resolve));
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const floats = (text) => new Float32Array(bytes(text).buffer);

// what is loaded -----------------------------------------------------------------------------------------------

function decoded(value) {
  if (typeof value === "string") return floats(value);
  if (typeof value !== "object") return value;
  const entries = Object.entries(value).map(([name, part]) => [name, name === "pool" ? part : decoded(part)]);
  return Array.isArray(value) ? value.map(decoded) : Object.fromEntries(entries);
}

// called by demo/<dataset>.js
function receiveDemo(dataset, demo) {
  demo.prototypes.forEach((prototype) => { prototype.level = new Int8Array(bytes(prototype.level).buffer); });
  known.set(dataset, { ...demo, network: decoded(demo.network) });
  waiting.get(dataset)?.();
}

function load(dataset) {
  if (known.has(dataset)) return Promise.resolve(known.get(dataset));
  return new Promise((resolve, reject) => {
    waiting.set(dataset, () => resolve(known.get(dataset)));
    document.head.append(make("script", { src: path("demo", `${dataset}.js`), onerror: reject }));
  });
}

// called by demo/<dataset>-<emotion>.js
function receiveSample(emotion, text) {
  listen(bytes(text).buffer, `a made-up voice that was asked for ${emotion}`);
}

// sound in -----------------------------------------------------------------------------------------------------

// Any file the browser decodes, as one channel at `rate`. Wav of 16 bits is read here, since browsers differ in its scale
async function decode(buffer, rate) {
  const wav = readWave(new DataView(buffer));
  if (wav) return resampled(wav.signal, wav.rate, rate);
  return oneChannel(await new OfflineAudioContext(1, 1, rate).decodeAudioData(buffer));
}

// { signal, rate } of a wav file of 16-bit samples; null for anything else
function readWave(view) {
  const word = (place) => String.fromCharCode(...[0, 1, 2, 3].map((i) => view.getUint8(place + i)));
  if (view.byteLength < 44 || word(0) !== "RIFF" || word(8) !== "WAVE") return null;
  const chunks = {};
  for (let place = 12; place + 8 <= view.byteLength; place += 8 + view.getUint32(place + 4, true) + (view.getUint32(place + 4, true) % 2)) {
    chunks[word(place)] ??= { start: place + 8, size: view.getUint32(place + 4, true) };
  }
  const format = chunks["fmt "]?.start;
  if (!format || !chunks.data || view.getUint16(format, true) !== 1 || view.getUint16(format + 14, true) !== 16) return null;
  const channels = view.getUint16(format + 2, true);
  const frames = Math.floor(Math.min(chunks.data.size, view.byteLength - chunks.data.start) / (2 * channels));
  const sample = (i) => view.getInt16(chunks.data.start + 2 * i, true) / 32768;
  const signal = Float32Array.from({ length: frames }, (_, t) => {
    let sum = 0;
    for (let channel = 0; channel < channels; channel++) sum += sample(t * channels + channel);
    return sum / channels;
  });
  return { signal, rate: view.getUint32(format + 4, true) };
}

function oneChannel(sound) {
  const signal = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    sound.getChannelData(channel).forEach((value, i) => { signal[i] += value / sound.numberOfChannels; });
  }
  return signal;
}

async function resampled(signal, from, to) {
  if (from === to) return signal;
  const context = new OfflineAudioContext(1, Math.ceil((signal.length * to) / from), to);
  const buffer = context.createBuffer(1, signal.length, from);
  buffer.copyToChannel(signal, 0);
  const source = new AudioBufferSourceNode(context, { buffer });
  source.connect(context.destination);
  source.start();
  return oneChannel(await context.startRendering());
}

// A worklet passes on the samples as they come. Its code is in its address, since a page from a folder may load no module
const TAP = `registerProcessor("tap", class extends AudioWorkletProcessor {
  process([[channel]]) { if (channel) this.port.postMessage(channel.slice()); return true; }
});`;
let recording = null;

async function record() {
  if (recording) return recording.stop();
  const button = byId("record");
  let stream;
  try {
    // as it is: what browsers do for telephony would change the voice
    const raw = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    stream = await navigator.mediaDevices.getUserMedia({ audio: raw });
  } catch (error) {
    return say(`The microphone cannot be used: ${error.message}. You can take a file instead.`);
  }
  const context = new AudioContext();
  const blocks = [];
  await context.audioWorklet.addModule(`data:text/javascript,${encodeURIComponent(TAP)}`);
  const tap = new AudioWorkletNode(context, "tap", { numberOfOutputs: 0 });
  tap.port.onmessage = ({ data }) => blocks.push(data);
  context.createMediaStreamSource(stream).connect(tap);
  const clock = setInterval(() => {
    const seconds = blocks.reduce((sum, block) => sum + block.length, 0) / context.sampleRate;
    button.textContent = `■ Stop (${seconds.toFixed(1)} s)`;
    if (seconds >= FACTS.longestS) recording.stop();
  }, 100);
  recording = {
    stop: async () => {
      clearInterval(clock);
      recording = null;
      button.textContent = "● Record";
      stream.getTracks().forEach((track) => track.stop());
      const rate = context.sampleRate;
      await context.close();
      const signal = new Float32Array(await new Blob(blocks).arrayBuffer());
      const demo = await load(byId("network").value);
      await answer(await resampled(signal, rate, demo.rate), "your recording");
    },
  };
  say("Listening: say a sentence.");
}

async function listen(buffer, name) {
  const demo = await load(byId("network").value);
  let signal;
  try {
    signal = await decode(buffer, demo.rate);
  } catch {
    return say(`${name} is not a sound that this browser can decode.`);
  }
  await answer(signal, name);
}

// the answer ---------------------------------------------------------------------------------------------------

const say = (text) => { byId("says").textContent = text; };

// What the network says of a signal (n_samples,) at demo.rate, and its pitch: { levels, input, p, windows, pitch, first },
// first the first sample that is not silence
function listenTo(demo, signal) {
  const [first, last] = demo.trimDb ? trimmed(signal, demo.trimDb, demo.grid.size, demo.grid.hop) : [0, signal.length];
  const sound = signal.subarray(first, last);
  const levels = logMel(sound, demo.rate, demo.grid);
  const input = scaled(levels, demo.network);
  const long = Math.round((WINDOW_S * demo.rate) / demo.grid.hop);
  const least = Math.round((LEAST_STEP_S * demo.rate) / demo.grid.hop);
  const step = Math.max(least, Math.ceil((input.frames - long) / (POINTS - 1)));
  const windows = [];
  for (let start = 0; start === 0 || start + long <= input.frames; start += step) {
    const part = clip(input, start, Math.min(start + long, input.frames));
    windows.push({ at: start + part.frames / 2, p: ask(demo.network, part) });
  }
  return { levels, input, p: ask(demo.network, input), windows, pitch: pitchTrack(sound, demo.rate, demo.pitch), first };
}

async function answer(signal, name) {
  const mine = ++turn;
  const dataset = byId("network").value;
  const demo = await load(dataset);
  const longest = Math.round(FACTS.longestS * demo.rate);
  const cut = signal.length > longest ? ` Only its first ${FACTS.longestS} s are heard.` : "";
  signal = signal.subarray(0, longest);
  byId("answer").hidden = true;
  heard = null;
  const refused = fault(signal, demo.rate, FACTS.refusal);
  if (refused) return say(`${refused} There is no answer.`);
  const start = performance.now();
  const result = listenTo(demo, signal);
  const took = performance.now() - start;
  const best = result.p.indexOf(Math.max(...result.p));
  say(`Heard ${name}: ${(signal.length / demo.rate).toFixed(1)} s, answered in ${took.toFixed(0)} ms.${cut}`);
  byId("answer").hidden = false;
  byId("verdict").textContent =
    `Of its ${demo.emotions.length} emotions the network finds ${demo.emotions[best]} most probable: ${percent(result.p[best])}.`;
  byId("heard").src = URL.createObjectURL(wave(signal, demo.rate));
  showBars(demo, result.p);
  showTimes(demo, result);
  showLevels(demo, result);
  showPitch(demo, result);
  byId("meaning").textContent = FACTS.meaning;
  heard = { dataset, signal, took, ...result, falls: null };
  await explain(demo, dataset, signal, result, best, mine);
}

async function explain(demo, dataset, signal, result, best, mine) {
  byId("reasons-note").textContent = "Silencing one patch after another …";
  byId("alike").hidden = true;
  const search = occlude(demo.network, result.input, best, PATCH);
  for (let step = search.next(), since = performance.now(); ; step = search.next()) {
    if (step.done) {
      heard.falls = step.value;
      break;
    }
    if (performance.now() - since < 30) continue;
    await pause();
    if (mine !== turn) return;
    since = performance.now();
  }
  showReasons(demo, result, heard.falls, best);
  showAlike(demo, dataset, signal, result);
}

// The frame around which an answer rests most on 100 ms of sound
function strongestFrame({ frames, bands }, falls) {
  const support = Array.from({ length: frames }, (_, t) => falls.subarray(t * bands, (t + 1) * bands).reduce((a, b) => a + b, 0));
  const top = Math.max(...support);
  const places = support.flatMap((value, t) => (value >= top - 1e-6 ? [t] : []));
  return places[places.length >> 1];
}

// what is shown ------------------------------------------------------------------------------------------------

const colourOf = (emotion) => FACTS.colours[emotion] ?? "gray";

function showBars(demo, p) {
  const ranked = demo.emotions.map((emotion, i) => [emotion, p[i]]).sort((a, b) => b[1] - a[1]);
  byId("bars").replaceChildren(...ranked.flatMap(([emotion, value]) => {
    const bar = make("i", { className: "bar" });
    bar.style.cssText = `width: ${100 * value}%; background: ${colourOf(emotion)}`;
    return [make("span", { textContent: emotion }), make("span", { className: "track" }, bar), make("b", { textContent: percent(value) })];
  }));
}

function showTimes(demo, { windows, input, first }) {
  const [width, height] = [640, 160];
  const x = (window) => (width * window.at) / input.frames;
  const lines = demo.emotions.map((emotion, i) => {
    const points = windows.map((window) => `${x(window).toFixed(1)},${(height * (1 - window.p[i])).toFixed(1)}`);
    const dots = windows.map((window) => draw("circle", { cx: x(window), cy: height * (1 - window.p[i]), r: 3, fill: colourOf(emotion) }));
    const title = draw("title", {}, emotion);
    return draw("g", {}, title, draw("polyline", { points: points.join(" "), fill: "none", stroke: colourOf(emotion), "stroke-width": 2.5 }), ...dots);
  });
  const picture = draw("svg", { viewBox: `-4 -6 ${width + 8} ${height + 12}`, role: "img", class: "times" }, ...lines);
  picture.setAttribute("aria-label", "Probability of each emotion over time");
  const begin = first / demo.rate;
  const end = begin + (input.frames * demo.grid.hop) / demo.rate;
  const key = demo.emotions.map((emotion) => {
    const mark = make("i", { className: "mark" });
    mark.style.background = colourOf(emotion);
    return make("span", {}, mark, emotion);
  });
  byId("times").replaceChildren(
    picture, make("p", { className: "scale note" }, make("span", { textContent: `${begin.toFixed(1)} s` }), make("span", { textContent: `${end.toFixed(1)} s` })),
    make("p", { className: "key note" }, ...key));
}

// Values over time and frequency, lowest frequency below, in the colours of a map of 64
function paint(canvas, { frames, bands }, share, colours) {
  [canvas.width, canvas.height] = [frames, bands];
  const context = canvas.getContext("2d");
  const image = context.createImageData(frames, bands);
  for (let t = 0; t < frames; t++) {
    for (let b = 0; b < bands; b++) {
      const place = Math.round(Math.min(Math.max(share(t * bands + b), 0), 1) * (colours.length - 1));
      image.data.set([...colours[place], 255], ((bands - 1 - b) * frames + t) * 4);
    }
  }
  context.putImageData(image, 0, 0);
}

const extent = (demo, { input }) =>
  `${((input.frames * demo.grid.hop) / demo.rate).toFixed(1)} s from left to right, 0 to ${demo.grid.highestHz / 1000} kHz (mel) from bottom to top`;

function showLevels(demo, result) {
  const { levels } = result;
  paint(byId("spectrogram"), levels, (i) => 1 + levels.values[i] / TOP_DB, FACTS.sequential);
  byId("spectrogram").ariaLabel = "Log-mel spectrogram of what was heard";
  byId("spectrogram-note").textContent = `Log-mel spectrogram, silence around the voice left out: ${extent(demo, result)}.`;
}

// The pitch as a line: over the spectrogram, where its frequency lies between the middles of bands, and below in octaves
function showPitch(demo, { levels: { frames, bands }, pitch }) {
  const { lowHz, highHz } = demo.pitch;
  const inBands = (hz) => bands + 0.5 - ((bands + 1) * melOfHz(hz)) / melOfHz(demo.grid.highestHz);
  const inPercent = (hz) => (100 * Math.log(highHz / hz)) / Math.log(highHz / lowHz);
  const line = (height) => draw("path", { d: pitch.map(({ hz, voiced }, t) => {
    const isJoined = pitch[t - 1]?.voiced && Math.abs(Math.log2(hz / pitch[t - 1].hz)) < LEAP_OCTAVES;
    return voiced ? `${isJoined ? "L" : "M"}${t + 0.5} ${height(hz).toFixed(2)}h0.01` : "";
  }).join("") });
  const show = (id, rows, ...paths) => {
    byId(id).setAttribute("viewBox", `0 0 ${frames} ${rows}`);
    byId(id).replaceChildren(...paths);
  };
  show("pitch", bands, line(inBands), line(inBands)); // its border, and itself
  show("contour", 100, ...OCTAVES_HZ.map((hz) => draw("path", { d: `M0 ${inPercent(hz)}h${frames}` })), line(inPercent));
  byId("contour-scale").replaceChildren(...OCTAVES_HZ.map((hz) => {
    const label = make("span", { className: "note", textContent: `${hz} Hz` });
    label.style.top = `${inPercent(hz)}%`;
    return label;
  }));
  byId("pitch-note").textContent = pitchInWords(pitch);
}

function pitchInWords(pitch) {
  const voiced = pitch.filter((frame) => frame.voiced).map(({ hz }) => hz).sort((a, b) => a - b);
  if (!voiced.length) return "Pitch: none was found. Nothing here repeats itself as regularly as a voice does.";
  const about = 5 * Math.round(voiced[voiced.length >> 1] / 5);
  const share = percent(voiced.length / pitch.length);
  return `Pitch (the blue line, below on a scale of its own): about ${about} Hz, voiced in ${share} of what is shown. It says how ` +
    "high the voice is, not what the speaker feels. The network is not given it, and it can be wrong by an octave.";
}

function showReasons(demo, result, falls, best) {
  const largest = falls.reduce((top, value) => Math.max(top, Math.abs(value)), 1e-9);
  paint(byId("reasons"), result.input, (i) => 0.5 + falls[i] / largest / 2, FACTS.diverging);
  byId("reasons").ariaLabel = `What ${demo.emotions[best]} rests on`;
  byId("reasons-note").textContent =
    `Red: without this patch, ${demo.emotions[best]} becomes less probable; blue: more. The darkest patch moves its log-odds ` +
    `by ${largest.toFixed(2)}. This is what the network uses, not what makes a voice sound so.`;
}

function showAlike(demo, dataset, signal, result) {
  if (!demo.prototypes.length) return;
  const centre = result.first + strongestFrame(result.input, heard.falls) * demo.grid.hop;
  const length = Math.round(SEGMENT_S * demo.rate);
  const from = Math.max(0, Math.min(centre - (length >> 1), signal.length - length));
  const level = logMel(signal.subarray(from, from + length), demo.rate, demo.segmentGrid).values;
  const distance = (prototype) => {
    const sum = level.reduce((total, value, i) => total + (value - prototype.level[i]) ** 2, 0);
    return Math.sqrt(sum / level.length);
  };
  const nearest = demo.prototypes.map((prototype) => ({ prototype, away: distance(prototype) }))
    .sort((a, b) => a.away - b.away).slice(0, ALIKE);
  heard.nearest = nearest;
  byId("alike-note").textContent =
    `The 100 ms from ${(from / demo.rate).toFixed(2)} s count most. These prototypes of notebook 02 look most like them. They ` +
    "belong to another network, which knows one voice each: they show what looks alike, not why this network answered so.";
  byId("prototypes").replaceChildren(...nearest.map(({ prototype, away }) => prototypeCard(dataset, prototype, away)));
  byId("alike").hidden = false;
}

function prototypeCard(dataset, { speaker, emotion, rank, stem }, away) {
  const title = `${emotion} ${rank}`;
  const play = make("button", { type: "button", textContent: "∿ sustained", ariaLabel: `Play prototype ${title}` });
  play.onclick = () => new Audio(path("prototypes", dataset, `${stem}.sustained.wav`)).play();
  const picture = make("img", { src: path("prototypes", dataset, `${stem}.png`), alt: `Prototype ${title} of speaker ${speaker}` });
  const facts = make("p", { className: "note", textContent: `speaker ${speaker}, ${away.toFixed(1)} dB away` });
  const card = make("article", { className: "card" }, picture, make("h3", { textContent: title }), facts, make("div", { className: "buttons" }, play));
  card.style.setProperty("--emotion", colourOf(emotion));
  return card;
}

// A signal as a wav file of 16 bits
function wave(signal, rate) {
  const header = new DataView(new ArrayBuffer(44));
  const text = (place, letters) => [...letters].forEach((letter, i) => header.setUint8(place + i, letter.charCodeAt(0)));
  const fields = [[4, 36 + 2 * signal.length], [16, 16], [24, rate], [28, 2 * rate], [40, 2 * signal.length]];
  [[0, "RIFF"], [8, "WAVEfmt "], [36, "data"]].forEach(([place, letters]) => text(place, letters));
  fields.forEach(([place, value]) => header.setUint32(place, value, true));
  [[20, 1], [22, 1], [32, 2], [34, 16]].forEach(([place, value]) => header.setUint16(place, value, true));
  const samples = Int16Array.from(signal, (value) => Math.max(-32768, Math.min(32767, Math.round(value * 32768))));
  return new Blob([header, samples], { type: "audio/wav" });
}

// doing --------------------------------------------------------------------------------------------------------

function choose() {
  const dataset = byId("network").value, { about, samples, voice } = FACTS.demos[dataset];
  byId("about").textContent = about;
  byId("samples").replaceChildren(...samples.map((emotion) => {
    const button = make("button", { type: "button", textContent: emotion });
    button.onclick = () => document.head.append(make("script", { src: path("demo", `voice_${voice}-${emotion}.js`) }));
    return button;
  }));
  if (samples.length) byId("samples").prepend("or a made-up voice: ");
  load(dataset).catch(() => say(`The network of ${dataset} could not be read.`));
}

function begin() {
  const datasets = Object.keys(FACTS.demos);
  if (!datasets.length) {
    byId("demo").replaceChildren("No network is here: make 05 trains one, and make site puts it on this page.");
    return;
  }
  byId("network").replaceChildren(...datasets.map((value) => make("option", { value, textContent: FACTS.demos[value].title })));
  byId("choice").hidden = datasets.length < 2;
  byId("network").onchange = choose;
  byId("record").onclick = record;
  byId("file").onchange = async ({ target }) => target.files[0] && listen(await target.files[0].arrayBuffer(), target.files[0].name);
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", async (event) => {
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (file) listen(await file.arrayBuffer(), file.name);
  });
  choose();
}

begin();
