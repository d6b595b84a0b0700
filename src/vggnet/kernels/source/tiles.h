// How images are divided into tiles, how tiles form blocks, and where points are in memory.
#pragma once

#include <algorithm>

#include "parallel.h"
#include "transforms.h"

// One axis of an image: tiles of 4 outputs, and a last tile of 2 if 1 or 2 outputs remain
// (14 = 4 + 4 + 4 + 2; 7 = 4 + 4 with one unused output; 5 = 4 + 2 with one unused output).
struct Axis {
  Index length;

  explicit Axis(Index n) : length(n) {}

  Index fours() const { return (length + 1) / 4; }
  Index twos() const { return length % 4 == 1 || length % 4 == 2; }
  Index tiles() const { return fours() + twos(); }
  // Outputs that the tiles compute, including unused ones outside the image.
  Index covered() const { return 4 * fours() + 2 * twos(); }
};

// Tiles that one thread transforms together: enough rows for efficient products, few enough that
// the points stay in its cache. Either several whole images, or some rows of tiles of one image.
struct Block {
  Index image, images;
  Index row, rows;  // rows of tiles
};

struct Tile {
  Index image, row, column;  // of its first output, in pixels
  bool tall, wide;           // whether it has 4 outputs along each axis; otherwise 2
  Index slot, wide_slot;     // its position among all tiles and among the wide ones
};

// Divides `images` into blocks of at most about `capacity` tiles. The number of whole-image blocks
// is a multiple of the number of threads.
struct Blocks {
  Axis rows, columns;
  Index images, per_image, count, most_images, most_rows;

  Blocks(Index images_, Index height, Index width, Index capacity, int threads)
      : rows(height), columns(width), images(images_) {
    const Index tiles = rows.tiles() * columns.tiles();
    if (tiles > capacity) {
      const Index fitting = std::max<Index>(1, capacity / columns.tiles());
      per_image = (rows.tiles() + fitting - 1) / fitting;
      count = images * per_image;
      most_images = 1;
    } else {
      const Index fitting = capacity / tiles * threads;
      per_image = 1;
      count = std::min(images, (images + fitting - 1) / fitting * threads);
      most_images = count ? (images + count - 1) / count : 0;
    }
    most_rows = (rows.tiles() + per_image - 1) / per_image;
  }

  Index most_tiles() const { return most_images * most_rows * columns.tiles(); }

  Block operator[](Index i) const {
    if (per_image == 1) {
      const Index first = images * i / count;
      return {first, images * (i + 1) / count - first, 0, rows.tiles()};
    }
    const Index part = i % per_image, first = rows.tiles() * part / per_image;
    return {i / per_image, 1, first, rows.tiles() * (part + 1) / per_image - first};
  }

  // Visits pieces of a block with at most about `capacity` tiles: whole images or rows of one.
  template <class Visit>
  void each_piece(const Block& block, Index capacity, const Visit& visit) const {
    const Index fitting = std::max<Index>(1, capacity / columns.tiles());
    const Index images_each = std::max<Index>(1, fitting / block.rows);
    const int parts = static_cast<int>((block.rows + fitting - 1) / fitting);
    for (Index q = 0; q < block.images; q += images_each)
      for (int part = 0; part < parts; part++) {
        const Range of_rows = share(block.rows, part, parts);
        visit(Block{block.image + q, std::min(images_each, block.images - q),
                    block.row + of_rows.begin, of_rows.end - of_rows.begin});
      }
  }
};

// The tiles of a block, ordered so that the tiles that use a point are contiguous.
//
// A tile with 2 outputs along an axis does not use the points 2 and -2 of that axis. The order is:
// (1) tall and wide tiles, (2) other tall ones, (3) other wide ones, (4) the rest. All use a point
// (i, j) without +-2; kinds 1 and 2 use i = +-2; kinds 1 and 3 use j = +-2. The last two are
// contiguous only in a second numbering without kind 2, `wide_slot`.
struct BlockTiles {
  const Blocks& blocks;
  Block block;
  Index tall, low, wide, narrow;  // rows of tiles of 4 and 2; columns of tiles of 4 and 2

  BlockTiles(const Blocks& blocks_, Block block_) : blocks(blocks_), block(block_) {
    const bool ends = block.row + block.rows == blocks.rows.tiles();
    low = ends ? blocks.rows.twos() : 0;
    tall = block.rows - low;
    wide = blocks.columns.fours();
    narrow = blocks.columns.twos();
  }

  Index count() const { return block.images * (tall + low) * (wide + narrow); }

  // How many tiles use the point (i, j).
  Index count(int i, int j) const {
    const Index rows = has_point<2>(i) ? tall + low : tall;
    const Index columns = has_point<2>(j) ? wide + narrow : wide;
    return block.images * rows * columns;
  }

  template <class Visit>
  void each(const Visit& visit) const {
    for (Index q = 0; q < block.images; q++)
      for (Index r = 0; r < tall + low; r++)
        for (Index c = 0; c < wide + narrow; c++) visit(tile(q, r, c));
  }

 private:
  Tile tile(Index q, Index r, Index c) const {
    const bool is_tall = r < tall, is_wide = c < wide;
    const Index tall_wide = block.images * tall * wide, tall_narrow = block.images * tall * narrow;
    const Index low_wide = block.images * low * wide;
    Index slot, wide_slot = 0;
    if (is_tall && is_wide)
      slot = wide_slot = (q * tall + r) * wide + c;
    else if (is_tall)
      slot = tall_wide + q * tall + r;
    else if (is_wide) {
      wide_slot = tall_wide + q * wide + c;
      slot = tall_narrow + wide_slot;
    } else
      slot = tall_wide + tall_narrow + low_wide + q;
    return {block.image + q, 4 * (block.row + r), 4 * c, is_tall, is_wide, slot, wide_slot};
  }
};

// Calls `body(Constant<rows>, Constant<columns>)` with the tile's size.
template <class Body>
INLINE void with_extents(const Tile& tile, const Body& body) {
  if (tile.tall && tile.wide)
    body(Constant<4>{}, Constant<4>{});
  else if (tile.tall)
    body(Constant<4>{}, Constant<2>{});
  else if (tile.wide)
    body(Constant<2>{}, Constant<4>{});
  else
    body(Constant<2>{}, Constant<2>{});
}

// The points of a block's tiles: 36 planes, each (tile, channel) in row-major order.
//
// A plane is padded by a cache line: a tile writes to the same place in all 36, and with a stride
// of a multiple of 4096 bytes these would share one set of the L1 cache.
struct Planes {
  float* start;
  Index channels, stride;

  static constexpr Index kSkew = 16;

  static Index plane(Index tiles, Index channels) { return tiles * channels + kSkew; }
  static Index floats(Index tiles, Index channels) { return 36 * plane(tiles, channels); }

  float* operator()(int i, int j) const { return start + (i * kPoints + j) * stride; }

  // Where the points of one tile are: `any` for the columns that all tiles use, or `wide`.
  struct Place {
    float *any, *wide;
    Index stride;

    INLINE float* operator()(int i, int j) const {
      return (has_point<2>(j) ? any : wide) + (i * kPoints + j) * stride;
    }
  };

  Place place(const Tile& tile) const {
    return {start + tile.slot * channels, start + tile.wide_slot * channels, stride};
  }
};
