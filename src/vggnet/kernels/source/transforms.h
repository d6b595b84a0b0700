// Winograd's minimal filtering for 3-tap filters (Lavin & Gray, arXiv 1509.09308), in one
// dimension.
//
// F(4, 3) computes four neighbouring outputs of a 3-tap filter g from six inputs d with six
// multiplications where the direct sum takes twelve:
//
//     y = A^T [ (G g) . (B^T d) ]            . is the product element by element
//
// It is the transpose of Toom and Cook's algorithm, which multiplies the polynomials g and y by
// evaluating both at six points, here 0, 1, -1, 2, -2 and infinity, and interpolating. A row of G
// evaluates g at a point, scaled by the interpolation's denominator:
//
//           [ 4  0 -5  0  1  0 ]         [  1/4     0     0  ]   point  0
//           [ 0 -4 -4  1  1  0 ]         [ -1/6  -1/6  -1/6  ]          1
//     B^T = [ 0  4 -4 -1  1  0 ]     G = [ -1/6   1/6  -1/6  ]         -1
//           [ 0 -2 -1  2  1  0 ]         [ 1/24  1/12   1/6  ]          2
//           [ 0  2 -1 -2  1  0 ]         [ 1/24 -1/12   1/6  ]         -2
//           [ 0  4  0 -5  0  1 ]         [   0     0     1   ]   infinity
//
//           [ 1  1  1  1  1  0 ]
//     A^T = [ 0  1 -1  2 -2  0 ]
//           [ 0  1  1  4  4  0 ]
//           [ 0  1 -1  8 -8  1 ]
//
// F(2, 3) computes two outputs from four inputs at the points 0, 1, -1 and infinity. Its usual G
// has another scale; here B^T contains the scale instead (4, -3, -3, 1), so that both sizes use
// the same transformed filter. An image of width 14 is then three tiles of 4 and one of 2, instead
// of four tiles of 4 that compute 16 columns.
//
// In two dimensions each transform is applied along the rows and then along the columns: 36
// multiplications for a tile of 4 x 4 outputs where the direct sum takes 144.
//
// The gradients are the adjoints of these three steps: with M = (G g) . (B^T d),
//     dM = A dy,      d(G g) = sum over tiles of dM . (B^T d),      dg = G^T d(G g),
// and the gradient of the inputs is a convolution of dy with the filter rotated by 180 degrees.
#pragma once

#include "vector.h"

constexpr int kPoints = 6;

// Whether a tile with `Extent` outputs uses this point: only F(4, 3) uses 2 and -2.
template <int Extent>
constexpr bool has_point(int point) {
  return Extent == 4 || (point != 3 && point != 4);
}

// B^T: the Extent + 2 inputs of a tile -> its points.
template <int Extent>
INLINE void inputs_to_points(const Vec* d, Vec* p) {
  if constexpr (Extent == 4) {
    const Vec even1 = d[4] - 4.0f * d[2], odd1 = d[3] - 4.0f * d[1];
    const Vec even2 = d[4] - d[2], odd2 = 2.0f * (d[3] - d[1]);
    p[0] = 4.0f * d[0] + (d[4] - 5.0f * d[2]);
    p[1] = even1 + odd1;
    p[2] = even1 - odd1;
    p[3] = even2 + odd2;
    p[4] = even2 - odd2;
    p[5] = 4.0f * d[1] + (d[5] - 5.0f * d[3]);
  } else {
    p[0] = 4.0f * (d[0] - d[2]);
    p[1] = -3.0f * (d[1] + d[2]);
    p[2] = 3.0f * (d[1] - d[2]);
    p[5] = d[3] - d[1];
  }
}

// A^T: points -> the tile's outputs.
template <int Extent>
INLINE void points_to_outputs(const Vec* p, Vec* y) {
  const Vec sum1 = p[1] + p[2], difference1 = p[1] - p[2];
  if constexpr (Extent == 4) {
    const Vec sum2 = p[3] + p[4], difference2 = p[3] - p[4];
    y[0] = p[0] + sum1 + sum2;
    y[1] = 2.0f * difference2 + difference1;
    y[2] = 4.0f * sum2 + sum1;
    y[3] = 8.0f * difference2 + difference1 + p[5];
  } else {
    y[0] = p[0] + sum1;
    y[1] = difference1 + p[5];
  }
}

// A: gradients of the tile's outputs -> gradients of its points (adjoint of points_to_outputs).
template <int Extent>
INLINE void output_gradients_to_points(const Vec* y, Vec* p) {
  p[0] = y[0];
  if constexpr (Extent == 4) {
    const Vec even1 = y[0] + y[2], odd1 = y[1] + y[3];
    const Vec even2 = 4.0f * y[2] + y[0], odd2 = 2.0f * (4.0f * y[3] + y[1]);
    p[1] = even1 + odd1;
    p[2] = even1 - odd1;
    p[3] = even2 + odd2;
    p[4] = even2 - odd2;
    p[5] = y[3];
  } else {
    p[1] = y[0] + y[1];
    p[2] = y[0] - y[1];
    p[5] = y[1];
  }
}

// G: the three taps of a filter -> its points.
INLINE void taps_to_points(Vec g0, Vec g1, Vec g2, Vec* p) {
  const Vec even1 = (g0 + g2) * (-1 / 6.0f), odd1 = g1 * (1 / 6.0f);
  const Vec even2 = g0 * (1 / 24.0f) + g2 * (1 / 6.0f), odd2 = g1 * (1 / 12.0f);
  p[0] = g0 * 0.25f;
  p[1] = even1 - odd1;
  p[2] = even1 + odd1;
  p[3] = even2 + odd2;
  p[4] = even2 - odd2;
  p[5] = g2;
}

// G^T: gradients of a filter's points -> gradients of its taps (adjoint of taps_to_points).
INLINE void point_gradients_to_taps(const Vec* p, Vec* g) {
  const Vec sum1 = p[1] + p[2], difference1 = p[2] - p[1];
  const Vec sum2 = p[3] + p[4], difference2 = p[3] - p[4];
  g[0] = p[0] * 0.25f + (sum1 * (-1 / 6.0f) + sum2 * (1 / 24.0f));
  g[1] = difference1 * (1 / 6.0f) + difference2 * (1 / 12.0f);
  g[2] = sum1 * (-1 / 6.0f) + (sum2 * (1 / 6.0f) + p[5]);
}
