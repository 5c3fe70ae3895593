// What the shim's files share: error texts for C, and the reading of tch's handles.
//
// Every function of the shim that returns `char*` returns NULL on success or an error text that
// the caller frees with s1_free_text; no C++ exception crosses this border. Tensors are tch's
// `at::Tensor*`.
#pragma once
#include <cstring>
#include <exception>

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

template <typename F>
char* guarded(F f) {
  try {
    f();
    return nullptr;
  } catch (const c10::Error& e) {
    return strdup(e.what_without_backtrace());
  } catch (const std::exception& e) {
    return strdup(e.what());
  } catch (...) {
    return strdup("unknown C++ exception");
  }
}

inline at::Tensor& tensor(void* t) {
  return *static_cast<at::Tensor*>(t);
}
