// Redraw ink as MNIST does, on 28×28 pixels: vggnet/inference/draw.py in JavaScript.

import { makePlane, resize, roundEven } from "./resample.js";

const SIDE = 28;
const BOX = 20;
const FINE = 4;
const STROKES = [1.9, 3.6];

// Takes a plane of ink from 0 to 1; returns 28×28 bytes.
export function drawDigit(drawn) {
  let ink = pad(drawn, 2); // strokes at the edge of the image get soft ends, too
  let box = findBox(ink);
  if (Math.max(box[2] - box[0], box[3] - box[1]) < BOX) {
    ink = resolve(ink);
    box = findBox(ink);
  }
  let fine = fit(ink, box, FINE * BOX);
  const grow = missingWidth(fine);
  if (grow !== 0) {
    fine = fit(ink, box, FINE * BOX - 2 * grow);
    fine = grow > 0 ? thicken(fine, grow) : thin(fine, -grow);
  }
  return center(fine);
}

function pad({ width, height, data }, margin, value = 0) {
  const result = makePlane(width + 2 * margin, height + 2 * margin);
  result.data.fill(value);
  for (let y = 0; y < height; y++)
    result.data.set(
      data.subarray(y * width, (y + 1) * width),
      (y + margin) * result.width + margin,
    );
  return result;
}

function findBox({ width, height, data }) {
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      if (data[y * width + x] > 0.5) {
        left = Math.min(left, x);
        top = Math.min(top, y);
        right = Math.max(right, x + 1);
        bottom = Math.max(bottom, y + 1);
      }
  return [left, top, right, bottom];
}

const enlarge = (plane) => resize(plane, FINE * plane.width, FINE * plane.height, "bicubic");

// Enlarge ink, with sharp edges and the same amount of ink in each pixel.
function resolve(ink) {
  const fine = enlarge(ink);
  for (let round = 0; round < 5; round++) {
    sharpen(fine, 1.3);
    const means = averageBlocks(fine);
    const missing = enlarge({ ...ink, data: ink.data.map((value, at) => value - means.data[at]) });
    for (let at = 0; at < fine.data.length; at++) fine.data[at] += missing.data[at];
  }
  sharpen(fine, 1);
  return fine;
}

// Make edges steeper, in place; values stay from 0 to 1.
function sharpen({ data }, steepness) {
  for (let at = 0; at < data.length; at++)
    data[at] = Math.min(1, Math.max(0, (data[at] - 0.5) * steepness + 0.5));
}

function averageBlocks({ width, height, data }) {
  const result = makePlane(width / FINE, height / FINE);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      result.data[Math.floor(y / FINE) * result.width + Math.floor(x / FINE)] +=
        data[y * width + x] / FINE ** 2;
  return result;
}

// Scale a box so that its longer side is `side`, without changing its shape; sharpen edges.
function fit(ink, box, side) {
  const [left, top, right, bottom] = box;
  const by = side / Math.max(right - left, bottom - top);
  const width = Math.max(1, roundEven((right - left) * by));
  const height = Math.max(1, roundEven((bottom - top) * by));
  const margin = 2 / by; // in pixels of the result
  const around = Math.ceil(Math.max(0, margin - 2)) + 1;
  const room = [left - margin, top - margin, right + margin, bottom + margin];
  const source = room.map((place) => place + around);
  const image = resize(pad(ink, around), width + 4, height + 4, "bicubic", source);
  sharpen(image, Math.max(1, by)); // bicubic scaling makes an edge of one pixel `by` wide
  return image;
}

// The mean stroke width in pixels: twice the area divided by the perimeter.
function strokeWidth(fine) {
  const { width, height, data } = pad(fine, 1);
  let [perimeter, area] = [0, 0];
  for (let y = 0; y < height - 1; y++)
    for (let x = 0; x < width - 1; x++) {
      const at = y * width + x;
      area += data[at];
      const [across, down] = [data[at + 1] - data[at], data[at + width] - data[at]];
      perimeter += Math.sqrt(across * across + down * down); // Math.hypot is slow
    }
  return perimeter ? (2 * area) / perimeter : 0;
}

// By how many pixels strokes must grow on each side, or shrink if negative.
function missingWidth(fine) {
  const width = strokeWidth(fine) / FINE;
  const wanted = Math.min(Math.max(width, STROKES[0]), STROKES[1]);
  return roundEven((FINE * (wanted - width)) / 2);
}

// Thicken strokes with a round pen; the result is larger by its radius on each side.
function thicken({ width, height, data }, radius) {
  const grown = makePlane(width + 2 * radius, height + 2 * radius);
  for (let down = -radius; down <= radius; down++)
    for (let right = -radius; right <= radius; right++) {
      if (down * down + right * right > radius * radius + 1) continue;
      for (let y = 0; y < height; y++) {
        const row = (y + radius + down) * grown.width + radius + right;
        for (let x = 0; x < width; x++)
          if (data[y * width + x] > grown.data[row + x]) grown.data[row + x] = data[y * width + x];
      }
    }
  return grown;
}

function thin(fine, radius) {
  const paper = pad({ ...fine, data: fine.data.map((value) => 1 - value) }, radius, 1);
  const grown = thicken(paper, radius);
  const result = makePlane(fine.width, fine.height);
  for (let y = 0; y < fine.height; y++)
    for (let x = 0; x < fine.width; x++)
      result.data[y * fine.width + x] =
        1 - grown.data[(y + 2 * radius) * grown.width + x + 2 * radius];
  return result;
}

// Average to 28×28 pixels, with the center of mass in the middle.
function center({ width, height, data }) {
  let [mass, across, down] = [0, 0, 0];
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const value = data[y * width + x];
      mass += value;
      across += value * (x + 0.5);
      down += value * (y + 0.5);
    }
  const side = FINE * SIDE;
  const left = roundEven(side / 2 - across / mass);
  const top = roundEven(side / 2 - down / mass);
  const sums = new Float64Array(SIDE * SIDE);
  for (let y = Math.max(0, -top); y < Math.min(height, side - top); y++)
    for (let x = Math.max(0, -left); x < Math.min(width, side - left); x++)
      sums[Math.floor((y + top) / FINE) * SIDE + Math.floor((x + left) / FINE)] +=
        data[y * width + x];
  return Uint8Array.from(sums, (sum) => roundEven((255 * sum) / FINE ** 2));
}
