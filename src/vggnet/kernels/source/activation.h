// Backward pass of what follows a convolution (pool, ReLU, batch norm): from the gradients of the
// layer's outputs to those of the convolution's outputs.
#pragma once

#include "tile_transforms.h"

// Backward pass of batch norm: dz = a dy + b (z - m) + c for each channel (normalization.h).
struct NormGradient {
  const float* outputs;       // of the convolution, z; null without batch norm
  const float* coefficients;  // a, m, b, c: (4, channels)

  INLINE void apply(const float* z, float* gradients, Index pixels, Index channels) const {
    for (Index i = 0; i < pixels; i++)
      for (Index k = 0; k < channels; k += kLanes) {
        const float* at = coefficients + k;
        float* to = gradients + i * channels + k;
        const Vec distance = load(z + i * channels + k) - load(at + channels);
        store(to, load(at) * load(to) +
                      (load(at + 2 * channels) * distance + load(at + 3 * channels)));
      }
  }
};

// Gradients of the outputs of one convolution, computed block by block.
struct OutputGradients {
  const float* gradients;      // of the layer's outputs, channels last
  const float* activations;    // kRelu: the layer's outputs
  const std::uint8_t* choice;  // kReluPool: see write_maximum
  Activation activation;
  Index height, width, channels;
  NormGradient norm;

  // One row of an image -> (width, channels).
  void write_row(Index image, Index row, float* to) const {
    write_row_behind_norm(image, row, to);
    if (norm.outputs)
      norm.apply(norm.outputs + (image * height + row) * width * channels, to, width, channels);
  }

  // The same for the outputs of batch norm.
  void write_row_behind_norm(Index image, Index row, float* to) const {
    const Index floats = width * channels, at = (image * height + row) * floats;
    if (activation == kReluPool)
      write_pool_row(image, row, to);
    else if (activation == kRelu)
      for (Index k = 0; k < floats; k += kLanes)
        // As in torch, the gradient passes where the output is NaN, but not where it is 0.
        store(to + k, load(activations + at + k) <= 0.0f ? Vec{} : load(gradients + at + k));
    else
      std::memcpy(to, gradients + at, floats * sizeof(float));
  }

 private:
  void write_pool_row(Index image, Index row, float* to) const {
    const Index pooled_width = width / 2, pooled_height = height / 2;
    const Index written = row / 2 < pooled_height ? 2 * pooled_width : 0;
    const int left = static_cast<int>(row % 2) * 2, right = left + 1;
    Index at = (image * pooled_height + row / 2) * pooled_width * channels;
    for (Index column = 0; column < written; column += 2) {
      float* pair = to + column * channels;
      for (Index k = 0; k < channels; k += kLanes, at += kLanes) {
        const Vec gradient = load(gradients + at);
        const IntVec chosen = load_bytes(choice + at);
        store(pair + k, chosen == left ? gradient : Vec{});
        store(pair + channels + k, chosen == right ? gradient : Vec{});
      }
    }
    // No window contains an odd last row or column.
    std::memset(to + written * channels, 0, (width - written) * channels * sizeof(float));
  }
};

// The output gradients of a block of tiles with a border of one pixel, zero outside the image,
// so that the transforms need no bounds checks.
struct BorderedBlock {
  float* data;
  Block block;
  Index rows, columns, channels;  // with the border

  BorderedBlock(float* data_, const BlockTiles& tiles, Index channels_)
      : data(data_),
        block(tiles.block),
        rows(4 * tiles.tall + 2 * tiles.low + 2),
        columns(tiles.blocks.columns.covered() + 2),
        channels(channels_) {}

  static Index floats(const Blocks& blocks, Index channels) {
    return blocks.most_images * (4 * blocks.most_rows + 2) * (blocks.columns.covered() + 2) *
           channels;
  }

  void fill(const OutputGradients& from) {
    for (Index q = 0; q < block.images; q++)
      for (Index r = 0; r < rows; r++) {
        float* to = data + (q * rows + r) * columns * channels;
        const Index row = 4 * block.row - 1 + r;
        if (row < 0 || row >= from.height) {
          std::memset(to, 0, columns * channels * sizeof(float));
          continue;
        }
        std::memset(to, 0, channels * sizeof(float));
        from.write_row(block.image + q, row, to + channels);
        std::memset(to + (1 + from.width) * channels, 0,
                    (columns - 1 - from.width) * channels * sizeof(float));
      }
  }

  // The pixels from one above and left of the tile.
  Pixels corner(const Tile& tile) const {
    const Index row = tile.row - 4 * block.row;
    return {data + (((tile.image - block.image) * rows + row) * columns + tile.column) * channels,
            columns * channels, channels};
  }
};
