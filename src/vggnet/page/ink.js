// Find the ink on each pixel of a drawing, on any paper: vggnet/inference/ink.py in JavaScript.
// tests/page compares the results. The constants are explained there.

import { makePlane, resize, roundEven } from "./resample.js";

const PAPER_SIDE = 96;
const WINDOW = 0.3;
const LEAST_LIGHT = 32;
const LEAST_INK = 0.1;
const FEW = 8;
const LEAST_CONTRAST = 5;

// Separate ink from paper. `channels` are planes of bytes: one, or three of a color image.
// Returns {amount, darkness}, a plane of 0 to 1 and a number, or null if there is no ink.
export function findInk(channels) {
  const found = channels.map(findDarkness);
  const counts = found.map(countLevels);
  // A channel counts as much as the ink shows in it.
  const weights = counts.map((one) => Math.fround(strength(one) ** 2));
  const sum = weights.reduce((total, one) => total + one, 0);
  if (sum === 0) return null;
  if (found.length === 1) return scale(found[0], counts[0]);
  const average = makePlane(found[0].width, found[0].height);
  for (let at = 0; at < average.data.length; at++) {
    let total = 0;
    for (let index = 0; index < found.length; index++)
      total = Math.fround(total + Math.fround(found[index].data[at] * weights[index]));
    average.data[at] = total / Math.fround(sum);
  }
  return scale(average, countLevels(average));
}

// The fraction of the paper's light that is missing on each pixel, 0 to 1.
function findDarkness(bytes) {
  let channel = { ...bytes, data: new Float32Array(bytes.data) };
  let small = shrink(channel);
  if (isLightOnDark(small)) [channel, small] = [invert(channel), invert(small)];
  const paper = estimatePaper(small, channel.width, channel.height);
  const darkness = makePlane(channel.width, channel.height);
  for (let at = 0; at < darkness.data.length; at++) {
    const light = paper.data[at];
    const missing = Math.fround(light - channel.data[at]) / Math.max(light, LEAST_LIGHT);
    darkness.data[at] = Math.min(1, Math.max(0, missing));
  }
  return darkness;
}

function invert(plane) {
  const inverted = makePlane(plane.width, plane.height);
  for (let at = 0; at < inverted.data.length; at++) inverted.data[at] = 255 - plane.data[at];
  return inverted;
}

function shrink(plane) {
  const by = Math.min(1, PAPER_SIDE / Math.max(plane.width, plane.height));
  const [width, height] = [plane.width, plane.height].map((n) => Math.max(1, roundEven(n * by)));
  return resize(plane, width, height, "box");
}

// What stands out is lighter than its surroundings: strokes cover less than paper.
function isLightOnDark(small) {
  const side = 2 * Math.floor(Math.max(small.width, small.height) / 4) + 1;
  const around = blur(small, side);
  let sum = 0;
  for (let at = 0; at < small.data.length; at++) {
    const apart = small.data[at] - around.data[at];
    sum += apart * apart * apart;
  }
  return sum > 0;
}

function estimatePaper(small, width, height) {
  const reach = Math.max(1, roundEven((WINDOW * Math.min(small.width, small.height)) / 2));
  const closed = negate(findMaxima(negate(findMaxima(small, reach)), reach));
  const smooth = blur(closed, 2 * Math.floor(reach / 2) + 1);
  const [light] = smooth.data;
  if (smooth.data.some((value) => value !== light)) return resize(smooth, width, height, "bilinear");
  const even = makePlane(width, height);
  even.data.fill(light);
  return even;
}

// Average over a window of `side`×`side`; beyond the edge, its last pixels repeat.
function blur(plane, side) {
  const reach = (side - 1) / 2;
  return alongBothAxes(plane, (line, result) => {
    const last = line.length - 1;
    let sum = 0;
    for (let place = -reach; place <= reach; place++) sum += line[clamp(place, last)];
    for (let place = 0; place <= last; place++) {
      result[place] = sum / side;
      sum += line[clamp(place + reach + 1, last)] - line[clamp(place - reach, last)];
    }
  });
}

function clamp(place, last) {
  return place < 0 ? 0 : place > last ? last : place;
}

// The largest value of a window that reaches so far from each pixel.
function findMaxima(plane, reach) {
  const kept = new Int32Array(Math.max(plane.width, plane.height));
  return alongBothAxes(plane, (line, result) => {
    // `kept` holds places whose values fall: the first is the largest.
    let [first, count] = [0, 0];
    for (let next = 0; next < line.length + reach; next++) {
      if (next < line.length) {
        while (count > first && line[kept[count - 1]] <= line[next]) count--;
        kept[count++] = next;
      }
      const place = next - reach;
      if (place < 0) continue;
      if (kept[first] < place - reach) first++;
      result[place] = line[kept[first]];
    }
  });
}

function negate(plane) {
  const negative = makePlane(plane.width, plane.height);
  for (let at = 0; at < negative.data.length; at++) negative.data[at] = -plane.data[at];
  return negative;
}

// Filter the columns, then the rows. `filter` takes a line and where to write the result.
function alongBothAxes({ width, height, data }, filter) {
  const result = makePlane(width, height);
  const column = new Float32Array(height);
  const filtered = new Float32Array(height);
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) column[y] = data[y * width + x];
    filter(column, filtered);
    for (let y = 0; y < height; y++) result.data[y * width + x] = filtered[y];
  }
  const row = new Float32Array(width);
  for (let start = 0; start < result.data.length; start += width) {
    const line = result.data.subarray(start, start + width);
    row.set(line);
    filter(row, line);
  }
  return result;
}

// The number of pixels of each darkness, in steps of 1/255.
function countLevels({ data }) {
  const counts = new Uint32Array(256);
  for (let at = 0; at < data.length; at++) counts[Math.fround(255 * data[at]) | 0]++;
  return counts;
}

function median(counts) {
  const half = counts.reduce((total, one) => total + one, 0) / 2;
  let sum = 0;
  return counts.findIndex((count) => (sum += count) >= half);
}

// How dark the ink is, or 0 if it is not darker than the paper's grain.
function strength(counts) {
  const middle = median(counts);
  const apart = new Float64Array(256);
  counts.forEach((count, level) => (apart[Math.abs(level - middle)] += count));
  const grain = (1.4826 * median(apart)) / 255;
  const ink = inkLevel(counts);
  return ink > Math.max(LEAST_INK, LEAST_CONTRAST * grain) ? ink : 0;
}

// The median of all that is at least half as dark as the darkest few pixels.
function inkLevel(counts) {
  const atLeast = counts.slice();
  for (let level = 254; level >= 0; level--) atLeast[level] += atLeast[level + 1];
  const last = (count) => {
    let level = 255;
    while (atLeast[level] < count) level--;
    return level;
  };
  const half = Math.ceil(last(Math.min(FEW, atLeast[0])) / 2);
  return last(atLeast[half] / 2) / 255;
}

function scale({ width, height, data }, counts) {
  const level = inkLevel(counts);
  const low = Math.min(0.4 * level, (2 * median(counts)) / 255);
  const [lowest, range] = [Math.fround(low), Math.fround(level - low)];
  const amount = makePlane(width, height);
  for (let at = 0; at < data.length; at++)
    amount.data[at] = Math.min(1, Math.max(0, Math.fround(data[at] - lowest) / range));
  return { amount, darkness: level };
}
