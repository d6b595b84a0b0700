// A VGG network in typed arrays: 3×3 and 1×1 convolutions, response normalization, 2×2 max pools
// and fully connected layers. Batch norm is folded into the convolutions before export.

// Build a network from what vggnet/page/payload.py writes.
export class Network {
  constructor(model) {
    const { classes, shape, side, mean, std, drawn, calibration } = model;
    Object.assign(this, { classes, shape, side, mean, std, drawn, calibration });
    const weights = readWeights(model);
    this.layers = model.layers.map((layer) => ({ ...layer }));
    let [channels, size] = [shape[0], side];
    for (const layer of this.layers) {
      layer.inputs = { channels, side: size };
      if (layer.kind === "convolution") {
        layer.weights = weights(layer, layer.outputs, channels * layer.kernel ** 2);
        layer.padded = new Float32Array(channels * (size + 2) ** 2);
        channels = layer.outputs;
      } else if (layer.kind === "linear") {
        layer.weights = weights(layer, layer.outputs, channels * size * size);
        [channels, size] = [layer.outputs, 1];
      } else if (layer.kind === "pool") size /= 2;
      layer.channels = channels;
      layer.side = size;
      layer.values = new Float32Array(channels * size * size);
    }
  }

  // Pixels, bytes (C, H, W), become the network's input, (C, S, S): padded and normalized.
  preprocess(pixels) {
    const [channels, height, width] = this.shape;
    const { side } = this;
    const [top, left] = [Math.floor((side - height) / 2), Math.floor((side - width) / 2)];
    const input = new Float32Array(channels * side * side);
    for (let channel = 0; channel < channels; channel++) {
      const mean = this.mean[channel % this.mean.length];
      const std = this.std[channel % this.std.length];
      input.fill(-mean / std, channel * side * side, (channel + 1) * side * side);
      for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++)
          input[(channel * side + y + top) * side + x + left] =
            (pixels[(channel * height + y) * width + x] / 255 - mean) / std;
    }
    return input;
  }

  // Returns the logits. Every layer keeps its values until the next call.
  run(input) {
    let values = input;
    for (const layer of this.layers) {
      RUN[layer.kind](layer, values);
      values = layer.values;
    }
    return values;
  }

  predict(pixels) {
    this.input = this.preprocess(pixels);
    return toProbabilities(this.run(this.input), this.calibration);
  }
}

// Softmax. A calibration first makes each logit -(scale·d + curvature·d²), where d is its distance
// to the largest one.
export function toProbabilities(logits, calibration) {
  const most = logits.reduce((one, other) => Math.max(one, other));
  const { scale, curvature } = calibration ?? { scale: 1, curvature: 0 };
  const shares = Array.from(logits, (logit) => {
    const distance = most - logit;
    return Math.exp(-distance * (scale + curvature * distance));
  });
  const sum = shares.reduce((total, one) => total + one, 0);
  return shares.map((share) => share / sum);
}

// Returns a function that decodes the weights of the layers one after the other.
function readWeights({ bits, weights, scales }) {
  const whole = new { 8: Int8Array, 16: Int16Array }[bits](decode(weights));
  const floats = new Float32Array(decode(scales)); // of each output: its scale, then its bias
  let [place, output] = [0, 0];
  return (layer, outputs, inputs) => {
    const result = new Float32Array(outputs * inputs);
    layer.bias = new Float32Array(outputs);
    for (let index = 0; index < outputs; index++, output++) {
      const scale = floats[2 * output];
      layer.bias[index] = floats[2 * output + 1];
      for (let at = 0; at < inputs; at++) result[index * inputs + at] = scale * whole[place++];
    }
    return result;
  };
}

function decode(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)).buffer;
}

const RUN = { convolution: convolve, normalization: normalize, pool, linear: connect };

// With ReLU.
function convolve(layer, image) {
  (layer.kernel === 3 ? convolve3 : convolve1)(layer, image);
}

// Four pixels, 2×2, at a time, as a pool halves each side evenly: most values that are loaded count
// for several pixels, and the sums stay in registers. `padded` has a border of zeros, so that the
// inner loop needs no conditions.
function convolve3({ inputs, outputs, weights, bias, values, padded }, image) {
  const { channels, side } = inputs;
  const row = side + 2;
  const size = row * row;
  for (let line = 0; line < channels * side; line++) {
    const to = Math.floor(line / side) * size + ((line % side) + 1) * row + 1;
    padded.set(image.subarray(line * side, (line + 1) * side), to);
  }
  for (let output = 0; output < outputs; output++)
    for (let y = 0; y < side; y += 2)
      for (let x = 0; x < side; x += 2) {
        let one = bias[output];
        let right = one;
        let below = one;
        let across = one;
        let from = y * row + x;
        const stop = (output + 1) * channels * 9;
        for (let at = output * channels * 9; at < stop; at += 9, from += size) {
          const a = weights[at], b = weights[at + 1], c = weights[at + 2];
          const d = weights[at + 3], e = weights[at + 4], f = weights[at + 5];
          const g = weights[at + 6], h = weights[at + 7], i = weights[at + 8];
          const second = from + row;
          const third = second + row;
          const fourth = third + row;
          const k0 = padded[from], k1 = padded[from + 1];
          const k2 = padded[from + 2], k3 = padded[from + 3];
          const l0 = padded[second], l1 = padded[second + 1];
          const l2 = padded[second + 2], l3 = padded[second + 3];
          const m0 = padded[third], m1 = padded[third + 1];
          const m2 = padded[third + 2], m3 = padded[third + 3];
          const n0 = padded[fourth], n1 = padded[fourth + 1];
          const n2 = padded[fourth + 2], n3 = padded[fourth + 3];
          one += a * k0 + b * k1 + c * k2 + d * l0 + e * l1 + f * l2 + g * m0 + h * m1 + i * m2;
          right += a * k1 + b * k2 + c * k3 + d * l1 + e * l2 + f * l3 + g * m1 + h * m2 + i * m3;
          below += a * l0 + b * l1 + c * l2 + d * m0 + e * m1 + f * m2 + g * n0 + h * n1 + i * n2;
          across += a * l1 + b * l2 + c * l3 + d * m1 + e * m2 + f * m3 + g * n1 + h * n2 + i * n3;
        }
        const to = (output * side + y) * side + x;
        values[to] = Math.max(0, one);
        values[to + 1] = Math.max(0, right);
        values[to + side] = Math.max(0, below);
        values[to + side + 1] = Math.max(0, across);
      }
}

function convolve1({ inputs, outputs, weights, bias, values }, image) {
  const { channels, side } = inputs;
  const size = side * side;
  for (let output = 0; output < outputs; output++) {
    const map = values.subarray(output * size, (output + 1) * size).fill(bias[output]);
    for (let channel = 0; channel < channels; channel++) {
      const weight = weights[output * channels + channel];
      for (let at = 0; at < size; at++) map[at] += weight * image[channel * size + at];
    }
    for (let at = 0; at < size; at++) map[at] = Math.max(0, map[at]);
  }
}

// torch.nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2), across channels.
function normalize({ channels, side, values }, image) {
  const size = side * side;
  for (let at = 0; at < size; at++)
    for (let channel = 0; channel < channels; channel++) {
      let sum = 0;
      const stop = Math.min(channels - 1, channel + 2);
      for (let near = Math.max(0, channel - 2); near <= stop; near++)
        sum += image[near * size + at] ** 2;
      values[channel * size + at] = image[channel * size + at] / (2 + (1e-4 * sum) / 5) ** 0.75;
    }
}

function pool({ channels, side, values }, image) {
  let to = 0;
  for (let row = 0; row < channels * side; row++) {
    let from = 4 * row * side; // two rows of twice the width
    for (let x = 0; x < side; x++, from += 2)
      values[to++] = Math.max(
        image[from], image[from + 1], image[from + 2 * side], image[from + 2 * side + 1],
      );
  }
}

function connect({ outputs, relu, weights, bias, values }, inputs) {
  for (let output = 0; output < outputs; output++) {
    const start = output * inputs.length;
    let [even, odd] = [bias[output], 0]; // two sums, as one addition waits for the one before
    let at = 0;
    for (; at + 1 < inputs.length; at += 2) {
      even += weights[start + at] * inputs[at];
      odd += weights[start + at + 1] * inputs[at + 1];
    }
    if (at < inputs.length) even += weights[start + at] * inputs[at];
    const sum = even + odd;
    values[output] = relu && sum < 0 ? 0 : sum;
  }
}
