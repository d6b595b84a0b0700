// What happens inside a network: feature maps, one unit with the pixels that feed it, evidence.

const MOST_MAPS = 64; // of a layer that are shown
const MOST_CELLS = 14; // of the evidence map, along each side

const hasMaps = ({ kind }) => kind !== "linear";

// Name, kind and size of each layer with feature maps.
export function describeLayers(network) {
  return network.layers.filter(hasMaps).map((layer) => ({
    name: layer.name,
    kind: layer.kind,
    channels: layer.channels,
    shown: Math.min(MOST_MAPS, layer.channels),
    side: layer.side,
  }));
}

// The feature maps of the last prediction: bytes, 255 for the largest value of the layer.
export function renderMaps(network) {
  return network.layers.filter(hasMaps).map(({ channels, side, values }) => {
    const bytes = new Uint8Array(Math.min(MOST_MAPS, channels) * side * side);
    let most = 0;
    for (let at = 0; at < bytes.length; at++) most = Math.max(most, values[at]);
    if (most) for (let at = 0; at < bytes.length; at++) bytes[at] = (255 * values[at]) / most;
    return bytes;
  });
}

// One unit: its value, the region of the input that it sees, its filter, and what it pools.
export function describeUnit(network, { layer: index, channel, y, x }) {
  const layer = network.layers[index];
  const found = {
    value: layer.values[(channel * layer.side + y) * layer.side + x],
    field: findField(network, index, y, x),
  };
  if (layer.kind === "convolution") {
    const size = layer.inputs.channels * layer.kernel ** 2;
    found.filter = layer.weights.slice(channel * size, (channel + 1) * size);
    found.kernel = layer.kernel;
  }
  if (layer.kind === "pool") {
    const { side } = layer.inputs;
    const source = network.layers[index - 1].values;
    found.pooled = source.slice(channel * side * side, (channel + 1) * side * side);
    found.side = side;
  }
  return found;
}

// The region of the input that can change a unit; right and bottom are exclusive.
function findField(network, index, y, x) {
  let [left, top, right, bottom] = [x, y, x + 1, y + 1];
  for (const layer of network.layers.slice(0, index + 1).reverse()) {
    if (layer.kind === "pool") [left, top, right, bottom] = [left, top, right, bottom].map((n) => 2 * n);
    const margin = layer.kind === "convolution" ? (layer.kernel - 1) / 2 : 0;
    [left, top] = [left - margin, top - margin];
    [right, bottom] = [right + margin, bottom + margin];
  }
  const inside = (place) => Math.min(network.side, Math.max(0, place));
  return { left: inside(left), top: inside(top), right: inside(right), bottom: inside(bottom) };
}

// Cover one square after the other in a row of the image; returns by how much that lowers the
// probability of a class. Squares overlap by half. Covered pixels are black in a drawing, else they
// have the image's mean color.
export function coverRow(network, pixels, row, label) {
  const [channels, height, width] = network.shape;
  const cells = countCells(network);
  const at = (place, length) => {
    const middle = ((place + 0.5) * length) / cells;
    return [Math.floor(middle - length / cells), Math.ceil(middle + length / cells)];
  };
  const before = network.predict(pixels)[label];
  const drops = new Float32Array(cells);
  const [top, bottom] = at(row, height);
  for (let column = 0; column < cells; column++) {
    const [left, right] = at(column, width);
    const covered = pixels.slice();
    let changed = false;
    for (let channel = 0; channel < channels; channel++) {
      const plane = pixels.subarray(channel * height * width, (channel + 1) * height * width);
      const mean = plane.reduce((sum, one) => sum + one, 0) / plane.length;
      const cover = network.drawn ? 0 : Math.round(mean);
      for (let y = Math.max(0, top); y < Math.min(height, bottom); y++)
        for (let x = Math.max(0, left); x < Math.min(width, right); x++) {
          changed ||= plane[y * width + x] !== cover;
          covered[(channel * height + y) * width + x] = cover;
        }
    }
    if (changed) drops[column] = before - network.predict(covered)[label];
  }
  network.predict(pixels); // the layers' values are those of the whole image again
  return drops;
}

export function countCells(network) {
  return Math.min(MOST_CELLS, ...network.shape.slice(1));
}
