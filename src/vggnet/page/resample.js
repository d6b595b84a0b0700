// Scale images as Pillow does (Resample.c, Reduce.c): the same filters, sums and rounding.

// A plane is one channel of an image: {width, height, data}; data is a Uint8Array or Float32Array.
export function makePlane(width, height, kind = Float32Array) {
  return { width, height, data: new kind(width * height) };
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

// Support and weight at a distance.
const FILTERS = {
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  bicubic: [
    2,
    (x) => {
      const d = Math.abs(x);
      if (d < 1) return (1.5 * d - 2.5) * d * d + 1;
      return d < 2 ? -0.5 * (((d - 5) * d + 8) * d - 4) : 0;
    },
  ],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};

// Scale the region from (left, top) to (right, bottom), which may end inside of pixels.
export function resize(plane, width, height, filter, box = [0, 0, plane.width, plane.height]) {
  const [left, top, right, bottom] = box.map(Math.fround);
  let result = plane;
  if (width !== plane.width || left !== 0 || right !== width)
    result = scaleRows(result, width, weigh(plane.width, left, right, width, filter));
  if (height !== plane.height || top !== 0 || bottom !== height)
    result = scaleColumns(result, height, weigh(plane.height, top, bottom, height, filter));
  return result;
}

// The first source pixel and the number of weights of each target pixel along one axis, and `room`
// weights for each of them.
function weigh(length, from, to, count, name) {
  const [support, filter] = FILTERS[name];
  const scale = Math.fround(to - from) / count;
  const wider = Math.max(1, scale);
  const room = 2 * Math.ceil(support * wider) + 1;
  const [firsts, counts] = [new Int32Array(count), new Int32Array(count)];
  const weights = new Float64Array(count * room);
  for (let place = 0; place < count; place++) {
    const center = from + (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support * wider + 0.5));
    const last = Math.min(length, Math.trunc(center + support * wider + 0.5));
    [firsts[place], counts[place]] = [first, last - first];
    const own = weights.subarray(place * room, place * room + last - first);
    let sum = 0;
    for (let at = 0; at < own.length; at++) {
      own[at] = filter((first + at - center + 0.5) * (1 / wider));
      sum += own[at];
    }
    if (sum) for (let at = 0; at < own.length; at++) own[at] /= sum;
  }
  return { firsts, counts, weights, room };
}

const FRACTION = 2 ** 22; // bytes are scaled in integers, with 22 bits after the point

function finish(data, taps) {
  if (data instanceof Float32Array) return { ...taps, round: (sum) => sum };
  const weights = taps.weights.map((one) => Math.trunc(one * FRACTION + Math.sign(one) * 0.5));
  const round = (sum) => Math.min(255, Math.max(0, Math.floor((sum + FRACTION / 2) / FRACTION)));
  return { ...taps, weights, round };
}

function scaleRows({ width, height, data }, count, taps) {
  const { firsts, counts, weights, room, round } = finish(data, taps);
  const result = makePlane(count, height, data.constructor);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < count; x++) {
      const first = y * width + firsts[x];
      let sum = 0;
      for (let tap = 0; tap < counts[x]; tap++) sum += data[first + tap] * weights[x * room + tap];
      result.data[y * count + x] = round(sum);
    }
  return result;
}

function scaleColumns({ width, data }, count, taps) {
  const { firsts, counts, weights, room, round } = finish(data, taps);
  const result = makePlane(width, count, data.constructor);
  for (let y = 0; y < count; y++)
    for (let x = 0; x < width; x++) {
      const first = firsts[y] * width + x;
      let sum = 0;
      for (let tap = 0; tap < counts[y]; tap++)
        sum += data[first + tap * width] * weights[y * room + tap];
      result.data[y * width + x] = round(sum);
    }
  return result;
}

// Average blocks of `factor`×`factor` pixels; those at the right and lower edge may be smaller.
export function reduce({ width, height, data }, factor) {
  const result = makePlane(Math.ceil(width / factor), Math.ceil(height / factor));
  for (let y = 0; y < result.height; y++)
    for (let x = 0; x < result.width; x++) {
      const bottom = Math.min(height, (y + 1) * factor);
      const right = Math.min(width, (x + 1) * factor);
      let sum = 0;
      for (let row = y * factor; row < bottom; row++)
        for (let column = x * factor; column < right; column++) sum += data[row * width + column];
      result.data[y * result.width + x] = sum / ((bottom - y * factor) * (right - x * factor));
    }
  return result;
}

// Round halves to the even neighbor, as Python does.
export function roundEven(value) {
  const down = Math.floor(value);
  if (value - down !== 0.5) return Math.round(value);
  return down % 2 === 0 ? down : down + 1;
}
