// Direct convolution for the first layer: 1 to 4 input channels are too few for Winograd.
#pragma once

#include "activation.h"
#include "parallel.h"

constexpr Index kMaxDirectInputs = 4;
constexpr int kPixels = 4;  // neighbouring outputs computed together from the same loaded filters

// Images (count, channels, height, width) in any layout.
struct Images {
  const float* data;
  Index count, channels, height, width;
  Index image_stride, channel_stride, row_stride, column_stride;
};

// A copy of one image, channels last, with a border of zeros; rows are padded to a multiple of
// kPixels.
struct BorderedImage {
  float* data;
  Index row_stride;

  static Index row_floats(const Images& images) {
    return ((images.width + kPixels - 1) / kPixels * kPixels + 2) * images.channels;
  }
  static Index floats(const Images& images) { return (images.height + 2) * row_floats(images); }

  BorderedImage(float* data_, const Images& images, Index image)
      : data(data_), row_stride(row_floats(images)) {
    std::memset(data, 0, floats(images) * sizeof(float));
    const float* from = images.data + image * images.image_stride;
    for (Index r = 0; r < images.height; r++)
      for (Index c = 0; c < images.width; c++)
        for (Index k = 0; k < images.channels; k++)
          data[(r + 1) * row_stride + (c + 1) * images.channels + k] =
              from[r * images.row_stride + c * images.column_stride + k * images.channel_stride];
  }
};

// Outputs of kPixels neighbouring pixels and `Vectors` vectors of channels.
//
// `window` starts one pixel above and left of the first output. Each of its three rows holds
// 3 * inputs numbers per output, channels innermost; so do the filters (9 * inputs, out_channels).
template <int Vectors>
INLINE void direct_outputs(const float* window, Index row_stride, Index inputs,
                           const float* filters, Index filter_stride, const float* bias,
                           Vec (&sum)[kPixels][Vectors]) {
  UNROLL for (int q = 0; q < kPixels; q++)
    UNROLL for (int v = 0; v < Vectors; v++) sum[q][v] = bias ? load(bias + v * kLanes) : Vec{};
  for (int row = 0; row < 3; row++, window += row_stride)
    for (Index k = 0; k < 3 * inputs; k++, filters += filter_stride) {
      Vec factor[Vectors];
      UNROLL for (int v = 0; v < Vectors; v++) factor[v] = load(filters + v * kLanes);
      UNROLL for (int q = 0; q < kPixels; q++) {
        const Vec x = broadcast(window[q * inputs + k]);
        UNROLL for (int v = 0; v < Vectors; v++) sum[q][v] = x * factor[v] + sum[q][v];
      }
    }
}

template <int Vectors>
OUTLINE void direct_row(const float* window, Index row_stride, Index inputs, const float* filters,
                        Index filter_stride, const float* bias, Index width, Index out_channels,
                        bool clip, float* out, FiniteCheck& total) {
  FiniteCheck check = total;  // a copy that can stay in a register
  for (Index column = 0; column < width; column += kPixels) {
    Vec sum[kPixels][Vectors];
    direct_outputs<Vectors>(window + column * inputs, row_stride, inputs, filters, filter_stride,
                            bias, sum);
    UNROLL for (int v = 0; v < Vectors; v++)
      check.see((sum[0][v] + sum[1][v]) + (sum[2][v] + sum[3][v]));
    UNROLL for (int q = 0; q < kPixels; q++) {
      if (column + q >= width) break;
      UNROLL for (int v = 0; v < Vectors; v++)
        store(out + (column + q) * out_channels + v * kLanes, clip ? relu(sum[q][v]) : sum[q][v]);
    }
  }
  total = check;
}

// Gradients of the filter taps of one input channel, summed over one row of outputs:
// sums (10, kLanes), of which the last is the bias's gradient.
INLINE void direct_row_gradients(const float* window, Index row_stride, Index inputs,
                                 const float* gradients, Index channels, Index width, Vec* sums) {
  Vec row_sums[10] = {};
  for (Index column = 0; column < width; column++) {
    const Vec g = load(gradients + column * channels);
    UNROLL for (int tap = 0; tap < 9; tap++) {
      const Vec x = broadcast(window[tap / 3 * row_stride + (column + tap % 3) * inputs]);
      row_sums[tap] = x * g + row_sums[tap];
    }
    row_sums[9] += g;
  }
  UNROLL for (int k = 0; k < 10; k++) sums[k] += row_sums[k];
}
