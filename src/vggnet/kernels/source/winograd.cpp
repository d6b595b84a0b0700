// 3 x 3 convolutions with stride 1 and padding 1 for training on a CPU, with Winograd's
// F(4 x 4, 3 x 3): forward, backward-data and backward-weights, fused with what follows a
// convolution of a VGG (bias, ReLU, 2 x 2 max pool). float32, channels last; channels are multiples
// of kLanes.
//
// Each pass transforms a block of tiles to points (transforms.h), multiplies matrices at each of
// the 36 points (products.h), and transforms back. Blocks are so small that the points, 2.25 times
// the data, never reach main memory. Where blocks only need products, their size depends on the L2
// cache. Where the filters' gradients are summed over tiles, it is the same on all processors,
// because the order of a sum determines its rounding.
//
// Functions return kDone, kNoMemory, or kNotFinite if a result is or may be NaN or infinite;
// moments and sums of gradients are not checked. Winograd's sums mix the pixels of a tile, so one
// NaN would spread over 16 outputs, and infinity would become NaN. They are never lost, though:
// where the direct sum is not finite, neither is Winograd's. The caller then repeats the whole
// call with torch.

#include <algorithm>
#include <atomic>

#include "activation.h"
#include "direct.h"
#include "filters.h"
#include "normalization.h"
#include "parallel.h"
#include "prefetch.h"

namespace {

enum Status { kDone = 0, kNotFinite = 1, kNoMemory = -1 };

// Tiles per block, by the larger number of channels.
Index block_capacity(Index channels) { return channels <= 32 ? 49 : channels <= 128 ? 32 : 64; }

// Tiles per block where only products are needed: a block of the forward pass, or a piece of one
// in the backward pass. If a group's filters fit into the L2 cache with 16 tiles and their
// products, take as many tiles as fill three quarters of it together, but at least 16. Otherwise
// the filters come from the L3 cache anyway, and are read once for as many tiles as possible.
//
// With 512 KiB (Zen 3, two threads), vgg-mini's forward passes of 32 and 64 channels are 1.11,
// 1.17 and 1.05 times as fast as with `block_capacity`, which was tuned for 1 MiB.
Index product_capacity(Index depth, Index channels) {
  constexpr Index kFewest = 16;
  const Index most = block_capacity(std::max(depth, channels));
  const Index group = std::min(kGroup, channels), filters = depth * group, tile = depth + group;
  const Index cache = second_cache_bytes() / (36 * Index(sizeof(float)));
  if (filters + kFewest * tile > cache) return most;
  return std::clamp((cache / 4 * 3 - filters) / tile, kFewest, most);
}

struct Shape {
  Index images, height, width, in_channels, out_channels;
};

Index tiles_of(const Shape& shape) {
  return shape.images * Axis(shape.height).tiles() * Axis(shape.width).tiles();
}

// ---- blocks of tiles: from pixels to points and back

Planes planes_at(float* start, Index tiles, Index channels) {
  return {start, channels, Planes::plane(tiles, channels)};
}

// The pixels of a block, which are contiguous in memory.
Stretch pixels_of(const Blocks& blocks, const Block& block, const float* images,
                  Index channels) {
  if (!images) return {};
  const Index height = blocks.rows.length, row = blocks.columns.length * channels;
  const Index first = 4 * block.row, last = std::min(height, first + 4 * block.rows);
  return {images + (block.image * height + first) * row,
          ((block.images - 1) * height + last - first) * row};
}

// The pixels of the block after `i`; none if `i` is the last.
Stretch pixels_after(const Blocks& blocks, Index i, const float* images, Index channels) {
  if (i + 1 >= blocks.count) return {};
  return pixels_of(blocks, blocks[i + 1], images, channels);
}

// Points of a block's inputs, read from the images.
void inputs_of_block(const float* images, const Shape& shape, const BlockTiles& tiles,
                     const float* zeros, const Planes& points) {
  const Index channels = points.channels, row_stride = shape.width * channels;
  tiles.each([&](const Tile& tile) {
    const Index row = tile.row - 1, column = tile.column - 1;
    const Pixels image = {images + tile.image * shape.height * row_stride, row_stride, channels};
    with_extents(tile, [&](auto r, auto c) {
      constexpr int kRowsRead = r.value + 2, kColumnsRead = c.value + 2;
      if (row >= 0 && column >= 0 && row + kRowsRead <= shape.height &&
          column + kColumnsRead <= shape.width) {
        const InnerWindow window = {{image.at(row, column), row_stride, channels}};
        transform_inputs<r.value, c.value>(window, channels, points.place(tile));
      } else {
        const EdgeWindow window(image, row, column, shape.height, shape.width, zeros);
        transform_inputs<r.value, c.value>(window, channels, points.place(tile));
      }
    });
  });
}

// Points of a block's output gradients as the inputs of backward-data's convolution.
void gradients_as_inputs(const BorderedBlock& gradients, const BlockTiles& tiles,
                         const Planes& points) {
  tiles.each([&](const Tile& tile) {
    with_extents(tile, [&](auto r, auto c) {
      const InnerWindow window = {gradients.corner(tile)};
      transform_inputs<r.value, c.value>(window, gradients.channels, points.place(tile));
    });
  });
}

// Gradients of a block's points from its output gradients.
void gradients_of_points(const BorderedBlock& gradients, const BlockTiles& tiles,
                         const Planes& points) {
  tiles.each([&](const Tile& tile) {
    with_extents(tile, [&](auto r, auto c) {
      Pixels pixels = gradients.corner(tile);
      pixels.data += pixels.row_stride + pixels.column_stride;
      transform_output_gradients<r.value, c.value>(pixels, gradients.channels,
                                                   points.place(tile));
    });
  });
}

// The outputs of a layer, or the gradients of its inputs.
struct Outputs {
  float* data;
  std::uint8_t* choice;
  const float* bias;
  Activation activation;
  Index height, width, channels;

  void write(const BlockTiles& tiles, const Planes& points, Index first, Index count,
             FiniteCheck& check) const {
    tiles.each([&](const Tile& tile) {
      const Destination to = destination(tile, first);
      const float* b = bias ? bias + first : nullptr;
      with_extents(tile, [&](auto r, auto c) {
        if (activation == kReluPool)
          write_outputs<r.value, c.value, kReluPool>(points.place(tile), count, b, to, check);
        else if (activation == kRelu)
          write_outputs<r.value, c.value, kRelu>(points.place(tile), count, b, to, check);
        else
          write_outputs<r.value, c.value, kNone>(points.place(tile), count, b, to, check);
      });
    });
  }

 private:
  Destination destination(const Tile& tile, Index first) const {
    const Index shrink = activation == kReluPool ? 2 : 1;
    const Index rows = height / shrink, columns = width / shrink;
    const Index at = ((tile.image * rows + tile.row / shrink) * columns + tile.column / shrink) *
                         channels + first;
    return {data + at, choice ? choice + at : nullptr, columns * channels, channels,
            height - tile.row, width - tile.column};
  }
};

// Points of the inputs (tiles, depth) x packed filters -> outputs, one group of channels at a time.
void multiply_and_write(const BlockTiles& tiles, const Planes& inputs, const float* packed,
                        const Planes& products, const Outputs& outputs, FiniteCheck& check,
                        const Prefetch& prefetch) {
  const Index depth = inputs.channels;
  for (Index group = 0; group < outputs.channels; group += kGroup) {
    const Index size = std::min(kGroup, outputs.channels - group);
    for (int i = 0; i < kPoints; i++)
      for (int j = 0; j < kPoints; j++) {
        if (group == 0) prefetch.part(i * kPoints + j, 36);
        multiply(inputs(i, j), tiles.count(i, j), depth,
                 packed + packed_at(depth, group, size, i * kPoints + j, 0), size, products(i, j),
                 kGroup);
      }
    outputs.write(tiles, products, group, size, check);
  }
}

// ---- forward

int forward(const float* images, const Filters<const float>& filters, const Outputs& outputs,
            const Shape& shape, int threads) {
  const Index depth = shape.in_channels;
  const Blocks blocks(shape.images, shape.height, shape.width,
                      product_capacity(depth, shape.out_channels), threads);
  const std::size_t packed_floats = 36 * depth * shape.out_channels;
  const std::size_t input_floats = Planes::floats(blocks.most_tiles(), depth);
  const std::size_t product_floats = Planes::floats(blocks.most_tiles(), kGroup);
  Arena& memory = arena();
  memory.reset(Arena::padded(packed_floats) + Arena::padded(depth) +
               threads * (Arena::padded(input_floats) + Arena::padded(product_floats)));
  float* packed = memory.take(packed_floats);
  float* zeros = memory.take(depth);
  float* scratch = memory.take(0);
  std::fill(zeros, zeros + depth, 0.0f);
  transform_filters(filters, packed, threads);

  std::atomic<int> status{kDone};
  parallel(threads, [&](int thread, int team) {
    float* mine = scratch + thread * (Arena::padded(input_floats) + Arena::padded(product_floats));
    const Planes inputs = planes_at(mine, blocks.most_tiles(), depth);
    const Planes products =
        planes_at(mine + Arena::padded(input_floats), blocks.most_tiles(), kGroup);
    FiniteCheck check;
    const Range range = share(blocks.count, thread, team);
    for (Index b = range.begin; b < range.end; b++) {
      const BlockTiles tiles(blocks, blocks[b]);
      inputs_of_block(images, shape, tiles, zeros, inputs);
      const bool pooled = outputs.activation == kReluPool;  // too few to prefetch
      multiply_and_write(tiles, inputs, packed, products, outputs, check,
                         {pixels_after(blocks, b, images, depth),
                          pixels_of(blocks, tiles.block, pooled ? nullptr : outputs.data,
                                    outputs.channels)});
    }
    if (check.failed()) status = kNotFinite;
  });
  return status;
}

// ---- backward

// Minimum tiles per thread. Each thread has 36 * in * out sums, which it zeroes first and which are
// added up at the end, while each tile adds to all of them once. With one tile each, 64 threads
// would move 2.4 GB for 64 tiles of a layer with 512 channels. (Calculated, not measured.)
constexpr Index kTilesWorthSums = 16;

// Sizes of one thread's scratch memory in the backward pass.
struct BackwardScratch {
  std::size_t gradient_floats, point_floats, gradient_point_floats, product_floats, sum_floats;

  BackwardScratch(const Blocks& blocks, const Shape& shape, bool weights)
      : gradient_floats(Arena::padded(BorderedBlock::floats(blocks, shape.out_channels))),
        point_floats(Arena::padded(Planes::floats(
            blocks.most_tiles(), std::max(shape.in_channels, shape.out_channels)))),
        gradient_point_floats(
            Arena::padded(Planes::floats(blocks.most_tiles(), shape.out_channels))),
        product_floats(Arena::padded(Planes::floats(blocks.most_tiles(), kGroup))),
        sum_floats(weights ? Arena::padded((36 * shape.in_channels + 1) * shape.out_channels)
                           : 0) {}

  std::size_t floats() const {
    return gradient_floats + point_floats + gradient_point_floats + product_floats + sum_floats;
  }
};

struct BackwardPass {
  const float* images;
  OutputGradients gradients;
  Filters<const float> filters;
  float* image_gradients;           // null if not wanted
  Filters<float> filter_gradients;  // data is null if not wanted
  float* bias_gradients;
  Shape shape;

  int run(int threads) const;

 private:
  void add_filter_gradients(const BlockTiles& tiles, const Planes& points,
                            const Planes& gradient_points, float* sums,
                            const Prefetch& prefetch) const;
  int reduce(const float* const* sums, int parts, int threads) const;
};

// sums (36, in, out) += points^T gradient_points, followed by the sums for the bias (out).
void BackwardPass::add_filter_gradients(const BlockTiles& tiles, const Planes& points,
                                        const Planes& gradient_points, float* sums,
                                        const Prefetch& prefetch) const {
  const Index in = shape.in_channels, out = shape.out_channels;
  for (int i = 0; i < kPoints; i++)
    for (int j = 0; j < kPoints; j++) {
      prefetch.part(i * kPoints + j, 36);
      accumulate(points(i, j), in, gradient_points(i, j), out, tiles.count(i, j),
                 sums + (i * kPoints + j) * in * out);
    }
  // The point at 1 along both axes is the sum of the tile's gradients.
  float* bias_sums = sums + 36 * in * out;
  for (Index c = 0; c < out; c += kLanes) {
    Vec sum = {};
    for (Index t = 0; t < tiles.count(); t++) sum += load(gradient_points(1, 1) + t * out + c);
    store(bias_sums + c, load(bias_sums + c) + sum);
  }
}

// The threads' sums, added in order of their numbers -> gradients of filters and bias.
int BackwardPass::reduce(const float* const* sums, int parts, int threads) const {
  const Index in = shape.in_channels, out = shape.out_channels;
  std::atomic<int> status{kDone};
  parallel(threads, [&](int thread, int team) {
    FiniteCheck check;
    const Range vectors = share(out / kLanes * in, thread, team);
    for (Index v = vectors.begin; v < vectors.end; v++)
      write_filter_gradient(sums, parts, filter_gradients, v / in * kLanes, v % in, check);
    if (thread == 0)
      for (Index c = 0; c < out; c += kLanes) {
        Vec sum = {};
        for (int part = 0; part < parts; part++) sum += load(sums[part] + 36 * in * out + c);
        check.see(sum);
        store(bias_gradients + c, sum);
      }
    if (check.failed()) status = kNotFinite;
  });
  return status;
}

int BackwardPass::run(int all_threads) const {
  const Index in = shape.in_channels, out = shape.out_channels;
  const bool weights = filter_gradients.data != nullptr;
  const Index worth = weights ? tiles_of(shape) / kTilesWorthSums : all_threads;
  const int threads = static_cast<int>(std::clamp<Index>(worth, 1, all_threads));
  const Blocks blocks(shape.images, shape.height, shape.width, block_capacity(std::max(in, out)),
                      threads);
  const BackwardScratch sizes(blocks, shape, weights);
  const std::size_t packed_floats = image_gradients ? 36 * in * out : 0;
  Arena& memory = arena();
  memory.reset(Arena::padded(packed_floats) + Arena::padded(in) +
               Arena::padded(threads * sizeof(float*)) + threads * sizes.floats());
  float* packed = memory.take(packed_floats);
  float* zeros = memory.take(in);
  auto** sums = reinterpret_cast<const float**>(memory.take(threads * sizeof(float*)));
  float* scratch = memory.take(0);
  std::fill(zeros, zeros + in, 0.0f);
  if (image_gradients) transform_filters(filters.adjoint(), packed, all_threads);

  const Outputs inputs_gradient = {image_gradients, nullptr, nullptr, kNone,
                                   shape.height, shape.width, in};
  const Index most_tiles = blocks.most_tiles(), piece_capacity = product_capacity(out, in);
  std::atomic<int> status{kDone};
  int parts = 1;
  parallel(threads, [&](int thread, int team) {
    if (thread == 0) parts = team;
    float* mine = scratch + thread * sizes.floats();
    float* points = mine + sizes.gradient_floats;
    float* gradient_points = points + sizes.point_floats;
    float* products = gradient_points + sizes.gradient_point_floats;
    float* sum = products + sizes.product_floats;
    sums[thread] = sum;
    std::fill(sum, sum + sizes.sum_floats, 0.0f);
    FiniteCheck check;
    // Pooled gradients are a quarter of the size, and arrive in time without prefetching.
    const bool pooled = gradients.activation == kReluPool;
    const float* whole_gradients = pooled ? nullptr : gradients.gradients;
    const float* activations = gradients.activation == kRelu ? gradients.activations : nullptr;
    const Range range = share(blocks.count, thread, team);
    for (Index b = range.begin; b < range.end; b++) {
      const BlockTiles tiles(blocks, blocks[b]);
      BorderedBlock bordered(mine, tiles, out);
      bordered.fill(gradients);
      if (weights) {
        const Planes input_points = planes_at(points, most_tiles, in);
        const Planes output_points = planes_at(gradient_points, most_tiles, out);
        inputs_of_block(images, shape, tiles, zeros, input_points);
        gradients_of_points(bordered, tiles, output_points);
        add_filter_gradients(tiles, input_points, output_points, sum,
                             {pixels_after(blocks, b, images, in),
                              pixels_after(blocks, b, activations, out)});
      }
      if (image_gradients) {
        Stretch next = pixels_after(blocks, b, whole_gradients, out);
        blocks.each_piece(tiles.block, piece_capacity, [&](const Block& piece) {
          const BlockTiles part(blocks, piece);
          const Planes input_points = planes_at(points, part.count(), out);
          gradients_as_inputs(bordered, part, input_points);
          multiply_and_write(part, input_points, packed, planes_at(products, part.count(), kGroup),
                             inputs_gradient, check,
                             {next, pixels_of(blocks, piece, image_gradients, in)});
          next = {};
        });
      }
    }
    if (check.failed()) status = kNotFinite;
  });
  if (weights && reduce(sums, parts, all_threads) != kDone) status = kNotFinite;
  return status;
}

// ---- the first layer

// (out, in, 3, 3) -> (3, 3, in, out)
void pack_direct_filters(const Filters<const float>& filters, float* packed) {
  for (int a = 0; a < 3; a++)
    for (int b = 0; b < 3; b++)
      for (Index in = 0; in < filters.in_channels; in++)
        for (Index out = 0; out < filters.out_channels; out++)
          *packed++ = *filters.at(out, in, a, b);
}

int direct_forward(const Images& images, const Filters<const float>& filters, const float* bias,
                   bool clip, float* outputs, int threads) {
  const Index in = images.channels, out = filters.out_channels;
  const std::size_t image_floats = Arena::padded(BorderedImage::floats(images));
  Arena& memory = arena();
  memory.reset(Arena::padded(9 * in * out) + threads * image_floats);
  float* packed = memory.take(9 * in * out);
  float* scratch = memory.take(0);
  pack_direct_filters(filters, packed);
  std::atomic<int> status{kDone};
  parallel(threads, [&](int thread, int team) {
    FiniteCheck check;
    const Range mine = share(images.count, thread, team);
    for (Index n = mine.begin; n < mine.end; n++) {
      const BorderedImage image(scratch + thread * image_floats, images, n);
      for (Index r = 0; r < images.height; r++) {
        const float* window = image.data + r * image.row_stride;
        float* row = outputs + (n * images.height + r) * images.width * out;
        Index c = 0;
        for (; c + kPanel <= out; c += kPanel)
          direct_row<2>(window, image.row_stride, in, packed + c, out, bias ? bias + c : nullptr,
                        images.width, out, clip, row + c, check);
        if (c < out)
          direct_row<1>(window, image.row_stride, in, packed + c, out, bias ? bias + c : nullptr,
                        images.width, out, clip, row + c, check);
      }
    }
    if (check.failed()) status = kNotFinite;
  });
  return status;
}

// Each thread's sums (in, 10, out) -> gradients of filters and bias.
int reduce_direct(const float* sums, Index stride, int parts, const Filters<float>& gradients,
                  float* bias_gradients) {
  const Index in = gradients.in_channels, out = gradients.out_channels;
  FiniteCheck check;
  for (Index k = 0; k < in; k++)
    for (int tap = 0; tap < 10; tap++)
      for (Index c = 0; c < out; c += kLanes) {
        Vec sum = {};
        for (int part = 0; part < parts; part++)
          sum += load(sums + part * stride + (k * 10 + tap) * out + c);
        check.see(sum);
        if (tap < 9)
          for (int lane = 0; lane < kLanes; lane++)
            *gradients.at(c + lane, k, tap / 3, tap % 3) = sum[lane];
        else if (k == 0)
          store(bias_gradients + c, sum);
      }
  return check.failed() ? kNotFinite : kDone;
}

int direct_backward(const Images& images, const OutputGradients& gradients,
                    const Filters<float>& filter_gradients, float* bias_gradients, int threads) {
  const Index in = images.channels, out = gradients.channels;
  const std::size_t image_floats = Arena::padded(BorderedImage::floats(images));
  const std::size_t row_floats = Arena::padded(images.width * out);
  const std::size_t sum_floats = Arena::padded(10 * in * out);
  Arena& memory = arena();
  memory.reset(threads * (image_floats + row_floats + sum_floats));
  float* sums = memory.take(threads * sum_floats);
  float* scratch = memory.take(0);
  int parts = 1;
  parallel(threads, [&](int thread, int team) {
    if (thread == 0) parts = team;
    float* row = scratch + thread * (image_floats + row_floats) + image_floats;
    float* sum = sums + thread * sum_floats;
    std::fill(sum, sum + sum_floats, 0.0f);
    const Range mine = share(images.count, thread, team);
    for (Index n = mine.begin; n < mine.end; n++) {
      const BorderedImage image(scratch + thread * (image_floats + row_floats), images, n);
      for (Index r = 0; r < images.height; r++) {
        gradients.write_row(n, r, row);
        const float* window = image.data + r * image.row_stride;
        for (Index k = 0; k < in; k++)
          for (Index c = 0; c < out; c += kLanes) {
            Vec taps[10];
            UNROLL for (int t = 0; t < 10; t++) taps[t] = load(sum + (k * 10 + t) * out + c);
            direct_row_gradients(window + k, image.row_stride, in, row + c, out, images.width,
                                 taps);
            UNROLL for (int t = 0; t < 10; t++) store(sum + (k * 10 + t) * out + c, taps[t]);
          }
      }
    }
  });
  return reduce_direct(sums, sum_floats, parts, filter_gradients, bias_gradients);
}

template <class Float>
Filters<Float> filters_of(Float* data, const Index* strides, const Shape& shape) {
  return {data, shape.out_channels, shape.in_channels, strides[0], strides[1], strides[2],
          strides[3]};
}

Images images_of(const float* data, const Index* strides, const Shape& shape) {
  return {data, shape.images, shape.in_channels, shape.height, shape.width, strides[0],
          strides[1], strides[2], strides[3]};
}

template <class Body>
int guarded(const Body& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return kNoMemory;
  }
}

}  // namespace

// ---- exported functions: plain C, independent of torch's headers and C++ ABI
//
// Tensors are channels last, but `images` may have any layout for a first layer of at most
// kMaxDirectInputs channels. `sizes` is (images, height, width, in, out). Strides are in floats,
// of images (image, channel, row, column) and of filters (out, in, row, column). Pointers to
// unwanted results are null.

#pragma GCC visibility push(default)
extern "C" {

int vggnet_forward(const float* images, const Index* image_strides, const float* filters,
                   const Index* filter_strides, const float* bias, float* outputs,
                   std::uint8_t* choice, const Index* sizes, int activation, int threads) {
  return guarded([&] {
    const Shape shape = {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]};
    const Filters<const float> bank = filters_of(filters, filter_strides, shape);
    const auto kind = static_cast<Activation>(activation);
    if (shape.in_channels <= kMaxDirectInputs)
      return direct_forward(images_of(images, image_strides, shape), bank, bias, kind == kRelu,
                            outputs, threads);
    return forward(images, bank,
                   {outputs, choice, bias, kind, shape.height, shape.width, shape.out_channels},
                   shape, threads);
  });
}

// `image_gradients` is ignored for a first layer of at most kMaxDirectInputs channels.
int vggnet_backward(const float* images, const Index* image_strides, const float* filters,
                    const Index* filter_strides, const float* gradients, const float* activations,
                    const std::uint8_t* choice, float* image_gradients, float* filter_gradients,
                    const Index* filter_gradient_strides, float* bias_gradients,
                    const float* norm_outputs, const float* norm_coefficients,
                    const Index* sizes, int activation, int threads) {
  return guarded([&] {
    const Shape shape = {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]};
    const OutputGradients of_outputs = {
        gradients, activations, choice, static_cast<Activation>(activation), shape.height,
        shape.width, shape.out_channels, {norm_outputs, norm_coefficients}};
    const Filters<float> of_filters =
        filters_of(filter_gradients, filter_gradient_strides, shape);
    if (shape.in_channels <= kMaxDirectInputs)
      return direct_backward(images_of(images, image_strides, shape), of_outputs, of_filters,
                             bias_gradients, threads);
    const BackwardPass pass = {images, of_outputs, filters_of(filters, filter_strides, shape),
                               image_gradients, of_filters, bias_gradients, shape};
    return pass.run(threads);
  });
}

// Mean and biased variance of each channel.
int vggnet_moments(const float* values, float* mean, float* variance, const Index* sizes,
                   int threads) {
  return guarded([&] {
    channel_moments(values, sizes[0] * sizes[1] * sizes[2], sizes[4], mean, variance, threads);
    return kDone;
  });
}

int vggnet_normalize(const float* values, const float* scale, const float* shift, float* outputs,
                     std::uint8_t* choice, const Index* sizes, int activation, int threads) {
  return guarded([&] {
    const Normalization norm = {values, scale, shift, sizes[1], sizes[2], sizes[4]};
    return normalize(norm, sizes[0], static_cast<Activation>(activation), outputs, choice, threads)
               ? kDone
               : kNotFinite;
  });
}

// Sums of the gradients of batch norm's outputs, and of their products with z - mean.
int vggnet_norm_gradient_sums(const float* gradients, const float* activations,
                              const std::uint8_t* choice, const float* values, const float* mean,
                              float* sums, const Index* sizes, int activation, int threads) {
  return guarded([&] {
    const OutputGradients from = {gradients, activations, choice,
                                  static_cast<Activation>(activation), sizes[1], sizes[2],
                                  sizes[4], {nullptr, nullptr}};
    norm_gradient_sums(from, values, mean, sizes[0], sums, threads);
    return kDone;
  });
}

}  // extern "C"
#pragma GCC visibility pop
