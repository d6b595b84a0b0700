// The panels that show what happens inside the network: feature maps, one unit with the pixels that
// feed it, its filter or what it pools, and the evidence for the prediction.

import { find, make } from "./dom.js";
import {
  GAP, drawCursor, drawEvidence, drawFilter, drawMaps, drawPicks, drawScaled, outline, toImage,
} from "./images.js";
import { text } from "./text.js";

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
      speak,
    };
    this.#showUnit();
  }

  // Describe the unit; if the pointer moves on meanwhile, describe the next one after it.
  async #showUnit() {
    if (this.#busy || !this.#answer) return;
    this.#busy = true;
    let place = null;
    while (place !== this.#place) {
      place = this.#place;
      const found = await this.#engine.unit(place);
      if (this.#input) this.#drawUnit(place, found);
    }
    this.#busy = false;
  }

  #drawUnit(place, { value, field, filter, kernel, pooled, side }) {
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
    if (place.speak) this.#say(said);
    place.speak = false; // once, not again for the next drawing
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
