// A vector of floats with the width of the processor's registers.
//
// The vector extension of GCC and clang provides + - * and comparisons for any width, so the same
// source without intrinsics works for AVX2 (8 lanes), AVX-512 (16) and NEON (4). With
// -ffp-contract=fast, `a * b + c` becomes one fused multiply-add. Never compile it with
// -ffast-math, which assumes that there is no NaN and disables denormals in the whole process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#ifndef VGGNET_LANES
#error "compile with -DVGGNET_LANES=4, 8 or 16"
#endif

#define INLINE inline __attribute__((always_inline))
// For large kernels: inlined into the caller's loop, they need too many registers and compile for
// minutes.
#define OUTLINE __attribute__((noinline))
// Loops over arrays of vectors must be unrolled, or the arrays do not stay in registers.
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

// The compiler removes this subtraction, since x - 0 is x for every x, NaN and -0 included. It
// could not remove x + 0.
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
  // GCC 12 converts lane by lane for AVX2, but needs only four instructions to shuffle: forward
  // passes with pool are 1.03 to 1.05 times as fast.
  typedef std::uint8_t Bytes __attribute__((vector_size(sizeof(IntVec))));
  Bytes low = {};
  for (int lane = 0; lane < kLanes; lane++) low[lane] = static_cast<std::uint8_t>(4 * lane);
  const Bytes bytes = __builtin_shuffle(reinterpret_cast<Bytes>(v), low);
#endif
  std::memcpy(to, &bytes, kLanes);
}

// Detects NaN and infinity with one multiply-add per vector: 0 * x is 0 for finite x and NaN
// otherwise, and a sum that contains a NaN is NaN.
//
// Each multiply-add waits for the one before. Kernels with many results therefore pass sums of
// them, which are not finite if one result is not: checking each result of the first layer took
// 1.3 times as long (Zen 3). A sum that overflows is a false alarm and costs only time.
struct FiniteCheck {
  Vec sum = Vec{};

  INLINE void see(Vec v) { sum = v * 0.0f + sum; }

  bool failed() const {
    for (int lane = 0; lane < kLanes; lane++)
      if (sum[lane] != 0.0f) return true;
    return false;
  }
};
