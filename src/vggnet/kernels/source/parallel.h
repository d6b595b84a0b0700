// Threads, cache size and scratch memory. Only this file uses OpenMP and the operating system.
#pragma once

#ifdef __APPLE__
#include <dispatch/dispatch.h>  // Apple's compiler has no OpenMP
#else
#include <omp.h>
#endif
#include <unistd.h>

#include <cstdlib>
#include <new>

#include "vector.h"

// Calls body(thread, threads) on every thread of a team. A single thread does not enter OpenMP:
// in a forked child, for which the caller requests one thread, GNU's runtime would wait forever
// for the parent's threads. On macOS a thread may do the work of several, one after the other.
template <class Body>
void parallel(int threads, const Body& body) {
  if (threads <= 1) {
    body(0, 1);
    return;
  }
#ifdef __APPLE__
  struct Team {
    const Body& body;
    int threads;
  } team{body, threads};
  dispatch_apply_f(threads, DISPATCH_APPLY_AUTO, &team, [](void* context, std::size_t thread) {
    const Team& team = *static_cast<Team*>(context);
    team.body(static_cast<int>(thread), team.threads);
  });
#else
#pragma omp parallel num_threads(threads)
  body(omp_get_thread_num(), omp_get_num_threads());
#endif
}

// Size of a core's L2 cache in bytes; 1 MiB if the system does not report it. Tests override it.
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

// This thread's part of [0, count). It is contiguous and depends on the arguments alone, so sums
// are computed in the same order in every run.
INLINE Range share(Index count, int thread, int threads) {
  return {count * thread / threads, count * (thread + 1) / threads};
}

// Scratch memory that the calling thread keeps between calls; otherwise the operating system would
// map and zero its pages at each call. Each Python thread has its own, so calls may overlap.
class Arena {
 public:
  ~Arena() { std::free(memory_); }

  // Starts a call that takes at most `floats` in total; throws std::bad_alloc.
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

  // The number that take(floats) uses: whole cache lines.
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
