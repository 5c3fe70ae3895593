// The CPU kernels of fused.cpp: loops over rows of fp32, compiled once for each kind of processor.
#pragma once
#include <cstdint>

struct Strides {
  int64_t row, head;
};

// Every function works on the rows begin..end only, so that threads can share a tensor.
struct Kernels {
  // sum = x + residual (skipped where residual is null), y = weight * (sum / rms(sum)).
  void (*rms_norm)(
      const float* x, const float* residual, const float* weight, float eps, int64_t hidden,
      int64_t begin, int64_t end, float* sum, float* y, float* reciprocal_rms);
  // dx from dy, plus dsum unless that is null; dweight [hidden] is added to.
  void (*rms_norm_backward)(
      const float* dy, const float* dsum, const float* x, const float* weight,
      const float* reciprocal_rms, int64_t hidden, int64_t begin, int64_t end, float* dx,
      float* dweight);
  // y = silu(gate) * up; a row of gate_up is gate and then up, `inner` each.
  void (*swiglu)(const float* gate_up, int64_t inner, int64_t begin, int64_t end, float* y);
  // dgate_up from dy, which then becomes y.
  void (*swiglu_backward)(
      float* dy, const float* gate_up, int64_t inner, int64_t begin, int64_t end,
      float* dgate_up);
  // y = x turned by cos and sin times `sign`, or just x where sign is 0. A row has `heads` heads of
  // `dim`; rows and heads lie so far apart as `from` and `to` say, the tables' rows `dim`.
  void (*rotate)(
      const float* x, Strides from, const float* cos, const float* sin, float sign, int64_t heads,
      int64_t dim, int64_t begin, int64_t end, float* y, Strides to);
  // logits become weight * (softmax - onehot(target)), loss[row] = weight * -log softmax(target).
  void (*cross_entropy)(
      float* logits, int64_t vocab, const int64_t* targets, const float* weights, int64_t begin,
      int64_t end, double* loss);
};

#if defined(S1_KERNELS_X86)
extern const Kernels kernels_avx512, kernels_avx2;
#endif
extern const Kernels kernels_plain;
