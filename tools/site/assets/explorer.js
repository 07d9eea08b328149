"use strict";
// The prototype explorer. Everything that comes from a corpus is set as text, never as markup.

const ALL = "";
const FACTS = { score: "score", f0_hz: "pitch (Hz)", note: "note", nearest_utterance_id: "nearest segment" };
const byId = (id) => document.getElementById(id);
const controls = ["corpus", "speaker", "emotion", "sort", "find", "least", "with_speaker", "with_emotion"];
const known = new Map(); // corpus → rows, once its index.js has arrived
const waiting = new Map(); // corpus → what to do when it has
const player = new Audio();
let queue = [];
let pause = 0;

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

const path = (...parts) => parts.flatMap((part) => String(part).split("/")).map(encodeURIComponent).join("/");
const number = new Intl.NumberFormat("en", { maximumSignificantDigits: 4, useGrouping: false });
const text = (value) => (typeof value === "number" ? number.format(value) : String(value));
const label = (name) => FACTS[name] ?? name.replaceAll("_", " ");
const nameOf = (row) => `${row.emotion}/${row.rank}`;
const natural = new Intl.Collator("en", { numeric: true }).compare;
const distinct = (rows, name) => [...new Set(rows.map((row) => row[name]))].sort(natural);
const order = Object.keys(SITE.colours);
const place = (emotion) => (order.includes(emotion) ? order.indexOf(emotion) : order.length);
const byEmotion = (a, b) => place(a) - place(b) || natural(a, b);

// called by prototypes/<corpus>/index.js
function receivePrototypes(corpus, rows) {
  known.set(corpus, rows);
  waiting.get(corpus)?.();
}

function load(corpus) {
  if (known.has(corpus)) return Promise.resolve(known.get(corpus));
  return new Promise((resolve, reject) => {
    waiting.set(corpus, () => resolve(known.get(corpus)));
    document.head.append(make("script", { src: path("prototypes", corpus, "index.js"), onerror: reject }));
  });
}

// the address ------------------------------------------------------------------------------------------------

const asked = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));

function address(changes = {}) {
  const state = Object.fromEntries(controls.map((id) => [id, byId(id).value]));
  const wanted = { ...state, at: asked().at ?? "", ...changes };
  const kept = Object.entries(wanted).filter(([, value]) => value);
  return `#${new URLSearchParams(kept)}`;
}

function go(changes) {
  const next = address(changes);
  if (next !== location.hash) history.replaceState(null, "", next);
}

// pictures ---------------------------------------------------------------------------------------------------

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const colours = (name) => new Uint32Array(bytes(SITE.maps[name]).buffer); // 256, as a canvas keeps them
const maps = { levels: colours("levels"), difference: colours("difference") };
const { bands, step_db: stepDb, floor_db: floorDb, difference_db: differenceDb } = SITE.scale;
const levelsOf = (text) => Float32Array.from(bytes(text), (steps) => Math.max(-steps * stepDb, floorDb)); // dB

// one pixel a band and frame, the lowest band at the bottom; shares: what of the map each takes, within [0, 1].
// The style sheet enlarges it without smoothing, so it is sharp at any size and on any screen.
function paint(canvas, shares, map, height = bands) {
  const width = shares.length / height;
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  shares.forEach((share, place) => {
    const row = height - 1 - Math.floor(place / width);
    pixels[row * width + (place % width)] = map[Math.round(255 * Math.min(Math.max(share, 0), 1))];
  });
  Object.assign(canvas, { width, height }).getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

const VIEWS = {
  prototype: (row) => [levelsOf(row._levels).map((db) => 1 - db / floorDb), maps.levels],
  recorded: (row) => [levelsOf(row._nearest).map((db) => 1 - db / floorDb), maps.levels],
  difference: (row) => {
    const recorded = levelsOf(row._nearest);
    const shares = levelsOf(row._levels).map((db, place) => 0.5 + (db - recorded[place]) / (2 * differenceDb));
    return [shares, maps.difference];
  },
};
const canShow = {
  prototype: () => true,
  recorded: (row) => row._nearest,
  difference: (row) => row._nearest && row._levels?.length === row._nearest.length,
};

// a map with what its ends mean
function legend(low, map, high) {
  const shares = Float32Array.from(map, (_, place) => place / (map.length - 1));
  const strip = make("canvas", { className: "strip", ariaHidden: "true" });
  return make("span", { className: "legend" }, low, paint(strip, shares, map, 1), high);
}

// axes, once a row of cards --------------------------------------------------------------------------------------

const short = (hertz) => (hertz < 1000 ? String(hertz) : `${hertz / 1000}k`);

function frequencies(axes) {
  const ticks = axes.hertz.map(([hertz, height]) => {
    const tick = make("span", { textContent: short(hertz) });
    tick.style.bottom = `${100 * height}%`;
    return tick;
  });
  return make("div", { className: "axis" }, make("div", {}, ...ticks), make("b", { textContent: "Hz" }));
}

// frames are centred on multiples of their distance
function times(axes, frames) {
  return [0, 50, 100].map((ms) => {
    const tick = make("span", { textContent: ms === 100 ? "100 ms" : String(ms) });
    tick.style.left = `${(100 * (ms / axes.frame_ms + 0.5)) / frames}%`;
    return tick;
  });
}

// cards that fit beside each other make a row, and an axis stands before it
function lay(section, axes) {
  const [axis, gap, narrowest] = [axes ? 34 : 0, 10, 144]; // pixels; the first two as in the style sheet
  const columns = Math.max(1, Math.floor((section.clientWidth - axis + gap) / (narrowest + gap)));
  if (section.columns === columns) return;
  section.columns = columns;
  section.style.setProperty("--columns", columns);
  for (const grid of section.querySelectorAll(".cards")) {
    grid.querySelectorAll(".axis").forEach((node) => node.remove());
    [...grid.children].forEach((node, place) => {
      const first = place % columns === 0;
      node.querySelector(".time")?.replaceChildren(...(axes && first ? times(axes, node.frames) : []));
      if (axes && first) node.before(frequencies(axes));
    });
  }
}

const layAll = () => document.querySelectorAll("#panes section").forEach((section) => lay(section, section.axes));
new ResizeObserver(layAll).observe(byId("panes"));

// what is shown ------------------------------------------------------------------------------------------------

function options(id, values, chosen, names = (value) => value) {
  byId(id).replaceChildren(...values.map((value) => make("option", { value, textContent: names(value) })));
  byId(id).value = values.includes(chosen) ? chosen : values[0] ?? "";
}

async function show() {
  stop();
  const want = asked();
  const corpora = Object.keys(SITE.corpora);
  const before = byId("corpus").value;
  options("corpus", corpora, want.corpus ?? before, (name) => `${SITE.corpora[name].title} (${SITE.corpora[name].n})`);
  const corpus = byId("corpus").value;
  if (!corpus) {
    byId("note").textContent = "No prototypes yet: make reproduce makes them, then make site shows them.";
    byId("controls").hidden = byId("play-all").hidden = byId("stop").hidden = true;
    return;
  }
  byId("note").textContent = SITE.corpora[corpus].note;
  let rows;
  try {
    rows = await load(corpus);
  } catch {
    byId("state").textContent = `The prototypes of ${corpus} could not be read.`;
    return;
  }
  if (byId("corpus").value !== corpus) return;
  const speakers = distinct(rows, "speaker");
  options("speaker", speakers, want.speaker);
  const speaker = byId("speaker").value;
  options("with_speaker", [ALL, ...speakers], want.with_speaker ?? ALL, (name) => name || "nobody");
  const emotions = distinct(rows, "emotion").sort(byEmotion);
  options("emotion", [ALL, ...emotions], want.emotion ?? ALL, (name) => name || "all");
  options("with_emotion", [ALL, ...emotions], want.with_emotion ?? ALL, (name) => name || "the same");
  const numeric = Object.keys(Object.assign({}, ...rows)).filter((key) => rows.some((row) => typeof row[key] === "number"));
  options("sort", ["rank", ...numeric.filter((key) => key !== "rank")], want.sort, label);
  byId("find").value = want.find ?? "";
  byId("least").value = want.least ?? "";
  byId("least").disabled = !numeric.includes("score");

  const panes = [[speaker, byId("emotion").value]];
  const beside = [byId("with_speaker").value || speaker, byId("with_emotion").value || byId("emotion").value];
  if (byId("with_speaker").value || byId("with_emotion").value) panes.push(beside);
  byId("panes").className = panes.length > 1 ? "two" : "";
  byId("panes").replaceChildren(...panes.map(([who, what]) => pane(corpus, rows, who, what)));
  layAll();
  const drawn = rows.some((row) => row._levels);
  byId("scale").replaceChildren(...(drawn ? [legend(`−${-floorDb} dB`, maps.levels, "0 dB, the loudest")] : []));
  count();
  const target = [...document.querySelectorAll(".card")].find((card) => nameOf(card.row) === want.at && card.row.speaker === speaker);
  if (target) select(target);
}

function count() {
  const [all, folded] = [document.querySelectorAll(".card").length, document.querySelectorAll(FOLDED).length];
  const total = SITE.corpora[byId("corpus").value].n;
  byId("state").textContent = `${all} of ${total} prototypes${folded ? `, ${folded} of them folded` : ""}`;
  byId("play-all").disabled = !cards().some((card) => card.row._sound);
}

function wordsOf(row) {
  const facts = Object.keys(row).filter((name) => !name.startsWith("_")).map((name) => row[name]);
  return [...facts, row._spoken?.sentence].join(" ").toLowerCase();
}

function pane(corpus, rows, speaker, emotion) {
  const words = byId("find").value.toLowerCase().split(/\s+/);
  const least = parseFloat(byId("least").value);
  const fits = (row) =>
    row.speaker === speaker && (!emotion || row.emotion === emotion) &&
    !(row.score < least) &&
    words.every((word) => wordsOf(row).includes(word));
  const sort = byId("sort").value;
  const size = (row) => (typeof row[sort] === "number" ? row[sort] : -Infinity);
  const shown = rows.filter(fits).sort((a, b) =>
    sort === "rank" ? byEmotion(a.emotion, b.emotion) || natural(a.rank, b.rank) : size(b) - size(a));
  const names = [...new Set(shown.map((row) => row.emotion))];
  const groups = sort === "rank" ? names.map((name) => shown.filter((row) => row.emotion === name)) : [shown];
  const title = `Speaker ${speaker}${emotion ? `, ${emotion}` : ""}: ${shown.length}`;
  const groupsFolded = groups.flatMap((group) => fold(corpus, group));
  const section = make("section", { ariaLabel: title }, make("h2", { textContent: title }), ...groupsFolded);
  section.axes = shown.some((row) => row._levels) && SITE.corpora[corpus].axes;
  section.classList.toggle("plain", !section.axes);
  return section;
}

// first those that differ; what is nearly one of them is folded away
function fold(corpus, rows) {
  const list = (some) => make("div", { className: "cards" }, ...some.map((row) => card(corpus, row)));
  const [first, twins] = [rows.filter((row) => row.distinct !== false), rows.filter((row) => row.distinct === false)];
  if (!twins.length) return [list(first)];
  const words = `${twins.length} more that sound alike`;
  const summary = make("summary", { textContent: words });
  const box = make("details", { className: "twins", open: !first.length, ontoggle: count }, summary, list(twins));
  return [list(first), box];
}

function card(corpus, row) {
  const title = `${row.emotion} ${row.rank}`;
  const hidden = new Set(["speaker", "emotion", "rank", "distinct", "twin_of"]);
  const isKnown = row._nearest || row._spoken?.speaker;
  if (isKnown) ["nearest_utterance_id", "nearest_start_ms"].forEach((name) => hidden.add(name));
  const facts = Object.keys(row).filter((key) => !key.startsWith("_") && !hidden.has(key));
  const first = Object.keys(FACTS).filter((key) => facts.includes(key));
  const list = (keys) => make("dl", {}, ...keys.flatMap((key) =>
    [make("dt", { textContent: label(key) }), make("dd", { textContent: text(row[key]) })]));
  const more = facts.filter((key) => !(key in FACTS));
  const node = make("article", { className: "card", tabIndex: 0, row });
  const sound = (name, words, kind, there) => make("button", {
    type: "button", textContent: name, title: words, ariaLabel: `${words}: ${title}`, disabled: !there,
    onclick: () => { select(node); play([node], kind); },
  });
  const link = make("a", { href: address({ at: nameOf(row), speaker: row.speaker }), textContent: "link" });
  link.onclick = () => setTimeout(() => select(node));
  const top = make("button", { type: "button", className: "picture", disabled: !row._sound, ariaLabel: `Play ${title}` });
  top.onclick = () => { select(node); play([node], node.view === "recorded" ? ".nearest" : ""); };
  node.show = (view) => {
    node.view = view;
    top.replaceChildren(picture(corpus, row, view, title));
  };
  node.show("prototype");
  node.frames = row._levels ? top.firstChild.width : 0;
  node.append(
    top, ...(row._levels ? [make("div", { className: "time" })] : []),
    make("h3", { textContent: title }), list(first),
    ...(row.twin_of ? [make("p", { textContent: `sounds like ${row.emotion} ${row.twin_of}` })] : []),
    make("div", { className: "buttons" },
      sound("▶ 100 ms", "The sound as it is, a click", "", row._sound),
      sound("∿ sustained", "Repeated by overlap-add to be heard as a voice", ".sustained", row._sound), link));
  if (isKnown) node.append(nearest(node, title, sound));
  if (more.length) node.append(make("details", {}, make("summary", { textContent: "more" }), list(more)));
  node.style.setProperty("--emotion", SITE.colours[row.emotion] ?? "gray");
  node.sound = (kind) => path("prototypes", corpus, `${row._stem}${kind}.wav`);
  node.onfocus = () => select(node);
  return node;
}

// drawn from numbers; corpora made before have an image of the prototype only
function picture(corpus, row, view, title) {
  const what = {
    prototype: `prototype ${title} of speaker ${row.speaker}`,
    recorded: `the real segment nearest to prototype ${title}`,
    difference: `prototype ${title} minus the real segment nearest to it`,
  }[view];
  const words = `Log-mel spectrogram of 100 ms: ${what}`;
  if (view === "prototype" && !row._levels)
    return make("img", { loading: "lazy", src: path("prototypes", corpus, `${row._stem}.png`), alt: words });
  return paint(make("canvas", { role: "img", ariaLabel: words }), ...VIEWS[view](row));
}

// the real 100 ms most like the prototype: when opened it is seen in the prototype's place, heard, and told
function nearest(node, title, sound) {
  const { row } = node;
  const box = make("details", { className: "nearest" }, make("summary", { textContent: "nearest real segment" }));
  box.ontoggle = () => {
    if (!box.querySelector("p")) box.append(...told(row), ...(row._nearest ? [heard(sound)] : []));
    if (!row._nearest) return;
    node.querySelector(".views")?.remove();
    node.show(box.open ? "recorded" : "prototype");
    if (!box.open) return;
    node.querySelector("h3").before(views(node));
    play([node], ".nearest.sustained");
  };
  return box;
}

function told(row) {
  const { speaker, emotion, sentence, language } = row._spoken ?? {};
  const said = language ? make("q", { textContent: sentence, lang: language }) : sentence && `Sentence ${sentence}`;
  const where = Number.isFinite(row.nearest_start_ms) ? `, from ${number.format(row.nearest_start_ms / 1000)} s` : "";
  const lines = [said, speaker && `Speaker ${speaker}, ${emotion}`, `${row.nearest_utterance_id}${where}`];
  return lines.filter(Boolean).map((line) => make("p", {}, line));
}

const heard = (sound) => make("div", { className: "buttons" },
  sound("▶ 100 ms", "The recorded 100 ms, as loud as the prototype", ".nearest", true),
  sound("∿ sustained", "The recorded 100 ms, repeated by overlap-add", ".nearest.sustained", true));

// buttons under the picture: either of the two, or one laid over the other
function views(node) {
  const ends = ["blue: recording", "red: prototype"].map((end) => `${end} ${differenceDb} dB louder`);
  const words = legend(ends[0], maps.difference, ends[1]);
  const buttons = Object.keys(VIEWS).filter((view) => canShow[view](node.row)).map((view) =>
    make("button", { type: "button", textContent: view, onclick: () => { select(node); node.show(view); mark(); } }));
  const mark = () => {
    buttons.forEach((button) => { button.ariaPressed = String(button.textContent === node.view); });
    words.hidden = node.view !== "difference";
  };
  mark();
  const row = make("div", { className: "buttons" }, ...buttons);
  return make("div", { className: "views", role: "group", ariaLabel: "The picture shows" }, row, words);
}

const FOLDED = "details.twins:not([open]) .card";
const cards = () => [...document.querySelectorAll(".card")].filter((node) => !node.matches(FOLDED));
const here = () => document.querySelector(".card.here");

function select(node) {
  here()?.classList.remove("here");
  node.classList.add("here");
  if (node.matches(FOLDED)) node.closest("details.twins").open = true;
  if (document.activeElement !== node && !node.contains(document.activeElement)) node.focus({ preventScroll: true });
  node.scrollIntoView({ block: "nearest" });
  // what stands beside belongs to another speaker: the address leads to the first pane's
  if (node.row.speaker === byId("speaker").value) go({ at: nameOf(node.row) });
}

// sound ------------------------------------------------------------------------------------------------------

// kind: "" as it is, ".sustained", ".nearest" or ".nearest.sustained"
function play(nodes, kind = "") {
  stop();
  queue = nodes.map((node) => [node, kind]);
  next();
}

async function next() {
  document.querySelector(".card.playing")?.classList.remove("playing");
  const [node, kind] = queue.shift() ?? [];
  if (!node) return;
  node.classList.add("playing");
  if (queue.length) node.scrollIntoView({ block: "nearest" });
  player.src = node.sound(kind);
  try {
    await player.play();
  } catch (error) {
    if (error.name !== "AbortError") byId("state").textContent = `No sound: ${error.message}`;
  }
}

function stop() {
  clearTimeout(pause);
  queue = [];
  player.pause();
  document.querySelector(".card.playing")?.classList.remove("playing");
}

player.onended = () => { pause = setTimeout(next, 250); };
player.onerror = () => { if (queue.length) next(); };

// doing ------------------------------------------------------------------------------------------------------

const playAll = () => play(cards().filter((node) => node.row._sound), ".sustained");

function step(by) {
  const all = cards();
  const node = all[Math.min(Math.max(all.indexOf(here()) + by, 0), all.length - 1)];
  if (node) { select(node); node.focus(); }
}

const keys = {
  ArrowRight: () => step(1), ArrowLeft: () => step(-1), j: () => step(1), k: () => step(-1),
  Enter: () => here() && play([here()]), p: () => here() && play([here()]), s: () => here() && play([here()], ".sustained"),
  n: () => here()?.row._nearest && play([here()], ".nearest.sustained"),
  a: playAll, Escape: stop, "/": () => byId("find").focus(),
};

addEventListener("keydown", (event) => {
  const busy = event.target.closest("input, select") || (event.key === "Enter" && event.target.closest("a, button, summary"));
  if ((busy && event.key !== "Escape") || event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
});

for (const id of controls) {
  byId(id).addEventListener(id === "find" || id === "least" ? "input" : "change", () => {
    go(id === "corpus" ? { speaker: "", emotion: "", with_speaker: "", with_emotion: "", at: "" } : { at: "" });
    show();
  });
}
byId("play-all").onclick = playAll;
byId("stop").onclick = stop;
addEventListener("hashchange", show);
show();
