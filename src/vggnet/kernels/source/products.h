// The matrix products at each of the 36 points, which take two thirds of the time.
//
// Both kernels keep a block of the result in registers: up to kRows rows of two vectors. AVX2's 16
// registers hold 6 rows (12 sums, 2 factors, 1 broadcast); AVX-512 and NEON have 32.
#pragma once

#include "parallel.h"

constexpr int kRows = kLanes == 8 ? 6 : 12;
constexpr int kPanel = 2 * kLanes;

// out(Rows, Vectors * kLanes) = rows(Rows, depth) panel(depth, Vectors * kLanes)
template <int Rows, int Vectors>
OUTLINE void multiply_rows(const float* rows, Index row_stride, const float* panel, Index depth,
                           float* out, Index out_stride) {
  Vec sum[Rows][Vectors] = {};
#pragma GCC unroll 4
  for (Index k = 0; k < depth; k++) {
    Vec factor[Vectors];
    UNROLL for (int v = 0; v < Vectors; v++)
      factor[v] = load(panel + k * Vectors * kLanes + v * kLanes);
    UNROLL for (int r = 0; r < Rows; r++) {
      const Vec x = broadcast(rows[r * row_stride + k]);
      UNROLL for (int v = 0; v < Vectors; v++) sum[r][v] = x * factor[v] + sum[r][v];
    }
  }
  UNROLL for (int r = 0; r < Rows; r++)
    UNROLL for (int v = 0; v < Vectors; v++) store(out + r * out_stride + v * kLanes, sum[r][v]);
}

// out(Rows, Vectors * kLanes) += left(count, Rows)^T right(count, Vectors * kLanes)
//
// The sum over a block of tiles starts at zero and is added to the total at the end: 128 images
// have thousands of terms, and two levels of summation keep the rounding error small.
template <int Rows, int Vectors>
OUTLINE void accumulate_rows(const float* left, Index left_stride, const float* right,
                             Index right_stride, Index count, float* out, Index out_stride) {
  Vec sum[Rows][Vectors] = {};
#pragma GCC unroll 2
  for (Index t = 0; t < count; t++) {
    Vec factor[Vectors];
    UNROLL for (int v = 0; v < Vectors; v++)
      factor[v] = load(right + t * right_stride + v * kLanes);
    UNROLL for (int r = 0; r < Rows; r++) {
      const Vec x = broadcast(left[t * left_stride + r]);
      UNROLL for (int v = 0; v < Vectors; v++) sum[r][v] = x * factor[v] + sum[r][v];
    }
  }
  UNROLL for (int r = 0; r < Rows; r++)
    UNROLL for (int v = 0; v < Vectors; v++) {
      float* to = out + r * out_stride + v * kLanes;
      store(to, load(to) + sum[r][v]);
    }
}

template <int Value>
struct Constant {
  static constexpr int value = Value;
};

// Calls `kernel(Constant<rows>)` for a number of rows known at run time.
template <int Rows = kRows, class Kernel>
INLINE void with_rows(int rows, const Kernel& kernel) {
  if (rows == Rows)
    kernel(Constant<Rows>{});
  else if constexpr (Rows > 1)
    with_rows<Rows - 1>(rows, kernel);
}

// Divides `count` rows into equal parts of at most kRows: 10 + 10 + 10 + 10 + 9 rows use the
// multipliers better than 12 + 12 + 12 + 12 + 1.
template <class Part>
INLINE void for_row_parts(Index count, const Part& part) {
  const int parts = static_cast<int>((count + kRows - 1) / kRows);
  for (int i = 0; i < parts; i++) {
    const Range rows = share(count, i, parts);
    part(rows.begin, static_cast<int>(rows.end - rows.begin));
  }
}

// out(count, columns) = rows(count, depth) weights(depth, columns). `weights` is packed in panels
// of kPanel columns (the last may have kLanes), each (depth, width) in row-major order.
inline void multiply(const float* rows, Index count, Index depth, const float* weights,
                     Index columns, float* out, Index out_stride) {
  for (Index column = 0; column < columns; column += kPanel) {
    const float* panel = weights + depth * column;
    const bool whole = columns - column >= kPanel;
    for_row_parts(count, [&](Index first, int part) {
      with_rows(part, [&](auto n) {
        const float* from = rows + first * depth;
        float* to = out + first * out_stride + column;
        if (whole)
          multiply_rows<n.value, 2>(from, depth, panel, depth, to, out_stride);
        else
          multiply_rows<n.value, 1>(from, depth, panel, depth, to, out_stride);
      });
    });
  }
}

// out(left_columns, right_columns) += left(count, left_columns)^T right(count, right_columns)
inline void accumulate(const float* left, Index left_columns, const float* right,
                       Index right_columns, Index count, float* out) {
  for (Index column = 0; column < right_columns; column += kPanel) {
    const bool whole = right_columns - column >= kPanel;
    for_row_parts(left_columns, [&](Index first, int part) {
      with_rows(part, [&](auto n) {
        float* to = out + first * right_columns + column;
        if (whole)
          accumulate_rows<n.value, 2>(left + first, left_columns, right + column, right_columns,
                                      count, to, right_columns);
        else
          accumulate_rows<n.value, 1>(left + first, left_columns, right + column, right_columns,
                                      count, to, right_columns);
      });
    });
  }
}
