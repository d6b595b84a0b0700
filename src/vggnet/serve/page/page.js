// The page: ink goes to the server while it is drawn, and its answers are shown.

import { Collection } from "./collection.js";
import { Pad } from "./pad.js";

const PAUSE_MS = 60; // between two questions; faster than an eye reads bars
const DIGITS = [..."0123456789"];

const find = (id) => document.getElementById(id);
const pad = new Pad(find("pad"));
const collection = new Collection(() => showCollection());
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

let classes = [];
let seen = null; // the image that belongs to the answer on show, PNG in base64
let version = 0; // of the drawing
let answered = 0; // the version that the answer on show belongs to
let asking = false;
let saving = -1; // the version that is to be saved

// --- Asking ---------------------------------------------------------------------------

pad.addEventListener("change", () => {
  version++;
  find("hint").hidden = !pad.empty;
  find("undo").disabled = find("clear").disabled = pad.empty;
  ask();
});

// One question at a time; after its answer, the drawing as it is by then.
async function ask() {
  if (asking) return;
  asking = true;
  find("reading").ariaBusy = "true";
  while (answered !== version) {
    const asked = version;
    const answer = pad.empty ? null : await request();
    if (answer === undefined) continue; // the server was busy or away, and time has passed
    if (version !== asked && pad.empty) continue; // cleared meanwhile: show no old answer
    answered = asked;
    show(answer);
    await wait(PAUSE_MS);
  }
  asking = false;
  find("reading").ariaBusy = "false";
}

// The server's answer, or undefined, after a while, where there is none.
async function request() {
  try {
    const response = await fetch("/predict", {
      method: "POST",
      headers: { "Content-Type": "image/png" },
      body: await pad.toPng(),
    });
    if (response.ok) return await response.json();
    const { detail } = await response.json();
    complain(detail);
    await wait(1000 * (Number(response.headers.get("Retry-After")) || 1));
  } catch {
    complain("The server does not answer; trying again …");
    await wait(1000);
  }
}

// --- Showing --------------------------------------------------------------------------

function show(answer) {
  const prediction = answer?.predictions[0] ?? {};
  const { class: label = null, probability, probabilities } = prediction;
  seen = answer?.seen ?? null;
  if (probabilities) setClasses(Object.keys(probabilities));
  find("answer").textContent = label ?? "?";
  find("answer").classList.toggle("empty", label === null);
  find("sureness").classList.remove("trouble");
  find("sureness").textContent =
    label !== null ? `${percent(probability)} sure` : answer ? "Nothing drawn" : "Nothing drawn yet";
  find("seen").hidden = seen === null;
  if (seen) find("seen").src = `data:image/png;base64,${seen}`;
  for (const bar of find("bars").children) {
    const value = probabilities?.[bar.dataset.label] ?? 0;
    bar.classList.toggle("best", bar.dataset.label === label);
    bar.querySelector(".fill").style.height = `${100 * value}%`;
    bar.querySelector(".value").textContent = value < 0.015 ? "" : `${Math.round(100 * value)} %`;
  }
  for (const button of find("labels").children) {
    button.disabled = seen === null;
    button.classList.toggle("best", button.dataset.label === label);
  }
  if (!pad.drawing && version === answered)
    say(label === null ? "Nothing drawn." : `The network reads ${label}, ${percent(probability)} sure.`);
}

function percent(value) {
  const share = 100 * value;
  return share > 99.95 || share < 0.05 ? `${Math.round(share)} %` : `${share.toFixed(1)} %`;
}

function complain(text) {
  find("sureness").textContent = text;
  find("sureness").classList.add("trouble");
  say(text);
}

function say(text) {
  find("status").textContent = text;
}

// Make a bar and a button for each class, where they are not those on the page.
function setClasses(names) {
  if (names.join() === classes.join()) return;
  classes = names;
  find("bars").replaceChildren(...names.map(makeBar));
  find("labels").replaceChildren(...names.map(makeButton));
  const long = names.some((name) => name.length > 2);
  for (const id of ["bars", "labels"]) find(id).classList.toggle("long", long);
}

function makeBar(label) {
  const bar = make("li", "");
  bar.dataset.label = label;
  const track = make("span", "track");
  track.append(make("span", "fill"));
  bar.append(make("span", "value"), track, make("span", "name", label));
  return bar;
}

function makeButton(label) {
  const button = make("button", "", label);
  button.type = "button";
  button.disabled = true;
  button.dataset.label = label;
  button.setAttribute("aria-label", `Save as ${label}`);
  const key = DIGITS.find((digit) => labelOf(digit) === label);
  if (key) button.setAttribute("aria-keyshortcuts", key);
  button.addEventListener("click", () => save(label));
  return button;
}

function make(kind, name, text = "") {
  const element = document.createElement(kind);
  if (name) element.className = name;
  element.textContent = text;
  return element;
}

// --- Keeping --------------------------------------------------------------------------

// The image to save is what the network saw, so the last stroke's answer is waited for.
async function save(label) {
  if (saving === version) return; // a key that was pressed twice
  const asked = (saving = version);
  while (answered !== asked && version === asked) await wait(PAUSE_MS);
  if (version !== asked) return complain(`Not saved as ${label}: the drawing has changed.`);
  if (seen === null) return;
  collection.add(label, seen);
  pad.clear();
  // Its button, which is about to be disabled, would take the keyboard's place on the page along.
  if (find("labels").contains(document.activeElement)) find("pad").focus({ preventScroll: true });
  say(`Saved as ${label}; ${collection.drawings.length} in the set.`);
}

function showCollection() {
  const { drawings } = collection;
  find("set").hidden = drawings.length === 0;
  find("count").textContent = `${drawings.length} drawing${drawings.length === 1 ? "" : "s"}`;
  find("saved").replaceChildren(
    ...drawings.map(({ label, png }) => {
      const item = make("li", "");
      const image = make("img", "");
      image.src = `data:image/png;base64,${png}`;
      image.alt = "";
      item.append(image, make("span", "", label));
      return item;
    }),
  );
}

function download() {
  if (collection.drawings.length === 0) return;
  const link = make("a", "");
  link.href = URL.createObjectURL(collection.toZip());
  link.download = "drawings.zip";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function change(act) {
  act();
  say(`${collection.drawings.length} in the set.`);
}

// --- Buttons and keys -----------------------------------------------------------------

const actions = {
  undo: () => pad.undo(),
  clear: () => pad.clear(),
  download,
  remove: () => change(() => collection.removeLast()),
  discard: () => {
    if (confirm("Remove all saved drawings?")) change(() => collection.removeAll());
  },
};
for (const [id, act] of Object.entries(actions)) find(id).addEventListener("click", act);

find("seen").addEventListener("load", ({ target }) => {
  find("size").textContent = `${target.naturalWidth} × ${target.naturalHeight} pixels`;
});

// The label that a digit's key saves by: that digit, or the one of that number where none is one.
function labelOf(digit) {
  if (classes.some((name) => /^[0-9]$/.test(name))) return classes.find((name) => name === digit);
  return classes[Number(digit)];
}

const KEYS = { z: actions.undo, x: actions.clear, Escape: actions.clear, d: download };

document.addEventListener("keydown", (event) => {
  if (event.metaKey || event.altKey || (event.ctrlKey && event.key !== "z")) return;
  if (event.key.length === 1 && !event.ctrlKey && !find("keys").checked) return;
  const label = /^[0-9]$/.test(event.key) ? labelOf(event.key) : undefined;
  const act = label === undefined ? KEYS[event.key] : () => save(label);
  if (!act) return;
  event.preventDefault();
  act();
});

setClasses(DIGITS);
showCollection();
