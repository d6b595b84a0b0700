// The network in a worker, so that drawing never waits for it. Messages are {id, action, argument};
// answers {id, result} or {id, error}.

import { countCells, coverRow, describeLayers, describeUnit, renderMaps } from "./explain.js";
import { Network } from "./network.js";
import { see } from "./prepare.js";

let network = null;
let pixels = null; // of the last prediction

const ACTIONS = {
  load(model) {
    network = new Network(model);
    return { layers: describeLayers(network), cells: countCells(network) };
  },

  // An image of any size, four bytes for each pixel; null if nothing is drawn.
  predict(image) {
    pixels = see(image, network.drawn, network.shape);
    if (!pixels) return null;
    const probabilities = network.predict(pixels);
    return { probabilities, pixels, maps: renderMaps(network) };
  },

  // Prepared images, one after the other in a byte array.
  classify(images) {
    const size = network.shape.reduce((product, length) => product * length);
    const count = images.length / size;
    const at = (index) => images.subarray(index * size, (index + 1) * size);
    return Array.from({ length: count }, (_, index) => network.predict(at(index)));
  },

  prepare: (image) => see(image, network.drawn, network.shape),
  unit: (place) => describeUnit(network, place),
  cover: ({ row, label }) => coverRow(network, pixels, row, label),
};

self.onmessage = ({ data: { id, action, argument } }) => {
  try {
    self.postMessage({ id, result: ACTIONS[action](argument) });
  } catch (error) {
    self.postMessage({ id, error: String(error) });
  }
};
