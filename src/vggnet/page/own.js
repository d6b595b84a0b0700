// The engine of the single file: the network runs on this page, in a worker.

import { encodePng } from "./png.js";

export class OwnEngine {
  #worker;
  #model;
  #waiting = new Map();
  #asked = 0;

  // The model, and the source of the worker, as texts.
  constructor(model, source) {
    this.#model = JSON.parse(model);
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    this.#worker = new Worker(url);
    this.#worker.onmessage = ({ data: { id, result, error } }) => {
      const { done, fail } = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error) fail(new Error(error));
      else done(result);
    };
    this.ready = this.#ask("load", this.#model);
  }

  get classes() {
    return this.#model.classes;
  }

  // Whether it reads drawings of characters; else, images of anything.
  get drawn() {
    return this.#model.drawn;
  }

  // Channels, height and width of the images.
  get shape() {
    return this.#model.shape;
  }

  // Pixels of a side of the network's input, to which images are padded.
  get side() {
    return this.#model.side;
  }

  async list() {
    await this.ready;
    return [this.#model];
  }

  // Predict what a canvas shows; the same answer as the server's, and the feature maps.
  async predict(canvas) {
    const { width, height } = canvas;
    const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
    const found = await this.#ask("predict", { width, height, data });
    if (!found) return { predictions: [{ class: null }], seen: null };
    const { classes, shape } = this.#model;
    const { probabilities, pixels, maps } = found;
    const best = probabilities.indexOf(Math.max(...probabilities));
    const prediction = {
      class: classes[best],
      probability: probabilities[best],
      probabilities: Object.fromEntries(classes.map((name, at) => [name, probabilities[at]])),
    };
    return { predictions: [prediction], seen: encodePng(pixels, shape), pixels, maps, best };
  }

  unit(place) {
    return this.#ask("unit", place);
  }

  // By how much covering each square of a row lowers the probability of a class.
  cover(row, label) {
    return this.#ask("cover", { row, label });
  }

  #ask(action, argument) {
    const id = this.#asked++;
    return new Promise((done, fail) => {
      this.#waiting.set(id, { done, fail });
      this.#worker.postMessage({ id, action, argument });
    });
  }
}
