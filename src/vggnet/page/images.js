// Images of feature maps, filters, pooled values and evidence, on canvases.

export const GAP = 1; // pixels between two maps
const ZOOM = 8; // of small images, so that outlines are finer than pixels

export function drawMaps({ canvas, columns, side, shown }, bytes) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  const pixels = toPixels(image);
  const step = side + GAP;
  let from = 0;
  for (let channel = 0; channel < shown; channel++) {
    const [row, column] = [Math.floor(channel / columns), channel % columns];
    for (let y = 0; y < side; y++) {
      const start = (row * step + y) * canvas.width + column * step;
      for (let x = 0; x < side; x++) pixels[start + x] = RAMP[bytes[from++]];
    }
  }
  context.putImageData(image, 0, 0);
}

// One number for the four bytes of each pixel: these are set ten thousands of times an answer.
function toPixels({ data }) {
  return new Uint32Array(data.buffer);
}

// Black, violet, white.
const RAMP = new Uint32Array(256);
RAMP.forEach((_, level) => {
  const share = level / 255;
  const mix = (low, middle, high) =>
    share < 0.5 ? low + (middle - low) * 2 * share : middle + (high - middle) * (2 * share - 1);
  const bytes = new Uint8ClampedArray(RAMP.buffer, 4 * level, 4);
  bytes.set([mix(12, 96, 255), mix(12, 84, 255), mix(18, 240, 255), 255]);
});

// Orange for positive, violet for negative values, from -1 to 1; opaque at the ends.
function toColor(share) {
  const [red, green, blue] = share > 0 ? [240, 128, 32] : [124, 111, 255];
  return [red, green, blue, 255 * Math.min(1, Math.abs(share))];
}

export function drawCursor({ canvas, columns, side }, place) {
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
export function toImage(pixels, [channels, height, width], side) {
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

export function drawScaled(canvas, image, [x, y, width, height]) {
  canvas.width = width * ZOOM;
  canvas.height = height * ZOOM;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(image, x, y, width, height, 0, 0, canvas.width, canvas.height);
}

export function outline(canvas, { left, top, right, bottom }, side) {
  const context = canvas.getContext("2d");
  const zoom = canvas.width / side;
  context.lineWidth = 3;
  context.strokeStyle = "#a9a5ff";
  context.strokeRect(left * zoom, top * zoom, (right - left) * zoom, (bottom - top) * zoom);
}

// The weights for each input map, side by side.
export function drawFilter(canvas, weights, kernel) {
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
export function drawPicks(canvas, values, side, place) {
  const small = new OffscreenCanvas(side, side);
  const context = small.getContext("2d");
  const image = context.createImageData(side, side);
  const most = values.reduce((one, other) => Math.max(one, other), 0) || 1;
  const pixels = toPixels(image);
  values.forEach((value, at) => (pixels[at] = RAMP[Math.round((255 * value) / most)]));
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
export function drawEvidence(canvas, input, drops, cells) {
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
