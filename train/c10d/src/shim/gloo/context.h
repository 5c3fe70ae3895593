// Declarations that ProcessGroupGloo.hpp needs of Gloo, whose headers the PyTorch wheel leaves out.
// Only pointers to these types cross our code; their definitions live in libtorch_cpu.so.
#pragma once
#include <chrono>
#include <memory>
#include <gloo/transport/device.h>

namespace gloo {
class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};
} // namespace gloo
