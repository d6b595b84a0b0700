// Calls all functions of the kernels with odd shapes, for sanitizers and for other processors.
// Tensors are allocated to the byte, so that a sanitizer detects any access outside of them.
#include <cmath>
#include <cstdio>
#include <utility>
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

// One layer and what its forward and backward passes return.
struct Layer {
  Index sizes[5], image_strides[4], strides[4];
  int activation;
  bool first;  // a first layer: images in NCHW, and no gradients of them
  Tensor<float> x, w, b, y, g, dx, dw, db;
  Tensor<std::uint8_t> choice;

  Layer(Index images, Index height, Index width, Index in, Index out, int kind)
      : sizes{images, height, width, in, out},
        image_strides{in * height * width, height * width, width, 1},
        strides{9 * in, 9, 3, 1},
        activation(kind),
        first(in <= kMaxDirectInputs),
        x(images * height * width * in), w(9 * in * out), b(out), y(results()), g(results()),
        dx(first ? 0 : x.count), dw(w.count), db(out),
        choice(kind == kReluPool ? results() : 0) {}

  Index results() const {
    const Index shrink = activation == kReluPool ? 2 : 1;
    return sizes[0] * (sizes[1] / shrink) * (sizes[2] / shrink) * sizes[4];
  }
  int forward(const float* bias, int threads) {
    return vggnet_forward(x.data, image_strides, w.data, strides, bias, y.data, choice.data, sizes,
                          activation, threads);
  }
  int backward(bool weights, int threads, const float* z = nullptr,
               const float* coefficients = nullptr) {
    return vggnet_backward(x.data, image_strides, w.data, strides, g.data, y.data, choice.data,
                           first ? nullptr : dx.data, weights ? dw.data : nullptr, strides,
                           weights ? db.data : nullptr, z, coefficients, sizes, activation,
                           threads);
  }
  std::vector<float> all() const {
    std::vector<float> values;
    for (const auto* part : {&y, &dx, &dw, &db})
      values.insert(values.end(), part->data, part->data + part->count);
    return values;
  }
};

static double dot(const Tensor<float>& a, const Tensor<float>& b) {
  double sum = 0;
  for (Index i = 0; i < a.count; i++) sum += double(a.data[i]) * b.data[i];
  return sum;
}

// Checks a layer without activation and bias against the definition of a convolution, and its
// gradients by <g, y> = <dx, x> = <dw, w>, which holds because y is linear in x and in w.
static void check_values(const Layer& layer) {
  const Index *n = layer.sizes, *s = layer.image_strides;
  const Index channels_last[4] = {n[1] * n[2] * n[3], 1, n[2] * n[3], n[3]};
  if (!layer.first) s = channels_last;
  double error = 0, norm = 0;
  for (Index i = 0; i < layer.y.count; i++) {
    const Index k = i % n[4], column = i / n[4] % n[2], row = i / n[4] / n[2] % n[1];
    const Index image = i / n[4] / n[2] / n[1];
    double exact = 0;
    for (Index tap = 0; tap < 9; tap++) {
      const Index r = row + tap / 3 - 1, c = column + tap % 3 - 1;
      if (r < 0 || r >= n[1] || c < 0 || c >= n[2]) continue;
      for (Index in = 0; in < n[3]; in++)
        exact += double(layer.x.data[image * s[0] + in * s[1] + r * s[2] + c * s[3]]) *
                 layer.w.data[(k * n[3] + in) * 9 + tap];
    }
    error += (layer.y.data[i] - exact) * (layer.y.data[i] - exact);
    norm += exact * exact;
  }
  expect(error <= 1e-10 * norm, "outputs close to the exact ones");
  const double expected = dot(layer.g, layer.y);
  const double near = 1e-5 * std::sqrt(dot(layer.g, layer.g) * dot(layer.y, layer.y));
  expect(layer.first || std::abs(dot(layer.dx, layer.x) - expected) <= near, "images' gradients");
  expect(std::abs(dot(layer.dw, layer.w) - expected) <= near, "filters' gradients");
}

static void run(Index images, Index height, Index width, Index in, Index out, int activation,
                int threads) {
  Layer layer(images, height, width, in, out, activation);
  expect(layer.forward(layer.b.data, threads) == kDone, "forward");
  expect(layer.backward(true, threads) == kDone, "backward");
  const std::vector<float> once = layer.all();
  layer.forward(layer.b.data, threads);
  layer.backward(true, threads);
  expect(once == layer.all(), "the same bits when repeated");
  if (activation == kNone) {
    layer.forward(nullptr, threads);
    layer.backward(true, threads);
    check_values(layer);
  }
  if (!layer.first) expect(layer.backward(false, threads) == kDone, "gradients of images alone");
  if (layer.x.count && activation != kReluPool) {  // a pool may drop the row with the NaN
    layer.x.data[layer.x.count / 2] = NAN;
    expect(layer.forward(nullptr, threads) == kNotFinite, "a NaN");
  }
}

// The size of the processor's cache determines the blocks, but must not change a bit.
static void run_with_caches(Index images, Index height, Index width, Index in, Index out,
                            int activation, int threads) {
  std::vector<float> first;
  for (const Index kib : {128, 256, 4096}) {
    second_cache = kib * 1024;
    Layer layer(images, height, width, in, out, activation);
    layer.forward(layer.b.data, threads);
    layer.backward(true, threads);
    if (first.empty()) first = layer.all();
    expect(first == layer.all(), "the same bits with every cache");
  }
}

static void run_norm(Index images, Index height, Index width, Index channels, int activation,
                     int threads) {
  Layer layer(images, height, width, 2 * kLanes, channels, activation);
  Tensor<float> z(images * height * width * channels), mean(channels), variance(channels);
  Tensor<float> sums(2 * channels), scale(channels), coefficients(4 * channels);
  expect(vggnet_moments(z.data, mean.data, variance.data, layer.sizes, threads) == kDone,
         "moments");
  expect(vggnet_normalize(z.data, scale.data, mean.data, layer.y.data, layer.choice.data,
                          layer.sizes, activation, threads) == kDone, "normalize");
  expect(vggnet_norm_gradient_sums(layer.g.data, layer.y.data, layer.choice.data, z.data,
                                   mean.data, sums.data, layer.sizes, activation,
                                   threads) == kDone, "gradient sums");
  expect(layer.backward(true, threads, z.data, coefficients.data) == kDone,
         "backward through norm");
}

int main() {
  second_cache = 512 * 1024;
  const Index shapes[][3] = {{0, 8, 8}, {1, 1, 1}, {3, 2, 2}, {2, 5, 3}, {4, 7, 9}, {1, 14, 14},
                             {1, 33, 6}, {5, 4, 4}};
  for (const auto& s : shapes)
    for (int activation = kNone; activation <= kReluPool; activation++)
      for (const int threads : {1, 3}) {
        // One thread takes the same path for all shapes: it does not enter OpenMP.
        if ((activation == kReluPool && s[1] == 1) || (threads == 1 && s[0] != 4)) continue;
        run(s[0], s[1], s[2], 16, 48, activation, threads);
        run(s[0], s[1], s[2], 48, 16, activation, threads);
        if (s[0] > 0) run_norm(s[0], s[1], s[2], 48, activation, threads);
        if (activation != kReluPool)
          for (const Index in : {Index{1}, Index{3}, kMaxDirectInputs})
            run(s[0], s[1], s[2], in, 48, activation, threads);
      }
  // 30 tiles per image: pieces of two rows; 45, in rows of 9: the last piece has a row of 2 outputs.
  for (const auto& c : {std::pair<Index, Index>{48, 16}, {16, 80}}) {
    run_with_caches(1, 18, 22, c.first, c.second, kRelu, 2);
    run_with_caches(1, 18, 34, c.first, c.second, kReluPool, 2);
  }
  // Panels of one vector and of two.
  run(2, 6, 6, 3 * kLanes, 5 * kLanes, kRelu, 2);
  std::printf("%d failures\n", failures);
  return failures != 0;
}
