// Transforms of filters to points and of their gradients back: G g G^T and its adjoint.
#pragma once

#include "parallel.h"
#include "products.h"
#include "transforms.h"

// A filter bank (out, in, 3, 3) in any layout.
template <class Float>
struct Filters {
  Float* data;
  Index out_channels, in_channels;
  Index out_stride, in_stride, row_stride, column_stride;

  INLINE Float* at(Index out, Index in, int row, int column) const {
    return data + out * out_stride + in * in_stride + row * row_stride + column * column_stride;
  }

  // The filters of backward-data: rotated by 180 degrees, `in` and `out` exchanged.
  Filters adjoint() const {
    return {data + 2 * (row_stride + column_stride),
            in_channels, out_channels, in_stride, out_stride, -row_stride, -column_stride};
  }
};

// Output channels computed together, so that their points stay in the cache.
constexpr Index kGroup = 32;

// Offset of a panel in the packed filters: for each group of outputs and each point, they hold a
// (depth, group) matrix in panels, as `multiply` reads it.
INLINE Index packed_at(Index depth, Index group, Index group_size, int point, Index panel) {
  return 36 * depth * group + point * depth * group_size + depth * panel;
}

INLINE Vec gather(const float* from, Index stride) {
  Vec v;
  for (int lane = 0; lane < kLanes; lane++) v[lane] = from[lane * stride];
  return v;
}

// Points of the filters of one input and kLanes outputs -> their place in the packed filters.
inline void transform_filter(const Filters<const float>& filters, Index out, Index in,
                             float* packed) {
  Vec half[kPoints][3];
  UNROLL for (int b = 0; b < 3; b++) {
    Vec p[kPoints];
    taps_to_points(gather(filters.at(out, in, 0, b), filters.out_stride),
                   gather(filters.at(out, in, 1, b), filters.out_stride),
                   gather(filters.at(out, in, 2, b), filters.out_stride), p);
    UNROLL for (int i = 0; i < kPoints; i++) half[i][b] = p[i];
  }
  const Index depth = filters.in_channels, group = out / kGroup * kGroup;
  const Index group_size = std::min(kGroup, filters.out_channels - group);
  const Index panel = (out - group) / kPanel * kPanel;
  const Index width = std::min<Index>(kPanel, group_size - panel);
  const Index within = in * width + (out - group - panel);
  for (int i = 0; i < kPoints; i++) {
    Vec p[kPoints];
    taps_to_points(half[i][0], half[i][1], half[i][2], p);
    for (int j = 0; j < kPoints; j++)
      store(packed + packed_at(depth, group, group_size, i * kPoints + j, panel) + within, p[j]);
  }
}

inline void transform_filters(const Filters<const float>& filters, float* packed, int threads) {
  // Work is divided into pieces of one vector of outputs and 8 inputs, because the filters of
  // neighbouring inputs share cache lines in the channels-last layout.
  constexpr Index kInputs = 8;
  const Index pieces_in = (filters.in_channels + kInputs - 1) / kInputs;
  const Index pieces = filters.out_channels / kLanes * pieces_in;
  parallel(threads, [&](int thread, int team) {
    const Range mine = share(pieces, thread, team);
    for (Index piece = mine.begin; piece < mine.end; piece++) {
      const Index first = piece % pieces_in * kInputs;
      for (Index in = first; in < std::min(first + kInputs, filters.in_channels); in++)
        transform_filter(filters, piece / pieces_in * kLanes, in, packed);
    }
  });
}

// Sums of point gradients, a (36, in, out) array from each of `parts` threads -> gradients of the
// filters of input `in` and the kLanes outputs from `out` on.
inline void write_filter_gradient(const float* const* sums, int parts,
                                  const Filters<float>& gradients, Index out, Index in,
                                  FiniteCheck& check) {
  const Index plane = gradients.in_channels * gradients.out_channels;
  const Index at = in * gradients.out_channels + out;
  Vec half[3][kPoints];
  for (int j = 0; j < kPoints; j++) {
    Vec p[kPoints], g[3];
    for (int i = 0; i < kPoints; i++) {
      p[i] = load(sums[0] + (i * kPoints + j) * plane + at);
      for (int part = 1; part < parts; part++)
        p[i] += load(sums[part] + (i * kPoints + j) * plane + at);
    }
    point_gradients_to_taps(p, g);
    for (int a = 0; a < 3; a++) half[a][j] = g[a];
  }
  for (int a = 0; a < 3; a++) {
    Vec g[3];
    point_gradients_to_taps(half[a], g);
    for (int b = 0; b < 3; b++) {
      check.see(g[b]);
      for (int lane = 0; lane < kLanes; lane++) *gradients.at(out + lane, in, a, b) = g[b][lane];
    }
  }
}
