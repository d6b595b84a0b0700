// The panels that show what happens inside the network: feature maps, one unit with the pixels that
// feed it, its filter or what it pools, and the evidence for the prediction.

import { find, make } from "./dom.js";
import { text } from "./text.js";

const GAP = 1; // pixels between two maps
const ZOOM = 8; // of small images, so that outlines are finer than pixels

export class Inside {
  #engine;
  #say;
  #layers = []; // of the network, each with the canvas that shows it
  #answer = null;
  #input = null; // the network's input, as a canvas
  #place = { layer: 0, channel: 0, y: 0, x: 0 }; // the unit that is shown
  #busy = false; // a unit is being described
  #cells = 0; // of the evidence map, along each side

  // `say` speaks to screen readers.
  constructor(engine, say) {
    this.#engine = engine;
    this.#say = say;
    engine.ready.then(({ layers, cells }) => {
      this.#cells = cells;
      this.#layers = layers.map((layer, index) => this.#makeLayer(layer, index));
      find("layers").replaceChildren(...this.#layers.map(({ figure }) => figure));
      const middle = Math.floor(layers[0].side / 2);
      this.#place = { layer: 0, channel: 0, y: middle, x: middle };
      this.show(this.#answer, () => true);
    });
  }

  // Show an answer of the engine. The evidence takes a while: `isCurrent` says whether to go on.
  async show(answer, isCurrent) {
    this.#answer = answer?.maps ? answer : null;
    find("inside").hidden = this.#answer === null;
    if (!this.#answer || !this.#layers.length) return;
    this.#layers.forEach((layer, index) => drawMaps(layer, answer.maps[index]));
    this.#input = toImage(answer.pixels, this.#engine.shape, this.#engine.side);
    this.#showUnit();
    await this.#showEvidence(answer, isCurrent);
  }

  #makeLayer(layer, index) {
    const figure = make("figure", "layer");
    const name = `${text.kinds[layer.kind]} ${layer.name}`;
    const rest = layer.shown < layer.channels ? text.shown(layer.shown) : "";
    const caption = make("figcaption", "", text.layer(name, layer.channels, layer.side) + rest);
    const canvas = make("canvas", "");
    const columns = chooseColumns(layer);
    const rows = Math.ceil(layer.shown / columns);
    canvas.width = columns * (layer.side + GAP) - GAP;
    canvas.height = rows * (layer.side + GAP) - GAP;
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", text.maps(name));
    const made = { ...layer, name, figure, canvas, columns };
    for (const type of ["pointermove", "pointerdown"])
      canvas.addEventListener(type, (event) => this.#point(event, made, index));
    canvas.addEventListener("keydown", (event) => this.#move(event, made, index));
    canvas.addEventListener("focus", () => this.#select({ ...this.#place, layer: index }));
    const frame = make("div", "maps");
    frame.append(canvas, make("span", "cursor"));
    figure.append(caption, frame);
    return made;
  }

  #point({ clientX, clientY }, { canvas, columns, side, shown }, layer) {
    const box = canvas.getBoundingClientRect();
    const place = (at, start, length, count) =>
      Math.min(count - 1, Math.max(0, Math.floor(((at - start) / length) * count)));
    const column = place(clientX, box.left, box.width, canvas.width);
    const row = place(clientY, box.top, box.height, canvas.height);
    const step = side + GAP;
    const channel = Math.floor(row / step) * columns + Math.floor(column / step);
    if (channel >= shown) return;
    const [y, x] = [row, column].map((at) => Math.min(side - 1, at % step));
    this.#select({ layer, channel, y, x });
  }

  // An arrow key moves to the next unit, at the edge to the next map.
  #move(event, { columns, side, shown }, layer) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    let { channel, y, x } = this.#place;
    x += move[0];
    y += move[1];
    const next = channel + (x < 0 ? -1 : x >= side ? 1 : y < 0 ? -columns : y >= side ? columns : 0);
    if (next < 0 || next >= shown) return;
    [x, y] = [x, y].map((at) => (at + side) % side);
    this.#select({ layer, channel: next, y, x }, true);
  }

  #select(place, speak = false) {
    const { shown, side } = this.#layers[place.layer];
    const inside = (at, count) => Math.min(count - 1, at);
    this.#place = {
      layer: place.layer,
      channel: inside(place.channel, shown),
      y: inside(place.y, side),
      x: inside(place.x, side),
    };
    this.#showUnit(speak);
  }

  // Describe the unit; if the pointer moves on meanwhile, describe the next one after it.
  async #showUnit(speak = false) {
    if (this.#busy || !this.#answer) return;
    this.#busy = true;
    let place = null;
    while (place !== this.#place) {
      place = this.#place;
      const found = await this.#engine.unit(place);
      if (this.#input) this.#drawUnit(place, found, speak);
    }
    this.#busy = false;
  }

  #drawUnit(place, { value, field, filter, kernel, pooled, side }, speak) {
    const layer = this.#layers[place.layer];
    this.#layers.forEach((one, index) => drawCursor(one, index === place.layer ? place : null));
    const size = { width: field.right - field.left, height: field.bottom - field.top };
    drawScaled(find("field"), this.#input, [0, 0, this.#engine.side, this.#engine.side]);
    outline(find("field"), field, this.#engine.side);
    drawScaled(find("crop"), this.#input, [field.left, field.top, size.width, size.height]);
    find("filter-figure").hidden = !filter;
    find("picks-figure").hidden = !pooled;
    if (filter) drawFilter(find("filter"), filter, kernel);
    if (pooled) drawPicks(find("picks"), pooled, side, place);
    const said = text.unit(layer.name, place, Number(value.toPrecision(3)), size);
    find("unit").textContent = said;
    if (speak) this.#say(said);
  }

  // Row by row, so that the next drawing does not wait.
  async #showEvidence(answer, isCurrent) {
    const cells = this.#cells;
    const drops = new Float32Array(cells * cells);
    drawEvidence(find("evidence"), this.#input, drops, cells);
    for (let row = 0; row < cells; row++) {
      await new Promise((done) => setTimeout(done, row ? 0 : 250));
      if (!isCurrent() || this.#answer !== answer) return;
      drops.set(await this.#engine.cover(row, answer.best), row * cells);
    }
    if (this.#answer === answer) drawEvidence(find("evidence"), this.#input, drops, cells);
  }
}

// Maps in a row: large enough for a phone, and full rows for the usual widths.
function chooseColumns({ shown }) {
  return Math.min(shown, shown > 32 ? 16 : 8);
}

function drawMaps({ canvas, columns, side, shown }, bytes) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(side, side);
  context.clearRect(0, 0, canvas.width, canvas.height);
  for (let channel = 0; channel < shown; channel++) {
    for (let at = 0; at < side * side; at++)
      image.data.set(RAMP[bytes[channel * side * side + at]], 4 * at);
    const step = side + GAP;
    context.putImageData(image, (channel % columns) * step, Math.floor(channel / columns) * step);
  }
}

// Black, violet, white.
const RAMP = Array.from({ length: 256 }, (_, level) => {
  const share = level / 255;
  const mix = (low, middle, high) =>
    share < 0.5 ? low + (middle - low) * 2 * share : middle + (high - middle) * (2 * share - 1);
  return [mix(12, 96, 255), mix(12, 84, 255), mix(18, 240, 255), 255];
});

// Violet for positive, orange for negative values, from -1 to 1; opaque at the ends.
function toColor(share) {
  const [red, green, blue] = share > 0 ? [124, 111, 255] : [240, 128, 32];
  return [red, green, blue, 255 * Math.min(1, Math.abs(share))];
}

function drawCursor({ canvas, columns, side }, place) {
  const cursor = canvas.nextSibling;
  cursor.hidden = place === null;
  if (!place) return;
  const step = side + GAP;
  const x = (place.channel % columns) * step + place.x;
  const y = Math.floor(place.channel / columns) * step + place.y;
  cursor.style.left = `${(100 * (x + 0.5)) / canvas.width}%`;
  cursor.style.top = `${(100 * (y + 0.5)) / canvas.height}%`;
}

// Bytes (C, H, W) as a canvas of the network's input.
function toImage(pixels, [channels, height, width], side) {
  const canvas = new OffscreenCanvas(side, side);
  const context = canvas.getContext("2d");
  context.fillRect(0, 0, side, side);
  const image = context.createImageData(width, height);
  for (let at = 0; at < width * height; at++)
    for (let color = 0; color < 4; color++)
      image.data[4 * at + color] =
        color === 3 ? 255 : pixels[(channels === 3 ? color : 0) * width * height + at];
  context.putImageData(image, Math.floor((side - width) / 2), Math.floor((side - height) / 2));
  return canvas;
}

function drawScaled(canvas, image, [x, y, width, height]) {
  canvas.width = width * ZOOM;
  canvas.height = height * ZOOM;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(image, x, y, width, height, 0, 0, canvas.width, canvas.height);
}

function outline(canvas, { left, top, right, bottom }, side) {
  const context = canvas.getContext("2d");
  const zoom = canvas.width / side;
  context.lineWidth = 3;
  context.strokeStyle = "#a9a5ff";
  context.strokeRect(left * zoom, top * zoom, (right - left) * zoom, (bottom - top) * zoom);
}

// The weights for each input map, side by side.
function drawFilter(canvas, weights, kernel) {
  const count = weights.length / kernel ** 2;
  const columns = Math.ceil(Math.sqrt(count));
  const step = kernel + (count > 1 ? GAP : 0);
  const small = new OffscreenCanvas(columns * step, Math.ceil(count / columns) * step);
  const context = small.getContext("2d");
  const most = weights.reduce((one, other) => Math.max(one, Math.abs(other)), 0) || 1;
  const image = context.createImageData(kernel, kernel);
  for (let index = 0; index < count; index++) {
    for (let at = 0; at < kernel ** 2; at++)
      image.data.set(toColor(weights[index * kernel ** 2 + at] / most), 4 * at);
    context.putImageData(image, (index % columns) * step, Math.floor(index / columns) * step);
  }
  drawScaled(canvas, small, [0, 0, small.width, small.height]);
}

// The map before the pool; the largest value of each window is outlined.
function drawPicks(canvas, values, side, place) {
  const small = new OffscreenCanvas(side, side);
  const context = small.getContext("2d");
  const image = context.createImageData(side, side);
  const most = values.reduce((one, other) => Math.max(one, other), 0) || 1;
  values.forEach((value, at) => image.data.set(RAMP[Math.round((255 * value) / most)], 4 * at));
  context.putImageData(image, 0, 0);
  drawScaled(canvas, small, [0, 0, side, side]);
  const large = canvas.getContext("2d");
  large.fillStyle = "#ffb454";
  for (let y = 0; y < side; y += 2)
    for (let x = 0; x < side; x += 2) {
      const window = [0, 1, side, side + 1].map((step) => values[y * side + x + step]);
      const best = window.indexOf(Math.max(...window));
      if (window[best] === 0) continue; // nothing to pick
      const [column, row] = [x + (best % 2), y + Math.floor(best / 2)];
      large.fillRect((column + 0.3) * ZOOM, (row + 0.3) * ZOOM, 0.4 * ZOOM, 0.4 * ZOOM);
    }
  const [left, top] = [2 * place.x, 2 * place.y];
  outline(canvas, { left, top, right: left + 2, bottom: top + 2 }, side);
}

// The input, darker, under the drops of the probability.
function drawEvidence(canvas, input, drops, cells) {
  const small = new OffscreenCanvas(cells, cells);
  const context = small.getContext("2d");
  const image = context.createImageData(cells, cells);
  const most = drops.reduce((one, other) => Math.max(one, Math.abs(other)), 0) || 1;
  drops.forEach((drop, at) => image.data.set(toColor(drop / most), 4 * at));
  context.putImageData(image, 0, 0);
  drawScaled(canvas, input, [0, 0, input.width, input.height]);
  const large = canvas.getContext("2d");
  large.fillStyle = "rgb(0 0 0 / 45%)";
  large.fillRect(0, 0, canvas.width, canvas.height);
  large.globalAlpha = 0.8;
  large.imageSmoothingEnabled = true;
  large.drawImage(small, 0, 0, canvas.width, canvas.height);
}
