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

// With ReLU. The image gets a border of zeros, so that the inner loop needs no conditions.
function convolve({ inputs, kernel, outputs, weights, bias, values }, image) {
  const { channels, side } = inputs;
  const margin = (kernel - 1) / 2;
  const row = side + 2 * margin;
  const padded = margin ? new Float32Array(channels * row * row) : image;
  for (let line = 0; margin && line < channels * side; line++) {
    const [channel, y] = [Math.floor(line / side), line % side];
    padded.set(
      image.subarray(line * side, (line + 1) * side),
      (channel * row + y + margin) * row + margin,
    );
  }
  for (let output = 0; output < outputs; output++)
    values.fill(bias[output], output * side * side, (output + 1) * side * side);
  const add = kernel === 3 ? addFilter3 : addFilter1;
  for (let output = 0; output < outputs; output++)
    for (let channel = 0; channel < channels; channel++)
      add(values, output * side * side, padded, channel * row * row, side, weights,
        (output * channels + channel) * kernel * kernel);
  for (let at = 0; at < values.length; at++) if (values[at] < 0) values[at] = 0;
}

function addFilter3(values, to, padded, from, side, weights, at) {
  const a = weights[at], b = weights[at + 1], c = weights[at + 2];
  const d = weights[at + 3], e = weights[at + 4], f = weights[at + 5];
  const g = weights[at + 6], h = weights[at + 7], i = weights[at + 8];
  const row = side + 2;
  for (let y = 0; y < side; y++) {
    let upper = from + y * row;
    let middle = upper + row;
    let lower = middle + row;
    const stop = to + side;
    for (; to < stop; to++, upper++, middle++, lower++)
      values[to] +=
        a * padded[upper] + b * padded[upper + 1] + c * padded[upper + 2] +
        d * padded[middle] + e * padded[middle + 1] + f * padded[middle + 2] +
        g * padded[lower] + h * padded[lower + 1] + i * padded[lower + 2];
  }
}

function addFilter1(values, to, image, from, side, weights, at) {
  const weight = weights[at];
  for (let place = 0; place < side * side; place++) values[to + place] += weight * image[from + place];
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
    let sum = bias[output];
    const start = output * inputs.length;
    for (let at = 0; at < inputs.length; at++) sum += weights[start + at] * inputs[at];
    values[output] = relu && sum < 0 ? 0 : sum;
  }
}
