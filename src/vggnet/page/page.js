// The page asks an engine about the drawing as it changes, and shows the predictions. The engine
// is the server, or in a single file the file's own network.

import { Collection } from "./collection.js";
import { find, make } from "./dom.js";
import { Inside } from "./inside.js";
import { OwnEngine } from "./own.js";
import { Pad } from "./pad.js";
import { ServerEngine } from "./server.js";
import { text, translate } from "./text.js";

const DIGITS = [..."0123456789"];
const MOST_BARS = 16; // with more classes, there are bars for the most probable ones

const own = find("model-data") !== null;
const PAUSE_MS = own ? 0 : 60; // between two requests; a server has other visitors
const engine = own
  ? new OwnEngine(find("model-data").textContent, find("worker-source").textContent)
  : new ServerEngine(text.busy);
const inside = own ? new Inside(engine, say) : null;
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

// One request at a time; its answer is followed by a request for the current drawing.
async function ask() {
  if (asking) return;
  asking = true;
  find("reading").ariaBusy = "true";
  while (answered !== version) {
    const asked = version;
    const answer = pad.empty ? null : await request();
    if (answer === undefined) continue; // the engine was busy or away; request() has waited
    if (version !== asked && pad.empty) continue; // cleared meanwhile: the answer is outdated
    answered = asked;
    show(answer);
    await wait(PAUSE_MS);
  }
  asking = false;
  find("reading").ariaBusy = "false";
}

// The answer, or undefined after a while if there is none.
async function request(what = "predict") {
  try {
    return await engine[what](pad.toCanvas(), find("model").value);
  } catch (error) {
    complain(error.message);
    await wait(1000 * (error.seconds ?? 1));
  }
}

// --- Showing --------------------------------------------------------------------------

function show(answer) {
  const prediction = answer?.predictions[0] ?? {};
  const { class: label = null, probability, probabilities, unlike_training: unlike } = prediction;
  seen = answer?.seen ?? null;
  if (probabilities) setClasses(Object.keys(probabilities));
  if (probabilities && classes.length > MOST_BARS) showBars(mostProbable(probabilities));
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
  inside?.show(answer, () => version === answered);
}

function mostProbable(probabilities) {
  const byShare = Object.entries(probabilities).sort(([, one], [, other]) => other - one);
  return byShare.slice(0, MOST_BARS).map(([name]) => name);
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
  if (evidence?.image && version === asked && explaining)
    showInput(evidence.image, text.explained);
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
  if (names.length === classes.length && names.every((name) => classes.includes(name))) return;
  classes = names;
  showBars(names.slice(0, MOST_BARS));
  find("labels").replaceChildren(...names.map(makeButton));
  const long = names.some((name) => name.length > 2);
  for (const id of ["bars", "labels"]) find(id).classList.toggle("long", long);
}

function showBars(names) {
  find("bars").replaceChildren(...names.map(makeBar));
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
  open: () => find("file").click(),
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

// --- Image files ----------------------------------------------------------------------

async function open(file) {
  if (!file) return;
  try {
    await pad.open(file);
    say(text.opened(file.name));
  } catch {
    complain(text.notAnImage(file.name));
  }
}

find("file").addEventListener("change", ({ target }) => {
  open(target.files[0]);
  target.value = ""; // the same file can be opened again
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault(); // else the browser would leave the page for the file
  open(event.dataTransfer.files[0]);
});

// --- Models ---------------------------------------------------------------------------

async function listModels() {
  const models = await engine.list();
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

// What the page asks for: a digit, another character, or an image of anything.
function chooseTitle() {
  if (!own || engine.classes.every((name) => DIGITS.includes(name))) return "title";
  return engine.drawn ? "titleCharacter" : "titleImage";
}

for (const part of document.querySelectorAll("[data-engine]"))
  if (part.dataset.engine !== (own ? "own" : "server")) part.remove();
find("explain").hidden = own; // the panels show the evidence
find("model").append(new Option("vggnet", "vggnet")); // the default model
translate(chooseTitle());
find("pad").setAttribute("aria-roledescription", text.area);
find("size").textContent = text.size(28, 28);
setClasses(own ? engine.classes : DIGITS);
showCollection();
listModels().catch(({ message }) => complain(message));
