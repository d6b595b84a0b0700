// A vector of floats, as wide as the machine's registers.
//
// GCC's and clang's vector extension gives + - * and comparisons on any width, so the same
// source serves AVX2 (8 lanes), AVX-512 (16) and, untried, NEON (4): no intrinsics anywhere.
// `a * b + c` becomes one fused multiply-add through -ffp-contract=fast, which fuses and does
// nothing else; -ffast-math must never come near this code, it lets the compiler assume that
// no NaN exists and rounds denormals to zero in the whole process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifndef VGGNET_LANES
#error "compile with -DVGGNET_LANES=8 or 16"
#endif

#define INLINE inline __attribute__((always_inline))
// One copy of a large kernel per shape of tile: inlined into its caller's loop, the compiler
// runs out of registers and compiles for minutes.
#define OUTLINE __attribute__((noinline))
// Short loops over registers must be unrolled, or the arrays that they index go to memory.
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

using Index = std::ptrdiff_t;

constexpr int kLanes = VGGNET_LANES;

typedef float Vec __attribute__((vector_size(kLanes * sizeof(float))));
typedef std::int32_t IntVec __attribute__((vector_size(kLanes * sizeof(std::int32_t))));
typedef std::uint8_t ByteVec __attribute__((vector_size(kLanes)));

INLINE Vec load(const float* from) {
  Vec v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

INLINE void store(float* to, Vec v) { std::memcpy(to, &v, sizeof v); }

// x - 0 is x for every x, NaN and -0 included, so the subtraction disappears; x + 0 would not.
INLINE Vec broadcast(float x) { return x - Vec{}; }

INLINE IntVec load_bytes(const std::uint8_t* from) {
  ByteVec bytes;
  std::memcpy(&bytes, from, sizeof bytes);
  return __builtin_convertvector(bytes, IntVec);
}

// The low byte of each number.
INLINE void store_bytes(std::uint8_t* to, IntVec v) {
#if defined(__clang__)
  const ByteVec bytes = __builtin_convertvector(v, ByteVec);
#else
  // GCC 12 converts one lane after the other for AVX2, but shuffles in four instructions: a
  // forward pass with pool is 1.03 to 1.05 times as fast for it.
  typedef std::uint8_t Bytes __attribute__((vector_size(sizeof(IntVec))));
  Bytes low = {};
  for (int lane = 0; lane < kLanes; lane++) low[lane] = static_cast<std::uint8_t>(4 * lane);
  const Bytes bytes = __builtin_shuffle(reinterpret_cast<Bytes>(v), low);
#endif
  std::memcpy(to, &bytes, kLanes);
}

// Remembers whether any value it saw was NaN or infinite, at one multiply-add a vector:
// 0 * x is 0 for every finite x and NaN for the others, and a sum never loses a NaN.
//
// Each multiply-add waits for the one before. A kernel with many results shows it their sums,
// which are not finite if one of them is not: the first layer took 1.3 times as long when it
// showed each (Zen 3). A sum that overflows by itself is a false alarm, which costs time only.
struct FiniteCheck {
  Vec sum = Vec{};

  INLINE void see(Vec v) { sum = v * 0.0f + sum; }

  bool failed() const {
    for (int lane = 0; lane < kLanes; lane++)
      if (sum[lane] != 0.0f) return true;
    return false;
  }
};
