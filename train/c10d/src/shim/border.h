// What crosses the C border: tensors as tch's `at::Tensor*`, errors as texts, never an exception.
#pragma once
#include <cstring>
#include <exception>

#include <ATen/ATen.h>

// Runs `f`; NULL, or an error text that the caller frees with s1_free_text.
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
