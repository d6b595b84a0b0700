// Batch normalization in training (Ioffe & Szegedy, arXiv 1502.03167).
//
// With a convolution's outputs z, their mean m and variance v over images and pixels, and
// s = gamma / sqrt(v + epsilon):
//
//     y = s (z - m) + beta
//     dz = s (dy - mean(dy) - (z - m) mean(dy (z - m)) / (v + epsilon))
//
// dz has the form a dy + b (z - m) + c with one a, b and c per channel. The convolution's
// backward pass computes it row by row where it reads it, and never stores it as a whole.
#pragma once

#include <atomic>
#include <vector>

#include "activation.h"
#include "parallel.h"

// The sum of `term(i)` for i in [0, count), in four independent chains: in a single chain, each
// addition would wait for the one before.
template <class Term>
INLINE Vec sum_of(Index count, const Term& term) {
  Vec sums[4] = {};
  Index i = 0;
  for (; i + 4 <= count; i += 4)
    UNROLL for (int chain = 0; chain < 4; chain++) sums[chain] += term(i + chain);
  for (; i < count; i++) sums[0] += term(i);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// Mean and sum of squared distances from it, for one vector of channels of (count, channels).
struct PartMoments {
  Vec mean, squares;

  PartMoments(const float* pixels, Index count, Index channels) {
    mean = sum_of(count, [&](Index i) { return load(pixels + i * channels); }) *
           (1.0f / static_cast<float>(count));
    squares = sum_of(count, [&](Index i) {
      const Vec distance = load(pixels + i * channels) - mean;
      return distance * distance;
    });
  }
};

// Count, mean and sum of squared distances from it for each channel. In double, because a channel
// far from zero would lose its variance over hundreds of thousands of pixels.
struct Moments {
  double *mean, *squares;
  Index channels;
  double count = 0;

  Moments(double* memory, Index channels_)
      : mean(memory), squares(memory + channels_), channels(channels_) {
    std::fill(memory, memory + 2 * channels, 0.0);
  }

  // Combines the moments of two sets (Chan, Golub & LeVeque 1979).
  void add(double other_count, const double* other_mean, const double* other_squares) {
    for (Index c = 0; c < channels; c++) add(c, other_count, other_mean[c], other_squares[c]);
    count += other_count;
  }

  void add_pixels(const float* pixels, Index number) {
    for (Index c = 0; c < channels; c += kLanes) {
      const PartMoments part(pixels + c, number, channels);
      for (int lane = 0; lane < kLanes; lane++)
        add(c + lane, static_cast<double>(number), part.mean[lane], part.squares[lane]);
    }
    count += static_cast<double>(number);
  }

 private:
  void add(Index c, double other_count, double other_mean, double other_squares) {
    if (other_count == 0) return;
    const double part = other_count / (count + other_count), distance = other_mean - mean[c];
    mean[c] += distance * part;
    squares[c] += other_squares + distance * distance * count * part;
  }
};

// Mean and biased variance of each channel of (pixels, channels).
inline void channel_moments(const float* values, Index pixels, Index channels, float* mean,
                            float* variance, int threads) {
  // Pixels per part: few enough to stay in the L1 cache for their second pass, many enough that
  // the divisions do not matter.
  constexpr Index kPart = 128;
  const Index parts = (pixels + kPart - 1) / kPart;
  const std::size_t floats = Arena::padded(4 * channels);  // 2 doubles a channel
  Arena& memory = arena();
  memory.reset(threads * floats);
  float* scratch = memory.take(threads * floats);
  const auto moments_of = [&](int thread) {
    return reinterpret_cast<double*>(scratch + thread * floats);
  };
  std::vector<double> counts(threads);
  int teams = 1;
  parallel(threads, [&](int thread, int team) {
    if (thread == 0) teams = team;
    Moments mine(moments_of(thread), channels);
    const Range range = share(parts, thread, team);
    for (Index p = range.begin; p < range.end; p++)
      mine.add_pixels(values + p * kPart * channels, std::min(kPart, pixels - p * kPart));
    counts[thread] = mine.count;
  });
  std::vector<double> total_memory(2 * channels);
  Moments total(total_memory.data(), channels);
  for (int t = 0; t < teams; t++) {
    const double* other = moments_of(t);
    total.add(counts[t], other, other + channels);
  }
  for (Index c = 0; c < channels; c++) {
    mean[c] = static_cast<float>(total.mean[c]);
    variance[c] = static_cast<float>(total.squares[c] / total.count);
  }
}

// Rows of y = scale z + shift, with ReLU and pool if requested.
struct Normalization {
  const float *outputs, *scale, *shift;
  Index height, width, channels;

  template <bool Relu>
  void write_row(Index image, Index row, float* to, FiniteCheck& check) const {
    const Index at = (image * height + row) * width * channels;
    for (Index i = 0; i < width; i++)
      for (Index c = 0; c < channels; c += kLanes) {
        const Vec y = value(at + i * channels + c, c);
        check.see(y);
        store(to + at + i * channels + c, Relu ? relu(y) : y);
      }
  }

  // A pooled row, from rows 2 * row and 2 * row + 1.
  void write_pooled_row(Index image, Index row, float* to, std::uint8_t* choice,
                        FiniteCheck& check) const {
    const Index at = (image * height + 2 * row) * width * channels;
    const Index out = (image * (height / 2) + row) * (width / 2) * channels;
    for (Index i = 0; i < width / 2; i++)
      for (Index c = 0; c < channels; c += kLanes) {
        const Index left = at + 2 * i * channels + c, below = left + width * channels;
        const Vec window[4] = {value(left, c), value(left + channels, c), value(below, c),
                               value(below + channels, c)};
        write_maximum(window, Vec{}, to + out + i * channels + c, choice + out + i * channels + c,
                      check);
      }
  }

 private:
  INLINE Vec value(Index at, Index c) const {
    return load(outputs + at) * load(scale + c) + load(shift + c);
  }
};

inline bool normalize(const Normalization& norm, Index images, Activation activation,
                      float* to, std::uint8_t* choice, int threads) {
  std::atomic<bool> finite{true};
  parallel(threads, [&](int thread, int team) {
    FiniteCheck check;
    const Range mine = share(images, thread, team);
    for (Index n = mine.begin; n < mine.end; n++)
      if (activation == kReluPool)
        for (Index r = 0; r < norm.height / 2; r++)
          norm.write_pooled_row(n, r, to, choice, check);
      else
        for (Index r = 0; r < norm.height; r++)
          if (activation == kRelu)
            norm.write_row<true>(n, r, to, check);
          else
            norm.write_row<false>(n, r, to, check);
    if (check.failed()) finite = false;
  });
  return finite;
}

// The sums of dy and dy (z - m) over images and pixels -> sums (2, channels).
inline void norm_gradient_sums(const OutputGradients& gradients, const float* outputs,
                               const float* mean, Index images, float* sums, int threads) {
  const Index channels = gradients.channels, row_floats = gradients.width * channels;
  const std::size_t row_size = Arena::padded(row_floats);
  const std::size_t image_size = Arena::padded(2 * channels);
  Arena& memory = arena();
  memory.reset(threads * (row_size + image_size));
  float* scratch = memory.take(0);
  std::vector<double> totals(2 * channels * threads);
  parallel(threads, [&](int thread, int team) {
    float* row = scratch + thread * (row_size + image_size);
    float* image_sums = row + row_size;
    double* total = totals.data() + 2 * channels * thread;
    const Range mine = share(images, thread, team);
    for (Index n = mine.begin; n < mine.end; n++) {
      std::fill(image_sums, image_sums + 2 * channels, 0.0f);
      for (Index r = 0; r < gradients.height; r++) {
        gradients.write_row_behind_norm(n, r, row);
        const float* z = outputs + (n * gradients.height + r) * row_floats;
        for (Index c = 0; c < channels; c += kLanes) {
          const Vec m = load(mean + c);
          const Vec sum =
              sum_of(gradients.width, [&](Index i) { return load(row + i * channels + c); });
          const Vec product = sum_of(gradients.width, [&](Index i) {
            return load(row + i * channels + c) * (load(z + i * channels + c) - m);
          });
          store(image_sums + c, load(image_sums + c) + sum);
          store(image_sums + channels + c, load(image_sums + channels + c) + product);
        }
      }
      for (Index c = 0; c < 2 * channels; c++) total[c] += image_sums[c];
    }
  });
  for (Index c = 0; c < 2 * channels; c++) {
    double sum = 0;
    for (int t = 0; t < threads; t++) sum += totals[t * 2 * channels + c];
    sums[c] = static_cast<float>(sum);
  }
}
