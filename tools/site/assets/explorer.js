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
  byId("state").textContent = `${cards().length} of ${rows.length} prototypes`;
  byId("play-all").disabled = !cards().some((card) => card.row._sound);
  const target = cards().find((card) => nameOf(card.row) === want.at && card.row.speaker === speaker);
  if (target) select(target);
}

function pane(corpus, rows, speaker, emotion) {
  const words = byId("find").value.toLowerCase().split(/\s+/);
  const least = parseFloat(byId("least").value);
  const fits = (row) =>
    row.speaker === speaker && (!emotion || row.emotion === emotion) &&
    !(row.score < least) &&
    words.every((word) => Object.values(row).join(" ").toLowerCase().includes(word));
  const sort = byId("sort").value;
  const size = (row) => (typeof row[sort] === "number" ? row[sort] : -Infinity);
  const shown = rows.filter(fits).sort((a, b) =>
    sort === "rank" ? byEmotion(a.emotion, b.emotion) || natural(a.rank, b.rank) : size(b) - size(a));
  const list = make("div", { className: "cards" }, ...shown.map((row) => card(corpus, row)));
  const title = `Speaker ${speaker}${emotion ? `, ${emotion}` : ""}: ${shown.length}`;
  const section = make("section", {}, make("h2", { textContent: title }), list);
  section.setAttribute("aria-label", title);
  return section;
}

function card(corpus, row) {
  const title = `${row.emotion} ${row.rank}`;
  const picture = make("img", {
    loading: "lazy", src: path("prototypes", corpus, `${row._stem}.png`),
    alt: `Log-mel spectrogram of 100 ms: prototype ${title} of speaker ${row.speaker}`,
  });
  const hidden = new Set(["speaker", "emotion", "rank", ...(row._nearest ? ["nearest_utterance_id", "nearest_start_ms"] : [])]);
  const facts = Object.keys(row).filter((key) => !key.startsWith("_") && !hidden.has(key));
  const first = Object.keys(FACTS).filter((key) => facts.includes(key));
  const list = (keys) => make("dl", {}, ...keys.flatMap((key) =>
    [make("dt", { textContent: label(key) }), make("dd", { textContent: text(row[key]) })]));
  const more = facts.filter((key) => !(key in FACTS));
  const node = make("article", { className: "card", tabIndex: 0 });
  const sound = (name, words, kind, there) => make("button", {
    type: "button", textContent: name, title: words, ariaLabel: `${words}: ${title}`, disabled: !there,
    onclick: () => { select(node); play([node], kind); },
  });
  const link = make("a", { href: address({ at: nameOf(row), speaker: row.speaker }), textContent: "link" });
  link.onclick = () => setTimeout(() => select(node));
  const top = make("button", { type: "button", className: "picture", disabled: !row._sound, ariaLabel: `Play ${title}` }, picture);
  top.onclick = () => { select(node); play([node]); };
  node.append(
    top, make("h3", { textContent: title }), list(first),
    make("div", { className: "buttons" },
      sound("▶ 100 ms", "The sound as it is, a click", "", row._sound),
      sound("∿ sustained", "Repeated by overlap-add to be heard as a voice", ".sustained", row._sound), link));
  if (row._nearest) node.append(nearest(corpus, row, title, sound));
  if (more.length) node.append(make("details", {}, make("summary", { textContent: "more" }), list(more)));
  node.style.setProperty("--emotion", SITE.colours[row.emotion] ?? "gray");
  node.row = row;
  node.sound = (kind) => path("prototypes", corpus, `${row._stem}${kind}.wav`);
  node.onfocus = () => select(node);
  return node;
}

// the real 100 ms most like the prototype, loaded when opened
function nearest(corpus, row, title, sound) {
  const box = make("details", { className: "nearest" }, make("summary", { textContent: "nearest real segment" }));
  box.ontoggle = () => {
    if (!box.open || box.querySelector("img")) return;
    const seconds = number.format(row.nearest_start_ms / 1000);
    box.append(
      make("img", {
        src: path("prototypes", corpus, `${row._stem}.nearest.png`),
        alt: `Log-mel spectrogram of the real segment nearest to prototype ${title}`,
      }),
      make("p", { textContent: `${row.nearest_utterance_id}, from ${seconds} s` }),
      make("div", { className: "buttons" },
        sound("▶ 100 ms", "The recorded 100 ms, as loud as the prototype", ".nearest", true),
        sound("∿ sustained", "The recorded 100 ms, repeated by overlap-add", ".nearest.sustained", true)));
  };
  return box;
}

const cards = () => [...document.querySelectorAll(".card")];
const here = () => document.querySelector(".card.here");

function select(node) {
  here()?.classList.remove("here");
  node.classList.add("here");
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
