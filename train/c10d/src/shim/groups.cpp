// The C face of torch.distributed's stores, process groups and collectives.
#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <sstream>
#include <string>

#include <ATen/ops/empty_like.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#ifdef USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include "shim.h"

namespace {

using Store = c10::intrusive_ptr<c10d::Store>;
using Backend = c10::intrusive_ptr<c10d::Backend>;
using Work = c10::intrusive_ptr<c10d::Work>;
using std::chrono::milliseconds;

// libtorch's flight recorder is one for the process and notes a group's first collective in a
// std::map before it takes its lock, so two groups on two threads could corrupt it (seen: a crash
// in _Rb_tree_insert_and_rebalance). Gloo only queues work at a collective's start, so a lock
// around it is cheap and cannot hang; NCCL may wait for its peers there, and its groups start
// collectives from one thread at a time.
std::mutex recorder;

template <typename F>
Work issue(const Backend& backend, F collective) {
  std::unique_lock<std::mutex> lock(recorder, std::defer_lock);
  if (backend->getBackendName() == "gloo") {
    lock.lock();
  }
  return collective(*backend);
}

template <typename F>
char* start(void* group, void** work, F collective) {
  return guarded([&] { *work = new Work(issue(*static_cast<Backend*>(group), collective)); });
}

// The same memory with an autograd version of its own: a collective that fills it does not count
// as a change to what a graph saved.
at::Tensor target(void* t) {
  return tensor(t).variable_data();
}

// What fails is the caller's error to report; libtorch's log would add pages of C++ frames. Its own
// variable still turns the log on, which libtorch reads by itself only under Python.
void quiet_log() {
  if (std::getenv("TORCH_CPP_LOG_LEVEL") != nullptr) {
    c10::initLogging();
  } else {
    FLAGS_caffe2_log_level = c10::GLOG_FATAL;
  }
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

// The all-to-all of equal chunks of dim 0, waited for.
at::Tensor all_to_all(const Backend& group, const at::Tensor& input) {
  at::Tensor from = input.contiguous();
  at::Tensor to = at::empty_like(from);
  std::vector<int64_t> equal;
  try {
    issue(group, [&](c10d::Backend& backend) {
      return backend.alltoall_base(to, from, equal, equal);
    })->wait();
  } catch (const std::exception& e) {
    std::ostringstream text;
    text << "exchange " << input.scalar_type() << " " << input.sizes() << " on rank "
         << group->getRank() << " of " << group->getSize() << ": " << e.what();
    throw std::runtime_error(text.str());
  }
  return to;
}

// An all-to-all is its own transpose: what came from a rank, its gradient goes back to.
struct Exchange : torch::autograd::Function<Exchange> {
  static at::Tensor forward(
      torch::autograd::AutogradContext* context, const at::Tensor& input, const Backend& group) {
    context->saved_data["group"] = c10::IValue::make_capsule(group);
    return all_to_all(group, input);
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context, const torch::autograd::variable_list& grads) {
    auto group = c10::static_intrusive_pointer_cast<c10d::Backend>(
        context->saved_data["group"].toCapsule());
    return {all_to_all(group, grads[0]), at::Tensor()};
  }
};

} // namespace

extern "C" {

void s1_free_text(char* text) {
  free(text);
}

char* s1_store_open(
    const char* host, uint16_t port, int world_size, bool serve, int64_t timeout_ms, void** out) {
  return guarded([&] {
    quiet_log();
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serve;
    options.numWorkers = world_size;
    options.timeout = milliseconds(timeout_ms);
    *out = new Store(c10::make_intrusive<c10d::TCPStore>(host, options));
  });
}

// A store of this process alone.
char* s1_store_solo(void** out) {
  return guarded([&] { *out = new Store(c10::make_intrusive<c10d::HashStore>()); });
}

// A part of `store` that no other prefix sees; it keeps the whole alive.
char* s1_store_prefix(void* store, const char* prefix, void** out) {
  return guarded([&] {
    *out = new Store(
        c10::make_intrusive<c10d::PrefixStore>(prefix, *static_cast<Store*>(store)));
  });
}

// Adds one to the number at `key`, 0 at first, and returns it.
char* s1_store_count(void* store, const char* key, int64_t* count) {
  return guarded([&] { *count = (*static_cast<Store*>(store))->add(key, 1); });
}

char* s1_store_set(void* store, const char* key, const uint8_t* bytes, size_t n) {
  return guarded(
      [&] { (*static_cast<Store*>(store))->set(key, std::vector<uint8_t>(bytes, bytes + n)); });
}

// What stands at `key`, for s1_free_text to free; `*bytes` is NULL when nothing does.
char* s1_store_get(void* store, const char* key, char** bytes, size_t* n) {
  return guarded([&] {
    const Store& from = *static_cast<Store*>(store);
    *bytes = nullptr;
    if (from->check({key})) {
      std::vector<uint8_t> found = from->get(key);
      *n = found.size();
      *bytes = static_cast<char*>(malloc(found.size() + 1));
      std::copy(found.begin(), found.end(), *bytes);
    }
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

// The CUDA device of the group's barriers; the current one of this thread as well if `current`.
char* s1_group_device(void* group, int index, bool current) {
  return guarded([&] {
    at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(index));
    if (current) {
      c10::impl::VirtualGuardImpl(at::kCUDA).setDevice(device);
    }
    if (group != nullptr) {
      (*static_cast<Backend*>(group))->setBoundDeviceId(device);
    }
  });
}

// Flushes what is in flight and leaves the other ranks in good order, or gives it up. Both do
// nothing on Gloo, whose destructor ends what is queued.
char* s1_group_end(void* group, bool abort) {
  return guarded([&] {
    c10d::Backend& backend = **static_cast<Backend*>(group);
    abort ? backend.abort() : backend.shutdown();
  });
}

void s1_group_free(void* group) {
  delete static_cast<Backend*>(group);
}

char* s1_all_gather_into(void* group, void* output, void* input, void** work) {
  return start(group, work, [&](c10d::Backend& backend) {
    at::Tensor to = target(output);
    return backend._allgather_base(to, tensor(input));
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

char* s1_all_to_all(void* group, void* output, void* input, void** work) {
  return start(group, work, [&](c10d::Backend& backend) {
    std::vector<int64_t> equal;
    return backend.alltoall_base(tensor(output), tensor(input), equal, equal);
  });
}

char* s1_exchange(void* group, void* input, void** output) {
  return guarded([&] {
    *output = new at::Tensor(Exchange::apply(tensor(input), *static_cast<Backend*>(group)));
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

} // extern "C"
