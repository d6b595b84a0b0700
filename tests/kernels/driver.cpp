// Runs every entry of the kernels on odd shapes, for the sanitizers to watch. Memory is allocated
// to the byte, so that a read or write beyond a tensor is caught.
#include <cmath>
#include <cstdio>
#include <vector>

static std::ptrdiff_t second_cache;
#define VGGNET_SECOND_CACHE second_cache
#include "winograd.cpp"

template <class T>
struct Tensor {
  explicit Tensor(Index n) : data(new T[n ? n : 1]), count(n) {
    for (Index i = 0; i < n; i++) data[i] = static_cast<T>(std::sin(0.7 * i + 0.1) * 3);
  }
  ~Tensor() { delete[] data; }
  T* data;
  Index count;
};

static int failures = 0;

static void expect(bool right, const char* what) {
  if (!right) {
    std::printf("wrong: %s\n", what);
    failures++;
  }
}

static void run(Index images, Index height, Index width, Index in, Index out, int activation,
                int threads) {
  const Index sizes[5] = {images, height, width, in, out};
  const Index shrink = activation == kReluPool ? 2 : 1;
  const Index pixels = images * height * width;
  const Index results = images * (height / shrink) * (width / shrink) * out;
  const Index strides[4] = {9 * in, 9, 3, 1};
  Tensor<float> x(pixels * in), w(9 * in * out), b(out), y(results), g(results);
  Tensor<float> dx(pixels * in), dw(9 * in * out), db(out);
  Tensor<std::uint8_t> choice(activation == kReluPool ? results : 0);
  expect(vggnet_forward(x.data, w.data, strides, b.data, y.data, choice.data, sizes, activation,
                        threads) == kDone, "forward");
  expect(vggnet_backward(x.data, w.data, strides, g.data, y.data, choice.data, dx.data, dw.data,
                         strides, db.data, nullptr, nullptr, sizes, activation, threads) == kDone, "backward");
  expect(vggnet_backward(x.data, w.data, strides, g.data, y.data, choice.data, dx.data, nullptr,
                         strides, nullptr, nullptr, nullptr, sizes, activation, threads) == kDone,
         "images only");
  if (pixels && activation != kReluPool) {  // a pool may drop the row with the NaN
    x.data[x.count / 2] = NAN;
    expect(vggnet_forward(x.data, w.data, strides, nullptr, y.data, choice.data, sizes, activation,
                          threads) == kNotFinite, "a NaN");
  }
}

// A processor's cache decides how products are cut into blocks, and must decide nothing else.
static void run_with_caches(Index images, Index height, Index width, Index in, Index out,
                            int activation, int threads) {
  const Index sizes[5] = {images, height, width, in, out};
  const Index shrink = activation == kReluPool ? 2 : 1;
  const Index pixels = images * height * width;
  const Index results = images * (height / shrink) * (width / shrink) * out;
  const Index strides[4] = {9 * in, 9, 3, 1};
  Tensor<float> x(pixels * in), w(9 * in * out), b(out), g(results);
  std::vector<float> first, now;
  for (const Index kib : {128, 256, 4096}) {
    second_cache = kib * 1024;
    Tensor<float> y(results), dx(pixels * in), dw(9 * in * out), db(out);
    Tensor<std::uint8_t> choice(activation == kReluPool ? results : 0);
    vggnet_forward(x.data, w.data, strides, b.data, y.data, choice.data, sizes, activation,
                   threads);
    vggnet_backward(x.data, w.data, strides, g.data, y.data, choice.data, dx.data, dw.data,
                    strides, db.data, nullptr, nullptr, sizes, activation, threads);
    now.clear();
    for (const auto* part : {&y, &dx, &dw, &db})
      now.insert(now.end(), part->data, part->data + part->count);
    if (first.empty()) first = now;
    expect(first == now, "the same with every cache");
  }
}

static void run_direct(Index images, Index height, Index width, Index in, Index out,
                       int activation, int threads) {
  const Index sizes[5] = {images, height, width, in, out};
  const Index pixels = images * height * width;
  const Index image_strides[4] = {in * height * width, height * width, width, 1};
  const Index strides[4] = {9 * in, 9, 3, 1};
  Tensor<float> x(pixels * in), w(9 * in * out), b(out), y(pixels * out), g(pixels * out);
  Tensor<float> dw(9 * in * out), db(out);
  expect(vggnet_direct_forward(x.data, image_strides, w.data, strides, b.data, y.data, sizes,
                               activation, threads) == kDone, "first layer, forward");
  expect(vggnet_direct_backward(x.data, image_strides, g.data, y.data, nullptr, dw.data, strides,
                                db.data, nullptr, nullptr, sizes, activation, threads) == kDone, "first layer, backward");
}

static void run_norm(Index images, Index height, Index width, Index channels, int activation,
                     int threads) {
  const Index sizes[5] = {images, height, width, 16, channels};
  const Index shrink = activation == kReluPool ? 2 : 1;
  const Index pixels = images * height * width;
  const Index results = images * (height / shrink) * (width / shrink) * channels;
  const Index strides[4] = {9 * 16, 9, 3, 1};
  Tensor<float> z(pixels * channels), mean(channels), variance(channels), y(results), g(results);
  Tensor<float> sums(2 * channels), scale(channels), coefficients(4 * channels);
  Tensor<float> x(pixels * 16), w(9 * 16 * channels), dx(pixels * 16), dw(9 * 16 * channels);
  Tensor<float> db(channels);
  Tensor<std::uint8_t> choice(activation == kReluPool ? results : 0);
  expect(vggnet_moments(z.data, pixels, channels, mean.data, variance.data, threads) == kDone,
         "moments");
  expect(vggnet_normalize(z.data, scale.data, mean.data, y.data, choice.data, sizes, activation,
                          threads) == kDone, "normalize");
  expect(vggnet_norm_gradient_sums(g.data, y.data, choice.data, z.data, mean.data, sums.data,
                                   sizes, activation, threads) == kDone, "gradient sums");
  expect(vggnet_backward(x.data, w.data, strides, g.data, y.data, choice.data, dx.data, dw.data,
                         strides, db.data, z.data, coefficients.data, sizes, activation,
                         threads) == kDone, "backward through norm");
}

int main() {
  second_cache = 512 * 1024;
  const Index shapes[][3] = {{0, 8, 8}, {1, 1, 1}, {3, 2, 2}, {2, 5, 3}, {5, 7, 9},
                             {2, 14, 14}, {1, 33, 6}, {9, 4, 4}};
  const Index channels[][2] = {{16, 16}, {48, 16}, {16, 80}};
  for (const auto& s : shapes)
    for (int threads = 1; threads <= 3; threads += 2) {
      for (const auto& c : channels)
        for (int activation = kNone; activation <= kReluPool; activation++)
          if (activation != kReluPool || s[0] == 0 || s[1] > 1)
            run(s[0], s[1], s[2], c[0], c[1], activation, threads);
      for (int activation = kNone; activation <= kReluPool; activation++)
        if (s[0] > 0 && (activation != kReluPool || s[1] > 1))
          run_norm(s[0], s[1], s[2], 48, activation, threads);
      for (Index in = 1; in <= 4; in++)
        for (int activation = kNone; activation <= kRelu; activation++)
          run_direct(s[0], s[1], s[2], in, 48, activation, threads);
    }
  // 30 tiles an image: pieces of two rows; 45, in rows of 9: the last piece is a row of 2 outputs.
  for (const Index width : {22, 34})
    for (const auto& c : channels)
      for (int activation = kNone; activation <= kReluPool; activation++)
        run_with_caches(3, 18, width, c[0], c[1], activation, 2);
  // Panels of one vector beside those of two.
  run(2, 6, 6, 3 * kLanes, 5 * kLanes, kRelu, 2);
  std::printf("%d failures\n", failures);
  return failures != 0;
}
