// The page sends the drawing to the server as it changes, and shows the predictions.

import { Collection } from "./collection.js";
import { Pad } from "./pad.js";
import { text, translate } from "./text.js";

const PAUSE_MS = 60; // between two requests; bars that change faster cannot be read
const DIGITS = [..."0123456789"];

const find = (id) => document.getElementById(id);
const pad = new Pad(find("pad"));
const collection = new Collection(() => showCollection());
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

let classes = [];
let seen = null; // the network's input that belongs to the answer shown, PNG in base64
let version = 0; // of the drawing
let answered = 0; // the version that the answer shown belongs to
let asking = false;
let saving = -1; // the version that is being saved
let explaining = false; // whether the evidence is shown

// --- Requests -------------------------------------------------------------------------

pad.addEventListener("change", () => {
  version++;
  find("hint").hidden = !pad.empty;
  find("undo").disabled = find("clear").disabled = pad.empty;
  ask();
});

// One request at a time. After its answer, the drawing as it is then is sent.
async function ask() {
  if (asking) return;
  asking = true;
  find("reading").ariaBusy = "true";
  while (answered !== version) {
    const asked = version;
    const answer = pad.empty ? null : await request();
    if (answer === undefined) continue; // the server was busy or away; request() has waited
    if (version !== asked && pad.empty) continue; // cleared meanwhile: the answer is outdated
    answered = asked;
    show(answer);
    await wait(PAUSE_MS);
  }
  asking = false;
  find("reading").ariaBusy = "false";
}

// The server's answer, or undefined after a while if there is none.
async function request(what = "predict") {
  try {
    const response = await fetch(`models/${encodeURIComponent(find("model").value)}/${what}`, {
      method: "POST",
      headers: { "Content-Type": "image/png" },
      body: await pad.toPng(),
    });
    if (response.ok) return await response.json();
    const { detail } = await response.json();
    complain(detail);
    await wait(1000 * (Number(response.headers.get("Retry-After")) || 1));
  } catch {
    complain(text.busy);
    await wait(1000);
  }
}

// --- Showing --------------------------------------------------------------------------

function show(answer) {
  const prediction = answer?.predictions[0] ?? {};
  const { class: label = null, probability, probabilities, unlike_training: unlike } = prediction;
  seen = answer?.seen ?? null;
  if (probabilities) setClasses(Object.keys(probabilities));
  find("answer").textContent = label ?? "?";
  find("answer").classList.toggle("empty", label === null);
  find("confidence").classList.remove("trouble");
  find("confidence").textContent =
    label !== null ? text.confidence(percent(probability)) : answer ? text.nothing : text.blank;
  find("seen").hidden = seen === null;
  find("explain").disabled = seen === null;
  if (seen) showInput(seen, text.input);
  if (seen && explaining) explain();
  find("unlike").hidden = !unlike;
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
    say(
      label === null
        ? text.spokenNothing
        : text.spoken(label, percent(probability)) + (unlike ? ` ${text.unlike}.` : ""),
    );
}

function showInput(png, caption) {
  find("seen").src = `data:image/png;base64,${png}`;
  find("caption").textContent = caption;
}

// Paint the evidence over the network's input, once the drawing rests.
async function explain() {
  if (pad.drawing || version !== answered) return;
  const asked = version;
  const evidence = await request("explain");
  if (evidence?.picture && version === asked && explaining)
    showInput(evidence.picture, text.explained);
}

function percent(value) {
  const share = 100 * value;
  return share > 99.95 || share < 0.05 ? `${Math.round(share)} %` : `${share.toFixed(1)} %`;
}

function complain(message) {
  find("confidence").textContent = message;
  find("confidence").classList.add("trouble");
  say(message);
}

function say(message) {
  find("status").textContent = message;
}

// Make a bar and a button for each class, unless the page has them.
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
  button.setAttribute("aria-label", text.saveAs(label));
  const key = DIGITS.find((digit) => labelOf(digit) === label);
  if (key) button.setAttribute("aria-keyshortcuts", key);
  button.addEventListener("click", () => save(label));
  return button;
}

function make(kind, name, content = "") {
  const element = document.createElement(kind);
  if (name) element.className = name;
  element.textContent = content;
  return element;
}

// --- Saved drawings -------------------------------------------------------------------

// Save what the network sees. Wait for the answer to the last stroke first.
async function save(label) {
  if (saving === version) return; // the key was pressed twice
  const asked = (saving = version);
  while (answered !== asked && version === asked) await wait(PAUSE_MS);
  if (version !== asked) return complain(text.changed(label));
  if (seen === null) return;
  collection.add(label, seen);
  pad.clear();
  // The button is about to be disabled, and would lose the keyboard focus.
  if (find("labels").contains(document.activeElement)) find("pad").focus({ preventScroll: true });
  say(text.spokenSaved(label, collection.drawings.length));
}

function showCollection() {
  const { drawings } = collection;
  find("set").hidden = drawings.length === 0;
  find("download").textContent = text.download(drawings.length);
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
  say(text.spokenCount(collection.drawings.length));
}

// --- Buttons and keys -----------------------------------------------------------------

const actions = {
  explain: () => {
    explaining = !explaining;
    find("explain").ariaPressed = String(explaining);
    if (!seen) return;
    if (explaining) explain();
    else showInput(seen, text.input);
  },
  undo: () => pad.undo(),
  clear: () => pad.clear(),
  download,
  remove: () => change(() => collection.removeLast()),
  discard: () => {
    if (confirm(text.removeQuestion)) change(() => collection.removeAll());
  },
};
for (const [id, act] of Object.entries(actions)) find(id).addEventListener("click", act);

find("seen").addEventListener("load", ({ target }) => {
  find("size").textContent = text.size(target.naturalWidth, target.naturalHeight);
});

// The label for the key of a digit: that digit, or if no label is a digit, the label at its index.
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

// --- Models ---------------------------------------------------------------------------

async function listModels() {
  const response = await fetch("models");
  if (!response.ok) return;
  const models = await response.json();
  find("model").replaceChildren(...models.map(({ name }) => new Option(name, name)));
  find("choice").hidden = models.length < 2;
  const choose = () => {
    setClasses(models[find("model").selectedIndex].classes);
    version++;
    ask();
  };
  find("model").addEventListener("change", choose);
  if (models.length > 0) choose();
}

translate();
find("pad").setAttribute("aria-roledescription", text.area);
find("size").textContent = text.size(28, 28);
find("model").append(new Option("vggnet", "vggnet")); // the default model
setClasses(DIGITS);
showCollection();
listModels().catch(() => complain(text.busy));
