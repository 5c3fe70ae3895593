// The few calls of ATen and autograd that tch lacks.
#include <dlfcn.h>
#include <unistd.h>
#include <string>
#include <vector>

#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/autograd/autograd.h>

#include "shim.h"

namespace {

// The storage behind a tensor, if its memory is libtorch's own and so can be given up and asked
// for again.
c10::StorageImpl& own_storage(const at::Tensor& t) {
  c10::StorageImpl& storage = *t.storage().unsafeGetStorageImpl();
  TORCH_CHECK(
      storage.resizable() && storage.allocator() != nullptr,
      "the memory of this tensor ", t.sizes(), " was lent to libtorch and cannot be released");
  return storage;
}

} // namespace

extern "C" {

// Vector-Jacobian product: results[i] = d(sum of outputs * cotangents) / d inputs[i].
char* s1_vjp(
    void** outputs, void** cotangents, size_t n_out, void** inputs, size_t n_in, void** results) {
  return guarded([&] {
    std::vector<at::Tensor> outs, grads, ins;
    for (size_t i = 0; i < n_out; i++) {
      outs.push_back(tensor(outputs[i]));
      grads.push_back(tensor(cotangents[i]));
    }
    for (size_t i = 0; i < n_in; i++) {
      ins.push_back(tensor(inputs[i]));
    }
    auto found = torch::autograd::grad(outs, ins, grads);
    for (size_t i = 0; i < n_in; i++) {
      results[i] = new at::Tensor(found[i]);
    }
  });
}

// One fused AdamW update of `n` tensors, in place; `step` is the number of this step, from 1.
char* s1_fused_adamw(
    void** params, void** grads, void** m, void** v, size_t n, double step,
    double learning_rate, double beta1, double beta2, double weight_decay, double eps) {
  return guarded([&] {
    if (n == 0) {
      return;
    }
    std::vector<at::Tensor> ps, gs, ms, vs, steps;
    for (size_t i = 0; i < n; i++) {
      ps.push_back(tensor(params[i]));
      gs.push_back(tensor(grads[i]));
      ms.push_back(tensor(m[i]));
      vs.push_back(tensor(v[i]));
      steps.push_back(at::full({}, step, ps[i].options()));
    }
    at::_fused_adamw_(
        ps, gs, ms, vs, {}, steps, learning_rate, beta1, beta2, weight_decay, eps, false, false);
  });
}

// Causal attention within segments of packed tokens, `[tokens, heads, head size]`.
char* s1_attend_segments_flash(
    void* q, void* k, void* v, void* cu_seqlens, int64_t longest, void** output) {
  return guarded([&] {
    constexpr double no_dropout = 0.0;
    constexpr bool causal = true, debug_mask = false;
    const at::Tensor& ends = tensor(cu_seqlens);
    auto found = at::_flash_attention_forward(
        tensor(q), tensor(k), tensor(v), ends, ends, longest, longest, no_dropout, causal,
        debug_mask);
    *output = new at::Tensor(std::get<0>(found));
  });
}

bool s1_is_released(void* t) {
  const c10::Storage& storage = tensor(t).storage();
  return storage.nbytes() > 0 && storage.data() == nullptr;
}

// Gives the memory back and leaves the storage, with its size, to the tensors that refer to it.
char* s1_release_storage(void* t) {
  return guarded([&] {
    c10::StorageImpl& storage = own_storage(tensor(t));
    storage.set_data_ptr_noswap(at::DataPtr(nullptr, tensor(t).device()));
  });
}

char* s1_restore_storage(void* t) {
  return guarded([&] {
    c10::StorageImpl& storage = own_storage(tensor(t));
    if (storage.data() == nullptr) {
      c10::OptionalDeviceGuard guard(tensor(t).device());
      storage.set_data_ptr_noswap(storage.allocator()->allocate(storage.nbytes()));
    }
  });
}

// Ends the process without static destructors, which would pull libtorch from under threads that
// still compute.
void s1_exit_at_once(int code) {
  _exit(code);
}

// The linker drops libtorch_cuda.so since nothing names its symbols; opening the one beside
// libtorch_cpu.so registers the CUDA kernels, so that one binary serves both.
bool s1_load_cuda() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&torch::autograd::grad), &info) == 0) {
    return false;
  }
  std::string path(info.dli_fname);
  path = path.substr(0, path.rfind('/') + 1) + "libtorch_cuda.so";
  return dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) != nullptr;
}

} // extern "C"
