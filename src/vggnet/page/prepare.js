// An image becomes what a network takes: vggnet/inference/prepare.py and vggnet/data/image.py in
// JavaScript. The constants are explained there.

import { findComponents } from "./components.js";
import { drawDigit } from "./draw.js";
import { findInk } from "./ink.js";
import { makePlane, reduce, resize, roundEven } from "./resample.js";

const WORK_SIDE = 512;
const SPECK = 0.04;
const PALE = 0.75;
const RIM = 0.6;
const GRAIN = 8;
const LEAST_SIDE = 5;
const CRUMB = 40;
const SOFT = 2;

// Prepare an image, {width, height, data} with four bytes for each pixel, for a network.
// `drawn` says whether to redraw a character in MNIST's style; otherwise the image is fitted.
// Returns bytes, (C, H, W), or null if nothing is drawn.
export function see(image, drawn, [channels, height, width]) {
  let planes = split(image);
  if (drawn) {
    const ink = findDrawing(planes);
    if (!ink) return null;
    planes = [{ width: 28, height: 28, data: drawDigit(ink) }];
  }
  if (channels === 1 && planes.length === 3) planes = [toGrey(planes)];
  if (channels === 3 && planes.length === 1) planes = [planes[0], planes[0], planes[0]];
  const result = new Uint8Array(channels * height * width);
  planes.forEach((plane, at) => result.set(fitInto(plane, height, width), at * height * width));
  return result;
}

// Planes of red, green and blue; one plane if they are the same.
function split(image) {
  const channels = isGrey(image) ? [0] : [0, 1, 2];
  return channels.map((channel) => {
    const plane = makePlane(image.width, image.height, Uint8Array);
    for (let at = 0; at < plane.data.length; at++) plane.data[at] = image.data[4 * at + channel];
    return plane;
  });
}

function isGrey({ data }) {
  for (let at = 0; at < data.length; at += 4)
    if (data[at] !== data[at + 1] || data[at] !== data[at + 2]) return false;
  return true;
}

function toGrey([red, green, blue]) {
  const weigh = (value, at) =>
    (value * 19595 + green.data[at] * 38470 + blue.data[at] * 7471 + 0x8000) >> 16;
  return { ...red, data: red.data.map(weigh) };
}

// Scale without distortion; the rest has the median color of the edges.
function fitInto(plane, height, width) {
  const by = Math.min(height / plane.height, width / plane.width);
  const columns = Math.max(1, roundEven(plane.width * by));
  const rows = Math.max(1, roundEven(plane.height * by));
  const { data } = resize(plane, columns, rows, "lanczos");
  if (rows === height && columns === width) return data;
  const edges = [];
  for (let x = 0; x < columns; x++) edges.push(data[x], data[(rows - 1) * columns + x]);
  for (let y = 0; y < rows; y++) edges.push(data[y * columns], data[(y + 1) * columns - 1]);
  edges.sort((one, other) => one - other);
  const middle = edges.length / 2; // their number is even
  const fitted = new Uint8Array(height * width).fill((edges[middle - 1] + edges[middle]) / 2);
  const top = Math.floor((height - rows) / 2);
  const left = Math.floor((width - columns) / 2);
  for (let y = 0; y < rows; y++)
    fitted.set(data.subarray(y * columns, (y + 1) * columns), (y + top) * width + left);
  return fitted;
}

// The ink of a drawing, cut out; null if there is none. A small drawing on a large sheet is cut
// out and searched again at a higher resolution.
function findDrawing(planes) {
  let box = [0, 0, planes[0].width, planes[0].height];
  let found = null;
  for (let round = 0; round < 3; round++) {
    const { region, by } = shrink(planes, box);
    found = look(region);
    if (!found) return null;
    const largest = found.parts[0];
    const side = Math.max(largest.bottom - largest.top, largest.right - largest.left);
    if (side < LEAST_SIDE * by) return null;
    const nearer = findBounds(found, region[0], by, box);
    if (by === 1 || area(nearer) > 0.5 * area(box)) break;
    box = nearer;
  }
  return found.ink;
}

function shrink(planes, [left, top, right, bottom]) {
  const [width, height] = [right - left, bottom - top];
  const by = Math.min(1, WORK_SIDE / Math.max(width, height));
  const region = planes.map((plane) => crop(plane, left, top, right, bottom));
  if (by === 1) return { region, by };
  const size = [width, height].map((side) => Math.max(1, roundEven(side * by)));
  return { region: region.map((plane) => resize(plane, ...size, "box")), by };
}

function crop({ width, height, data }, left, top, right, bottom) {
  const [stop, last] = [Math.min(width, right), Math.min(height, bottom)];
  const result = makePlane(stop - left, last - top, data.constructor);
  for (let y = top; y < last; y++)
    result.data.set(data.subarray(y * width + left, y * width + stop), (y - top) * result.width);
  return result;
}

// Find the ink of a region without the dirt.
function look(region) {
  const found = findInk(region);
  if (!found) return null;
  const whole = found.amount;
  const shadows = found.darkness < RIM ? findShadows(whole) : null;
  const mask = new Uint8Array(whole.data.length);
  for (let at = 0; at < mask.length; at++)
    mask[at] = whole.data[at] > 0.5 && !(shadows && shadows[at]) ? 1 : 0;
  const box = findBox(mask, whole.width, whole.height);
  if (!box) return null;
  const top = Math.max(0, box.top - SOFT);
  const left = Math.max(0, box.left - SOFT);
  const place = [left, top, box.right + SOFT, box.bottom + SOFT];
  const ink = crop(whole, ...place);
  const cut = crop({ ...whole, data: mask }, ...place);
  const { labels, parts: all } = findComponents(cut.data, ink.width, ink.height);
  const parts = dropDirt(ink.data, labels, all);
  if (areCrumbs(parts)) return null;
  const kept = new Set(parts.map(({ label }) => label));
  const drawn = spread(choose(labels, kept), ink, SOFT);
  for (let at = 0; at < drawn.length; at++) if (!drawn[at]) ink.data[at] = 0;
  return { ink, parts, top, left };
}

function findBox(mask, width, height) {
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      if (mask[y * width + x]) {
        left = Math.min(left, x);
        top = Math.min(top, y);
        right = Math.max(right, x + 1);
        bottom = Math.max(bottom, y + 1);
      }
  return right > 0 ? { left, top, right, bottom } : null;
}

// Keep the parts that are strokes: not much smaller or paler than the largest one.
function dropDirt(ink, labels, parts) {
  const large = parts.filter((part) => part.area >= SPECK * parts[0].area);
  const levels = []; // of the labels of large parts
  for (const { label } of large) levels[label] = new Int32Array(256);
  for (let at = 0; at < labels.length; at++) {
    const counts = labels[at] && levels[labels[at]];
    if (counts) counts[Math.trunc(Math.fround(255 * ink[at]))]++;
  }
  const darkness = ({ label, area: count }) => quantile(levels[label], count);
  return large.filter((part) => darkness(part) >= Math.fround(PALE * darkness(large[0])));
}

// The 0.9 quantile of counted levels.
function quantile(counts, total) {
  let rest = roundEven(0.9 * (total - 1)) + 1;
  return Math.fround(counts.findIndex((count) => (rest -= count) <= 0) / 255);
}

// Parts that are so many and so small are grain and not strokes.
function areCrumbs(parts) {
  return parts[0].area < Math.min(CRUMB, 2 * parts.length);
}

// The mask of ink that, without its grain, reaches the edge of the image.
function findShadows(ink) {
  const coarse = reduce(ink, GRAIN);
  const { width, height } = coarse;
  const mask = new Uint8Array(coarse.data.length);
  for (let at = 0; at < mask.length; at++) mask[at] = coarse.data[at] > 0.25;
  const { labels } = findComponents(mask, width, height);
  const atEdge = new Set();
  labels.forEach((label, at) => {
    const [x, y] = [at % width, Math.floor(at / width)];
    if (label && (x === 0 || y === 0 || x === width - 1 || y === height - 1)) atEdge.add(label);
  });
  const shadow = spread(choose(labels, atEdge), coarse, 1);
  const result = new Uint8Array(ink.data.length);
  for (let at = 0; at < result.length; at++) {
    const [x, y] = [at % ink.width, Math.floor(at / ink.width)];
    result[at] = shadow[Math.floor(y / GRAIN) * width + Math.floor(x / GRAIN)];
  }
  return result;
}

// The mask of the pixels with some labels.
function choose(labels, chosen) {
  const mask = new Uint8Array(labels.length);
  for (let at = 0; at < mask.length; at++) mask[at] = labels[at] && chosen.has(labels[at]) ? 1 : 0;
  return mask;
}

// Add the pixels up to `reach` away to a mask: along the columns, then along the rows.
function spread(mask, { width, height }, reach) {
  const down = new Uint8Array(mask.length);
  for (let at = 0; at < mask.length; at++) {
    if (!mask[at]) continue;
    for (let to = at - reach * width; to <= at + reach * width; to += width)
      if (to >= 0 && to < mask.length) down[to] = 1;
  }
  const result = new Uint8Array(mask.length);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      if (!down[y * width + x]) continue;
      const stop = Math.min(width, x + reach + 1);
      for (let to = Math.max(0, x - reach); to < stop; to++) result[y * width + to] = 1;
    }
  return result;
}

// The box of a drawing in the whole image, with some paper around it.
function findBounds({ parts, top, left }, { width, height }, by, box) {
  const edge = (choose, side) => choose(...parts.map((part) => part[side]));
  const [upper, lower] = [top + edge(Math.min, "top"), top + edge(Math.max, "bottom")];
  const [start, stop] = [left + edge(Math.min, "left"), left + edge(Math.max, "right")];
  const margin = Math.max(4, 0.25 * Math.max(lower - upper, stop - start));
  return [
    box[0] + Math.trunc(Math.max(0, start - margin) / by),
    box[1] + Math.trunc(Math.max(0, upper - margin) / by),
    box[0] + Math.trunc(Math.min(width, stop + margin) / by),
    box[1] + Math.trunc(Math.min(height, lower + margin) / by),
  ];
}

function area([left, top, right, bottom]) {
  return (right - left) * (bottom - top);
}
