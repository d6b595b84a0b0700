// Threads, caches and scratch memory: the only place that knows of OpenMP and of the system.
#pragma once

#include <omp.h>
#include <unistd.h>

#include <cstdlib>
#include <new>

#include "vector.h"

// Calls body(thread, threads) on every thread of a team. One thread never enters OpenMP: in a
// forked child GNU's runtime waits for ever for the parent's threads, so the caller asks for one.
template <class Body>
void parallel(int threads, const Body& body) {
  if (threads <= 1) {
    body(0, 1);
    return;
  }
#pragma omp parallel num_threads(threads)
  body(omp_get_thread_num(), omp_get_num_threads());
}

// Bytes of a core's second cache; 1 MiB where the system does not tell. Tests pretend others.
inline Index second_cache_bytes() {
#ifdef VGGNET_SECOND_CACHE
  return VGGNET_SECOND_CACHE;
#endif
#ifdef _SC_LEVEL2_CACHE_SIZE
  static const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  if (bytes > 0) return bytes;
#endif
  return Index{1} << 20;
}

struct Range {
  Index begin, end;
};

// The part of [0, count) that is this thread's: contiguous and fixed by the numbers alone, so
// that sums are taken in the same order in every run.
INLINE Range share(Index count, int thread, int threads) {
  return {count * thread / threads, count * (thread + 1) / threads};
}

// Scratch memory that the calling thread keeps between calls: given back and mapped anew, its
// pages would have to be zeroed by the kernel at each call. Each Python thread has its own, so
// calls may overlap.
class Arena {
 public:
  ~Arena() { std::free(memory_); }

  // Starts a new call that takes at most `floats` in all; throws std::bad_alloc.
  void reset(std::size_t floats) {
    used_ = 0;
    if (floats <= capacity_) return;
    std::free(memory_);
    capacity_ = 0;
    memory_ = static_cast<float*>(std::aligned_alloc(kPage, bytes(floats)));
    if (!memory_) throw std::bad_alloc();
    capacity_ = floats;
  }

  float* take(std::size_t floats) {
    float* start = memory_ + used_;
    used_ += padded(floats);
    return start;
  }

  // What take(floats) uses up: whole cache lines.
  static std::size_t padded(std::size_t floats) { return (floats + 15) / 16 * 16; }

 private:
  static constexpr std::size_t kPage = 4096;

  static std::size_t bytes(std::size_t floats) {
    return (floats * sizeof(float) + kPage - 1) / kPage * kPage;
  }

  float* memory_ = nullptr;
  std::size_t capacity_ = 0, used_ = 0;
};

inline Arena& arena() {
  static thread_local Arena instance;
  return instance;
}
