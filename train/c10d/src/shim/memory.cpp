// How much memory tensors take: a counting allocator for the CPU, and the caching allocator's own
// figures for other devices.
#include <algorithm>
#include <atomic>
#include <cstdint>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>

#include "shim.h"

namespace {

// libtorch's CPU allocator with a count of the bytes asked for. A block's size stands before it, in
// as many bytes as libtorch aligns to (c10::gAlignment), since freeing is told only the address.
class Counting final : public c10::Allocator {
 public:
  explicit Counting(c10::Allocator* base) : base_(base) {}

  at::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) {
      return base_->allocate(0);
    }
    char* block = static_cast<char*>(base_->raw_allocate(bytes + kHeader));
    *reinterpret_cast<size_t*>(block) = bytes;
    size_t now = allocated_.fetch_add(bytes, std::memory_order_relaxed) + bytes;
    size_t peak = peak_.load(std::memory_order_relaxed);
    while (now > peak && !peak_.compare_exchange_weak(peak, now, std::memory_order_relaxed)) {
    }
    char* data = block + kHeader;
    return {data, data, &Counting::release, at::Device(at::kCPU)};
  }

  at::DeleterFnPtr raw_deleter() const override {
    return &Counting::release;
  }

  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  size_t allocated() const {
    return allocated_.load(std::memory_order_relaxed);
  }

  size_t peak() const {
    return peak_.load(std::memory_order_relaxed);
  }

  void reset_peak() {
    peak_.store(allocated(), std::memory_order_relaxed);
  }

  // The process's one, made at the first call and never freed: tensors outlive all else.
  static Counting& instance() {
    static Counting* one = new Counting(c10::GetCPUAllocator());
    return *one;
  }

 private:
  static constexpr size_t kHeader = std::max<size_t>(c10::gAlignment, sizeof(size_t));

  static void release(void* data) {
    if (data == nullptr) {
      return;
    }
    char* block = static_cast<char*>(data) - kHeader;
    instance().allocated_.fetch_sub(*reinterpret_cast<size_t*>(block), std::memory_order_relaxed);
    instance().base_->raw_deallocate(block);
  }

  c10::Allocator* const base_;
  std::atomic<size_t> allocated_{0};
  std::atomic<size_t> peak_{0};
};

size_t bytes(const c10::CachingAllocator::StatArray& stat, bool peak) {
  const auto& total = stat[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
  return static_cast<size_t>(std::max<int64_t>(peak ? total.peak : total.current, 0));
}

// libtorch itself throws when no library brought an allocator for CUDA.
c10::DeviceAllocator& cuda() {
  return *c10::getDeviceAllocator(at::kCUDA);
}

} // namespace

extern "C" {

void s1_count_cpu() {
  constexpr uint8_t above_the_default = 1;
  c10::SetCPUAllocator(&Counting::instance(), above_the_default);
}

void s1_keep_freed() {
#ifdef __GLIBC__
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
  mallopt(M_TOP_PAD, 64 << 20);
#endif
}

void s1_cpu_memory(size_t* allocated, size_t* peak) {
  *allocated = Counting::instance().allocated();
  *peak = Counting::instance().peak();
}

void s1_reset_cpu_peak() {
  Counting::instance().reset_peak();
}

// `available`: what the device has free, and what the caching allocator holds without using it.
char* s1_cuda_memory(int device, size_t* allocated, size_t* peak, size_t* available) {
  return guarded([&] {
    auto stats = cuda().getDeviceStats(device);
    *allocated = bytes(stats.allocated_bytes, false);
    *peak = bytes(stats.allocated_bytes, true);
    size_t reserved = bytes(stats.reserved_bytes, false);
    *available = cuda().getMemoryInfo(device).first + reserved - std::min(reserved, *allocated);
  });
}

char* s1_reset_cuda_peak(int device) {
  return guarded([&] { cuda().resetPeakStats(device); });
}

} // extern "C"
