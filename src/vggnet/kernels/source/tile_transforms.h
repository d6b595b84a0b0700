// Two-dimensional transforms of tiles, one vector of channels at a time.
#pragma once

#include "products.h"
#include "tiles.h"

// An image or a part of one, channels last.
struct Pixels {
  const float* data;  // pixel (0, 0); may be outside the image, and is not read then
  Index row_stride, column_stride;

  INLINE const float* at(Index row, Index column) const {
    return data + row * row_stride + column * column_stride;
  }
};

// The inputs of a tile that is inside the image, border included.
struct InnerWindow {
  Pixels pixels;

  INLINE const float* at(int i, int j) const { return pixels.at(i, j); }
};

// The inputs of a tile at the edge: pixels outside the image are read from `zeros`.
struct EdgeWindow {
  const float* pixel[6][6];

  EdgeWindow(Pixels pixels, Index row, Index column, Index height, Index width,
             const float* zeros) {
    for (Index i = 0; i < 6; i++)
      for (Index j = 0; j < 6; j++) {
        const bool inside = row + i >= 0 && row + i < height && column + j >= 0 &&
                            column + j < width;
        pixel[i][j] = inside ? pixels.at(row + i, column + j) : zeros;
      }
  }

  INLINE const float* at(int i, int j) const { return pixel[i][j]; }
};

// Inputs (Rows + 2, Columns + 2, channels) -> points: B^T d B.
template <int Rows, int Columns, class Window>
OUTLINE void transform_inputs(const Window& window, Index channels, Planes::Place points) {
  for (Index c = 0; c < channels; c += kLanes) {
    Vec half[kPoints][kPoints];
    UNROLL for (int j = 0; j < Columns + 2; j++) {
      Vec d[6], p[kPoints];
      UNROLL for (int i = 0; i < Rows + 2; i++) d[i] = load(window.at(i, j) + c);
      inputs_to_points<Rows>(d, p);
      UNROLL for (int i = 0; i < kPoints; i++) if (has_point<Rows>(i)) half[i][j] = p[i];
    }
    UNROLL for (int i = 0; i < kPoints; i++) if (has_point<Rows>(i)) {
      Vec p[kPoints];
      inputs_to_points<Columns>(half[i], p);
      UNROLL for (int j = 0; j < kPoints; j++)
        if (has_point<Columns>(j)) store(points(i, j) + c, p[j]);
    }
  }
}

// Gradients of a tile's outputs (Rows, Columns, channels) -> gradients of its points: A dy A^T.
template <int Rows, int Columns>
OUTLINE void transform_output_gradients(Pixels gradients, Index channels, Planes::Place points) {
  for (Index c = 0; c < channels; c += kLanes) {
    Vec half[kPoints][4];
    UNROLL for (int j = 0; j < Columns; j++) {
      Vec y[4], p[kPoints];
      UNROLL for (int i = 0; i < Rows; i++) y[i] = load(gradients.at(i, j) + c);
      output_gradients_to_points<Rows>(y, p);
      UNROLL for (int i = 0; i < kPoints; i++) if (has_point<Rows>(i)) half[i][j] = p[i];
    }
    UNROLL for (int i = 0; i < kPoints; i++) if (has_point<Rows>(i)) {
      Vec p[kPoints];
      output_gradients_to_points<Columns>(half[i], p);
      UNROLL for (int j = 0; j < kPoints; j++)
        if (has_point<Columns>(j)) store(points(i, j) + c, p[j]);
    }
  }
}

// Points of one vector of channels -> outputs y[Rows][Columns]: A^T M A.
template <int Rows, int Columns>
INLINE void outputs_of(Planes::Place points, Index c, Vec (&y)[4][4]) {
  Vec half[4][kPoints];
  UNROLL for (int j = 0; j < kPoints; j++) if (has_point<Columns>(j)) {
    Vec p[kPoints], column[4];
    UNROLL for (int i = 0; i < kPoints; i++)
      if (has_point<Rows>(i)) p[i] = load(points(i, j) + c);
    points_to_outputs<Rows>(p, column);
    UNROLL for (int i = 0; i < Rows; i++) half[i][j] = column[i];
  }
  UNROLL for (int i = 0; i < Rows; i++) points_to_outputs<Columns>(half[i], y[i]);
}

INLINE Vec maximum(Vec a, Vec b) { return a > b ? a : b; }

INLINE Vec relu(Vec x) { return maximum(x, Vec{}); }

// Where to write a tile's outputs, of which `rows` x `columns` are inside the image.
struct Destination {
  float* data;
  std::uint8_t* choice;  // see write_maximum; null without pooling
  Index row_stride, column_stride;
  Index rows, columns;

  INLINE Index at(Index row, Index column) const {
    return row * row_stride + column * column_stride;
  }
};

// `choice` tells the pool's backward pass which of four inputs was the maximum, the first of equal
// ones as in torch, or that ReLU set it to zero (kClipped).
constexpr int kClipped = 4;

enum Activation { kNone = 0, kRelu = 1, kReluPool = 2 };

// Writes the maximum of a window of 2 x 2 outputs with bias and ReLU, and its choice.
//
// It computes the maximum first, which commutes with ReLU and with adding the bias.
INLINE void write_maximum(const Vec (&window)[4], Vec bias, float* to, std::uint8_t* choice_to,
                          FiniteCheck& check) {
  check.see((window[0] + window[1]) + (window[2] + window[3]));
  const Vec best = maximum(maximum(window[0], window[1]), maximum(window[2], window[3]));
  IntVec choice = IntVec{} + 3;
  UNROLL for (int k = 2; k >= 0; k--) choice = window[k] == best ? IntVec{} + k : choice;
  const Vec out = best + bias;
  check.see(out);
  store(to, relu(out));
  store_bytes(choice_to, out > 0.0f ? choice : IntVec{} + kClipped);
}

template <int Rows, int Columns, Activation Kind, bool Whole>
INLINE void write_tile(Planes::Place points, Index channels, const float* bias, Destination to,
                       FiniteCheck& check) {
  constexpr int kStep = Kind == kReluPool ? 2 : 1;
  for (Index c = 0; c < channels; c += kLanes) {
    Vec y[4][4];
    outputs_of<Rows, Columns>(points, c, y);
    const Vec b = bias ? load(bias + c) : Vec{};
    if constexpr (Kind != kReluPool) {
      UNROLL for (int i = 0; i < Rows; i++) {
        UNROLL for (int j = 0; j < Columns; j++) y[i][j] += b;
        check.see(Columns == 4 ? (y[i][0] + y[i][1]) + (y[i][2] + y[i][3]) : y[i][0] + y[i][1]);
      }
    }
    UNROLL for (int i = 0; i < Rows; i += kStep)
      UNROLL for (int j = 0; j < Columns; j += kStep) {
        // As in torch, pooling drops an odd last row or column.
        if (!Whole && (i + kStep > to.rows || j + kStep > to.columns)) continue;
        if constexpr (Kind == kReluPool) {
          const Vec window[4] = {y[i][j], y[i][j + 1], y[i + 1][j], y[i + 1][j + 1]};
          const Index at = to.at(i / 2, j / 2) + c;
          write_maximum(window, b, to.data + at, to.choice + at, check);
        } else
          store(to.data + to.at(i, j) + c, Kind == kRelu ? relu(y[i][j]) : y[i][j]);
      }
  }
}

// Writes a tile's outputs after the activation `Kind`.
template <int Rows, int Columns, Activation Kind>
OUTLINE void write_outputs(Planes::Place points, Index channels, const float* bias,
                           Destination to, FiniteCheck& total) {
  FiniteCheck check = total;  // a copy that can stay in a register
  if (to.rows >= Rows && to.columns >= Columns)
    write_tile<Rows, Columns, Kind, true>(points, channels, bias, to, check);
  else
    write_tile<Rows, Columns, Kind, false>(points, channels, bias, to, check);
  total = check;
}
