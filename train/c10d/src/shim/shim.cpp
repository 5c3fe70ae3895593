// The C face of torch.distributed's process groups and of the few ATen calls that tch lacks.
//
// Every function returns NULL on success or an error text that the caller frees with
// s1_free_text; no C++ exception crosses this border. Tensors are tch's `at::Tensor*`.
#include <dlfcn.h>
#include <unistd.h>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <sstream>
#include <string>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#ifdef USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include "border.h"

namespace {

using Store = c10::intrusive_ptr<c10d::Store>;
using Backend = c10::intrusive_ptr<c10d::Backend>;
using Work = c10::intrusive_ptr<c10d::Work>;
using std::chrono::milliseconds;

// Starts a collective. libtorch's flight recorder is one for the process and notes a group's first
// collective in a std::map before it takes its lock, so two groups on two threads could corrupt it
// (seen: a crash in _Rb_tree_insert_and_rebalance). Gloo only queues work here, so a lock is cheap
// and cannot hang; NCCL may wait for its peers here, and has one group a process.
template <typename F>
char* start(void* group, void** work, F issue) {
  static std::mutex recorder;
  return guarded([&] {
    const Backend& backend = *static_cast<Backend*>(group);
    std::unique_lock<std::mutex> lock(recorder, std::defer_lock);
    if (backend->getBackendName() == "gloo") {
      lock.lock();
    }
    *work = new Work(issue(*backend));
  });
}

// Gloo binds to an address of this host: the interfaces of GLOO_SOCKET_IFNAME if given, as
// PyTorch does; loopback when the master is there; else what the host name resolves to.
auto gloo_options(const std::string& master, milliseconds timeout) {
  auto options = c10d::ProcessGroupGloo::Options::create(timeout);
  const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
  if (interface != nullptr && *interface != '\0') {
    std::istringstream names(interface);
    for (std::string name; std::getline(names, name, ',');) {
      options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForInterface(name));
    }
  } else if (master == "127.0.0.1" || master == "localhost") {
    options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1"));
  } else {
    options->devices.push_back(c10d::ProcessGroupGloo::createDefaultDevice());
  }
  return options;
}

Backend new_group(
    const std::string& kind,
    const std::string& master,
    const Store& store,
    int rank,
    int world_size,
    milliseconds timeout) {
  if (kind == "gloo") {
    return c10::make_intrusive<c10d::ProcessGroupGloo>(
        store, rank, world_size, gloo_options(master, timeout));
  }
#ifdef USE_C10D_NCCL
  if (kind == "nccl") {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = timeout;
    return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, world_size, options);
  }
#endif
  throw std::runtime_error("this build has no backend `" + kind + "`");
}

} // namespace

extern "C" {

void s1_free_text(char* text) {
  free(text);
}

char* s1_store_open(
    const char* host, uint16_t port, int world_size, bool serve, int64_t timeout_ms, void** out) {
  return guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serve;
    options.numWorkers = world_size;
    options.timeout = milliseconds(timeout_ms);
    *out = new Store(c10::make_intrusive<c10d::TCPStore>(host, options));
  });
}

void s1_store_close(void* store) {
  delete static_cast<Store*>(store);
}

char* s1_group_new(
    const char* kind,
    const char* master,
    void* store,
    int rank,
    int world_size,
    int64_t timeout_ms,
    void** out) {
  return guarded([&] {
    *out = new Backend(new_group(
        kind, master, *static_cast<Store*>(store), rank, world_size, milliseconds(timeout_ms)));
  });
}

void s1_group_free(void* group) {
  delete static_cast<Backend*>(group);
}

char* s1_all_gather_into(void* group, void* output, void* input, void** work) {
  return start(group, work, [&](c10d::Backend& backend) {
    return backend._allgather_base(tensor(output), tensor(input));
  });
}

char* s1_reduce_scatter(void* group, void* output, void* input, void** work) {
  return start(group, work, [&](c10d::Backend& backend) {
    return backend._reduce_scatter_base(tensor(output), tensor(input));
  });
}

char* s1_all_reduce(void* group, void* t, bool max, void** work) {
  return start(group, work, [&](c10d::Backend& backend) {
    std::vector<at::Tensor> tensors = {tensor(t)};
    c10d::AllreduceOptions options;
    options.reduceOp = max ? c10d::ReduceOp::MAX : c10d::ReduceOp::SUM;
    return backend.allreduce(tensors, options);
  });
}

char* s1_broadcast(void* group, void* t, int source, void** work) {
  return start(group, work, [&](c10d::Backend& backend) {
    std::vector<at::Tensor> tensors = {tensor(t)};
    c10d::BroadcastOptions options;
    options.rootRank = source;
    return backend.broadcast(tensors, options);
  });
}

char* s1_barrier(void* group, void** work) {
  return start(group, work, [&](c10d::Backend& backend) { return backend.barrier(); });
}

// Waits and frees the handle, whatever the outcome.
char* s1_work_wait(void* work) {
  Work* handle = static_cast<Work*>(work);
  char* error = guarded([&] { (*handle)->wait(); });
  delete handle;
  return error;
}

void s1_work_free(void* work) {
  delete static_cast<Work*>(work);
}

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
