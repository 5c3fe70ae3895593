// The loops behind kernels.h. The build compiles this file once for each processor it names with
// S1_KERNELS, so it uses no header with inline functions: the linker would keep only one of each.
#include "kernels.h"

namespace {

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
#else
inline float fma(float a, float b, float c) { return a * b + c; }
#endif

inline float from_bits(int32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

inline int32_t to_bits(float value) {
  int32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}

// e^x within 1 ulp for -87.33 < x < 88.37; below that 0, above it e^88.37. NaN stays NaN.
// x = n log 2 + r with |r| <= log(2) / 2; e^r is Cephes' polynomial, 2^n goes into the exponent.
inline float exponential(float x) {
  const float clamped = x > 88.37f ? 88.37f : x;
  const float shifted = fma(clamped, 1.44269504f, 12582912.0f); // 1.5 * 2^23: rounds to integers
  const float n = shifted - 12582912.0f;
  const float r = fma(n, 2.12194440e-4f, fma(n, -0.693359375f, clamped));
  float p = 1.9875691500e-4f;
  p = fma(p, r, 1.3981999507e-3f);
  p = fma(p, r, 8.3334519073e-3f);
  p = fma(p, r, 4.1665795894e-2f);
  p = fma(p, r, 1.6666665459e-1f);
  p = fma(p, r, 5.0000001201e-1f);
  p = fma(p, r * r, r) + 1.0f;
  const int32_t exponent = (to_bits(shifted) - 0x4B400000 + 127) << 23;
  return x < -87.33f ? 0.0f : p * from_bits(exponent);
}

void rms_norm(
    const float* x, const float* residual, const float* weight, float eps, int64_t hidden,
    int64_t begin, int64_t end, float* sum, float* y, float* reciprocal_rms) {
  for (int64_t row = begin; row < end; row++) {
    const float* in = x + row * hidden;
    float* out = y + row * hidden;
    float a = 0, b = 0, c = 0, d = 0; // four chains hide the latency of additions
    if (residual != nullptr) {
      const float* other = residual + row * hidden;
      float* total = sum + row * hidden;
      _Pragma("omp simd")
      for (int64_t i = 0; i < hidden; i++) total[i] = in[i] + other[i];
      in = total;
    }
    const int64_t quarter = hidden / 4;
    _Pragma("omp simd reduction(+ : a, b, c, d)")
    for (int64_t i = 0; i < quarter; i++) {
      const float *p = in + i, *q = p + quarter, *r = q + quarter, *s = r + quarter;
      a += *p * *p, b += *q * *q, c += *r * *r, d += *s * *s;
    }
    for (int64_t i = 4 * quarter; i < hidden; i++) a += in[i] * in[i];
    const float mean_square = ((a + b) + (c + d)) / static_cast<float>(hidden);
    const float scale = 1.0f / __builtin_sqrtf(mean_square + eps);
    reciprocal_rms[row] = scale;
    _Pragma("omp simd")
    for (int64_t i = 0; i < hidden; i++) out[i] = weight[i] * (in[i] * scale);
  }
}

// With n = x * scale: dn = dy * weight, dx = scale * (dn - n * mean(dn * n)), dweight = dy * n.
void rms_norm_backward(
    const float* dy, const float* dsum, const float* x, const float* weight,
    const float* reciprocal_rms, int64_t hidden, int64_t begin, int64_t end, float* dx,
    float* dweight) {
  for (int64_t row = begin; row < end; row++) {
    const float *up = dy + row * hidden, *in = x + row * hidden;
    float* out = dx + row * hidden;
    const float scale = reciprocal_rms[row];
    float a = 0, b = 0, c = 0, d = 0;
    const int64_t quarter = hidden / 4;
    const auto product = [=](int64_t i) { return up[i] * weight[i] * in[i]; };
    _Pragma("omp simd reduction(+ : a, b, c, d)")
    for (int64_t i = 0; i < quarter; i++) {
      a += product(i), b += product(i + quarter);
      c += product(i + 2 * quarter), d += product(i + 3 * quarter);
    }
    for (int64_t i = 4 * quarter; i < hidden; i++) a += product(i);
    const float mean = ((a + b) + (c + d)) * scale / static_cast<float>(hidden);
    if (dsum == nullptr) {
      _Pragma("omp simd")
      for (int64_t i = 0; i < hidden; i++) {
        const float n = in[i] * scale;
        dweight[i] += up[i] * n;
        out[i] = scale * (up[i] * weight[i] - n * mean);
      }
    } else {
      const float* more = dsum + row * hidden;
      _Pragma("omp simd")
      for (int64_t i = 0; i < hidden; i++) {
        const float n = in[i] * scale;
        dweight[i] += up[i] * n;
        out[i] = more[i] + scale * (up[i] * weight[i] - n * mean);
      }
    }
  }
}

void swiglu(const float* gate_up, int64_t inner, int64_t begin, int64_t end, float* y) {
  for (int64_t row = begin; row < end; row++) {
    const float *gate = gate_up + row * 2 * inner, *up = gate + inner;
    float* out = y + row * inner;
    _Pragma("omp simd")
    for (int64_t i = 0; i < inner; i++) {
      const float sigmoid = 1.0f / (1.0f + exponential(-gate[i]));
      out[i] = gate[i] * sigmoid * up[i];
    }
  }
}

void swiglu_backward(
    float* dy, const float* gate_up, int64_t inner, int64_t begin, int64_t end,
    float* dgate_up) {
  for (int64_t row = begin; row < end; row++) {
    const float *gate = gate_up + row * 2 * inner, *up = gate + inner;
    float *y = dy + row * inner, *dgate = dgate_up + row * 2 * inner, *dup = dgate + inner;
    _Pragma("omp simd")
    for (int64_t i = 0; i < inner; i++) {
      const float e = exponential(-gate[i]);
      const float sigmoid = 1.0f / (1.0f + e); // and e * sigmoid is 1 - sigmoid, but exact
      const float silu = gate[i] * sigmoid;
      dgate[i] = y[i] * up[i] * (sigmoid * (1.0f + gate[i] * (e * sigmoid)));
      dup[i] = y[i] * silu;
      y[i] = silu * up[i];
    }
  }
}

// One head. The negative angle swaps which half's sine is meant: the tables' halves may differ.
inline void turn(
    const float* a, const float* cos, const float* sin, float sign, int64_t half, float* y) {
  const float *b = a + half, *first = sin + (sign < 0 ? half : 0), *second = sin + (sign < 0 ? 0 : half);
  _Pragma("omp simd")
  for (int64_t i = 0; i < half; i++) {
    y[i] = a[i] * cos[i] - sign * b[i] * first[i];
    y[half + i] = b[i] * cos[half + i] + sign * a[i] * second[i];
  }
}

void rotate(
    const float* x, Strides from, const float* cos, const float* sin, float sign, int64_t heads,
    int64_t dim, int64_t begin, int64_t end, float* y, Strides to) {
  for (int64_t row = begin; row < end; row++) {
    for (int64_t head = 0; head < heads; head++) {
      const float* in = x + row * from.row + head * from.head;
      float* out = y + row * to.row + head * to.head;
      if (sign != 0) {
        turn(in, cos + row * dim, sin + row * dim, sign, dim / 2, out);
      } else {
        _Pragma("omp simd")
        for (int64_t i = 0; i < dim; i++) out[i] = in[i];
      }
    }
  }
}

// GCC vectorises this form without being allowed to forget about NaN.
float maximum(const float* x, int64_t count) {
  constexpr int64_t lanes = 64;
  float most[lanes];
  for (float& lane : most) lane = x[0];
  for (; count >= lanes; x += lanes, count -= lanes) {
    _Pragma("omp simd")
    for (int64_t lane = 0; lane < lanes; lane++) {
      most[lane] = x[lane] > most[lane] ? x[lane] : most[lane];
    }
  }
  for (int64_t i = 0; i < count; i++) most[i] = x[i] > most[i] ? x[i] : most[i];
  float largest = most[0];
  for (float lane : most) largest = lane > largest ? lane : largest;
  return largest;
}

void cross_entropy(
    float* logits, int64_t vocab, const int64_t* targets, const float* weights, int64_t begin,
    int64_t end, double* loss) {
  for (int64_t row = begin; row < end; row++) {
    float* x = logits + row * vocab;
    const float largest = maximum(x, vocab);
    const float at_target = x[targets[row]];
    double sum = 0;
    for (int64_t start = 0; start < vocab; start += 4096) {
      const int64_t stop = start + 4096 < vocab ? start + 4096 : vocab;
      float part = 0;
      _Pragma("omp simd reduction(+ : part)")
      for (int64_t i = start; i < stop; i++) {
        x[i] = exponential(x[i] - largest);
        part += x[i];
      }
      sum += part;
    }
    const float scale = static_cast<float>(weights[row] / sum);
    _Pragma("omp simd")
    for (int64_t i = 0; i < vocab; i++) x[i] *= scale;
    x[targets[row]] -= weights[row];
    loss[row] = weights[row] * (__builtin_log(sum) + (static_cast<double>(largest) - at_target));
  }
}

} // namespace

extern const Kernels S1_KERNELS;
const Kernels S1_KERNELS = {
    rms_norm, rms_norm_backward, swiglu, swiglu_backward, rotate, cross_entropy};
