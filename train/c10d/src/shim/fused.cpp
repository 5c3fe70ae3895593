// Operations of a transformer layer that ATen spreads over many passes, each with its gradient.
//
// On the CPU in fp32 they are the loops of kernels.cpp; elsewhere they are composed of ATen's own
// operations, whose gradients autograd knows. That path has run in bf16 on the CPU, and its CUDA
// branches have never run.
#include <algorithm>
#include <tuple>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "shim.h"
#include "kernels.h"

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

const Kernels& kernels() {
#if defined(S1_KERNELS_X86)
  static const Kernels& best = [] () -> const Kernels& {
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const bool medium = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return wide && medium ? kernels_avx512 : medium ? kernels_avx2 : kernels_plain;
  }();
  return best;
#else
  return kernels_plain;
#endif
}

// Whether the loops of kernels.cpp can take `tensors`; an undefined one may be left out.
bool ours(std::initializer_list<Tensor> tensors) {
  return std::all_of(tensors.begin(), tensors.end(), [](const Tensor& t) {
    return !t.defined() || (t.is_cpu() && t.scalar_type() == at::kFloat);
  });
}

bool needs_graph(std::initializer_list<Tensor> tensors) {
  return at::GradMode::is_enabled() &&
      std::any_of(tensors.begin(), tensors.end(), [](const Tensor& t) {
           return t.defined() && t.requires_grad();
         });
}

// Calls loop(begin, end) over parts of `rows` rows of `width` elements, on libtorch's threads.
template <typename F>
void over_rows(int64_t rows, int64_t width, const F& loop) {
  const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(1, width));
  at::parallel_for(0, rows, grain, loop);
}

const float* in(const Tensor& t) {
  return t.defined() ? t.const_data_ptr<float>() : nullptr;
}

float* out(const Tensor& t) {
  return t.mutable_data_ptr<float>();
}

// ---- RMSNorm, alone or of a sum

// Rows whose share of the weight's gradient is added up by one thread: fixed, so that the number
// of threads changes no bit.
constexpr int64_t BLOCK = 64;

struct Normed {
  Tensor sum, y, reciprocal_rms;
};

Normed rms_norm(const Tensor& x, const Tensor& residual, const Tensor& weight, double eps) {
  const int64_t hidden = x.size(-1), rows = hidden == 0 ? 0 : x.numel() / hidden;
  TORCH_CHECK(
      weight.dim() == 1 && weight.size(0) == hidden && weight.is_contiguous(),
      "rms_norm: weight does not fit x");
  TORCH_CHECK(!residual.defined() || residual.sizes() == x.sizes(), "rms_norm: sizes differ");
  Normed made;
  made.sum = residual.defined() ? at::empty_like(x) : x;
  made.y = at::empty_like(x);
  made.reciprocal_rms = at::empty({rows}, x.options());
  float* sum = residual.defined() ? out(made.sum) : nullptr;
  float *y = out(made.y), *scales = out(made.reciprocal_rms);
  over_rows(rows, hidden, [&](int64_t begin, int64_t end) {
    kernels().rms_norm(
        in(x), in(residual), in(weight), eps, hidden, begin, end, sum, y, scales);
  });
  return made;
}

struct RmsNorm : Function<RmsNorm> {
  static variable_list forward(
      AutogradContext* ctx, const Tensor& x, const std::optional<Tensor>& residual,
      const Tensor& weight, double eps) {
    const Normed made = rms_norm(x, residual.value_or(Tensor()), weight, eps);
    ctx->save_for_backward({made.sum, weight, made.reciprocal_rms});
    ctx->saved_data["residual"] = residual.has_value();
    ctx->set_materialize_grads(false);
    return residual.has_value() ? variable_list{made.y, made.sum} : variable_list{made.y};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &scales = saved[2];
    const bool residual = ctx->saved_data["residual"].toBool();
    const Tensor dsum = residual && grads[1].defined() ? grads[1].contiguous() : Tensor();
    if (!grads[0].defined()) {
      return {dsum, dsum, Tensor(), Tensor()};
    }
    const Tensor dy = grads[0].contiguous();
    const int64_t hidden = x.size(-1), rows = scales.numel();
    const int64_t blocks = (rows + BLOCK - 1) / BLOCK;
    const Tensor dx = at::empty_like(x);
    const Tensor parts = at::zeros({blocks, hidden}, x.options());
    float *dx_data = out(dx), *part = out(parts);
    over_rows(blocks, BLOCK * hidden, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; block++) {
        kernels().rms_norm_backward(
            in(dy), in(dsum), in(x), in(weight), in(scales), hidden, block * BLOCK,
            std::min(rows, (block + 1) * BLOCK), dx_data, part + block * hidden);
      }
    });
    for (int64_t block = 1; block < blocks; block++) {
      for (int64_t i = 0; i < hidden; i++) {
        part[i] += part[block * hidden + i];
      }
    }
    const Tensor dweight = blocks > 0 ? parts.select(0, 0).clone() : at::zeros_like(weight);
    return {dx, residual ? dx : Tensor(), dweight, Tensor()};
  }
};

// transformers' Qwen2RMSNorm, operation by operation. On CUDA ATen's fused one, which multiplies
// by the weight before it rounds to x's kind (never run).
Tensor composed_rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  if (x.is_cuda()) {
    return std::get<0>(at::_fused_rms_norm(x, {x.size(-1)}, weight, eps));
  }
  const Tensor x32 = x.to(at::kFloat);
  const Tensor mean_square = x32.square().mean(-1, true);
  return weight * (x32 * (mean_square + eps).rsqrt()).to(x.scalar_type());
}

// ---- SwiGLU and the projection after it, which keep gate and up alone

Tensor swiglu(const Tensor& gate_up) {
  const int64_t inner = gate_up.size(1) / 2;
  if (!ours({gate_up})) {
    return at::silu(gate_up.narrow(1, 0, inner)) * gate_up.narrow(1, inner, inner);
  }
  const Tensor y = at::empty({gate_up.size(0), inner}, gate_up.options());
  float* data = out(y);
  over_rows(gate_up.size(0), inner, [&](int64_t begin, int64_t end) {
    kernels().swiglu(in(gate_up), inner, begin, end, data);
  });
  return y;
}

// From y's gradient that of gate_up; y's gradient becomes y.
Tensor swiglu_backward(const Tensor& dy, const Tensor& gate_up) {
  const int64_t inner = gate_up.size(1) / 2;
  const Tensor dgate_up = at::empty_like(gate_up);
  if (!ours({dy, gate_up})) {
    const Tensor gate = gate_up.narrow(1, 0, inner), up = gate_up.narrow(1, inner, inner);
    const Tensor silu = at::silu(gate);
    dgate_up.narrow(1, 0, inner).copy_(at::silu_backward(dy * up, gate));
    dgate_up.narrow(1, inner, inner).copy_(dy * silu);
    dy.copy_(silu * up);
    return dgate_up;
  }
  float *dy_data = out(dy), *data = out(dgate_up);
  over_rows(dy.size(0), inner, [&](int64_t begin, int64_t end) {
    kernels().swiglu_backward(dy_data, in(gate_up), inner, begin, end, data);
  });
  return dgate_up;
}

struct SwiGluLinear : Function<SwiGluLinear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& gate_up, const Tensor& weight) {
    ctx->save_for_backward({gate_up, weight});
    return at::linear(swiglu(gate_up), weight);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &gate_up = saved[0], &weight = saved[1], &dy = grads[0];
    const Tensor inner = dy.mm(weight); // the gradient of the inner activation, then that itself
    const Tensor dgate_up = swiglu_backward(inner, gate_up);
    return {dgate_up, dy.t().mm(inner)};
  }
};

// ---- Rotary position embedding of packed queries, keys and values

struct Heads {
  Tensor query, key, value;
};

// Turns (or copies, where sign is 0) `from` into `to`, both [T, heads, D] with a last stride of 1.
void turn(const Tensor& from, const Tensor& to, const Tensor& cos, const Tensor& sin, float sign) {
  const int64_t heads = from.size(1), dim = from.size(2);
  const Strides apart{from.stride(0), from.stride(1)}, to_apart{to.stride(0), to.stride(1)};
  float* y = out(to);
  over_rows(from.size(0), heads * dim, [&](int64_t begin, int64_t end) {
    kernels().rotate(
        in(from), apart, in(cos), in(sin), sign, heads, dim, begin, end, y, to_apart);
  });
}

// Queries, keys and values lie head by head in memory, as attention reads them.
Heads rope(const Tensor& qkv, const Tensor& cos, const Tensor& sin, int64_t heads, int64_t kv) {
  const int64_t tokens = qkv.size(0), dim = cos.size(-1);
  TORCH_CHECK(qkv.size(1) == (heads + 2 * kv) * dim, "rope: qkv does not hold so many heads");
  TORCH_CHECK(cos.numel() == tokens * dim && sin.numel() == cos.numel(), "rope: other positions");
  const Tensor split = qkv.view({tokens, heads + 2 * kv, dim});
  const auto made = [&](int64_t first, int64_t count, float sign) {
    const Tensor y = at::empty({count, tokens, dim}, qkv.options()).transpose(0, 1);
    turn(split.narrow(1, first, count), y, cos, sin, sign);
    return y;
  };
  return {made(0, heads, 1), made(heads, kv, 1), made(heads + kv, kv, 0)};
}

struct Rope : Function<Rope> {
  static variable_list forward(
      AutogradContext* ctx, const Tensor& qkv, const Tensor& cos, const Tensor& sin,
      int64_t heads, int64_t kv) {
    ctx->save_for_backward({cos, sin});
    ctx->saved_data["heads"] = heads;
    const Heads made = rope(qkv, cos, sin, heads, kv);
    return {made.query, made.key, made.value};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const int64_t heads = ctx->saved_data["heads"].toInt(), kv = grads[1].size(1);
    const int64_t tokens = grads[0].size(0), dim = grads[0].size(2);
    const Tensor dqkv = at::empty({tokens, heads + 2 * kv, dim}, grads[0].options());
    const int64_t first[] = {0, heads, heads + kv}, count[] = {heads, kv, kv};
    for (int part = 0; part < 3; part++) {
      const Tensor dy = grads[part].stride(2) == 1 ? grads[part] : grads[part].contiguous();
      const float sign = part == 2 ? 0 : -1;
      turn(dy, dqkv.narrow(1, first[part], count[part]), saved[0], saved[1], sign);
    }
    return {dqkv.view({tokens, -1}), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

Heads composed_rope(
    const Tensor& qkv, const Tensor& cos, const Tensor& sin, int64_t heads, int64_t kv) {
  const int64_t dim = cos.size(-1);
  const auto split = qkv.view({qkv.size(0), -1, dim}).split_with_sizes({heads, kv, kv}, 1);
  const auto rotated = [&](const Tensor& x) {
    const auto halves = x.chunk(2, -1);
    return x * cos + at::cat({-halves[1], halves[0]}, -1) * sin;
  };
  return {rotated(split[0]), rotated(split[1]), split[2]};
}

// ---- Cross-entropy

Tensor cross_entropy_(const Tensor& logits, const Tensor& targets, const Tensor& weights) {
  const int64_t rows = logits.size(0), vocab = logits.size(1);
  TORCH_CHECK(
      targets.numel() == rows && weights.numel() == rows && targets.is_contiguous() &&
          weights.is_contiguous() && targets.scalar_type() == at::kLong &&
          weights.scalar_type() == at::kFloat,
      "cross_entropy_: a target (int64) and a weight (fp32) for each row of logits");
  if (!ours({logits}) || !logits.is_contiguous()) {
    const Tensor column = targets.unsqueeze(1), share = weights.unsqueeze(1);
    const Tensor normaliser = logits.logsumexp(-1, true);
    const Tensor nll = (normaliser - logits.gather(1, column)) * share;
    logits.sub_(normaliser).exp_().mul_(share).scatter_add_(1, column, -share);
    return nll.sum(at::kDouble).to(at::kFloat);
  }
  const int64_t* target = targets.const_data_ptr<int64_t>();
  const bool fit = std::all_of(target, target + rows, [&](int64_t t) {
    return 0 <= t && t < vocab;
  });
  TORCH_CHECK(fit, "cross_entropy_: a target outside the vocabulary of ", vocab);
  std::vector<double> losses(rows);
  float* data = out(logits);
  over_rows(rows, vocab, [&](int64_t begin, int64_t end) {
    kernels().cross_entropy(data, vocab, target, in(weights), begin, end, losses.data());
  });
  double sum = 0;
  for (double loss : losses) {
    sum += loss;
  }
  return at::full({}, sum, weights.options());
}

} // namespace

extern "C" {

// y = weight * (x / rms(x)) over the last dimension.
char* s1_rms_norm(void* x, void* weight, double eps, void** y) {
  return guarded([&] {
    const Tensor &input = tensor(x), &w = tensor(weight);
    if (!ours({input, w})) {
      *y = new Tensor(composed_rms_norm(input, w, eps));
    } else if (needs_graph({input, w})) {
      *y = new Tensor(RmsNorm::apply(input.contiguous(), std::nullopt, w, eps)[0]);
    } else {
      *y = new Tensor(rms_norm(input.contiguous(), {}, w, eps).y);
    }
  });
}

// sum = x + residual, and y the norm of the sum.
char* s1_add_rms_norm(
    void* x, void* residual, void* weight, double eps, void** sum, void** y) {
  return guarded([&] {
    const Tensor &input = tensor(x), &other = tensor(residual), &w = tensor(weight);
    if (!ours({input, other, w})) {
      const Tensor both = input + other;
      *y = new Tensor(composed_rms_norm(both, w, eps));
      *sum = new Tensor(both);
    } else if (needs_graph({input, other, w})) {
      const auto made = RmsNorm::apply(input.contiguous(), other.contiguous(), w, eps);
      *y = new Tensor(made[0]);
      *sum = new Tensor(made[1]);
    } else {
      const Normed made = rms_norm(input.contiguous(), other.contiguous(), w, eps);
      *y = new Tensor(made.y);
      *sum = new Tensor(made.sum);
    }
  });
}

// silu(gate) * up of [T, 2I], gate first; no gradient.
char* s1_swiglu(void* gate_up, void** y) {
  return guarded([&] {
    const Tensor& input = tensor(gate_up);
    TORCH_CHECK(input.dim() == 2 && input.size(1) % 2 == 0, "swiglu: gate and up side by side");
    *y = new Tensor(swiglu(input.detach().contiguous()));
  });
}

// silu(gate) * up of [T, 2I], gate first, times the transpose of weight [H, I].
char* s1_swiglu_linear(void* gate_up, void* weight, void** y) {
  return guarded([&] {
    const Tensor &input = tensor(gate_up), &w = tensor(weight);
    TORCH_CHECK(input.dim() == 2 && input.size(1) % 2 == 0, "swiglu: gate and up side by side");
    if (needs_graph({input, w})) {
      *y = new Tensor(SwiGluLinear::apply(input.contiguous(), w));
    } else {
      *y = new Tensor(at::linear(swiglu(input.contiguous()), w));
    }
  });
}

// Cuts [T, (heads + 2 kv) D] into queries, keys and values [T, heads, D]; turns the first two.
char* s1_rope(
    void* qkv, void* cos, void* sin, int64_t heads, int64_t kv, void** q, void** k, void** v) {
  return guarded([&] {
    const Tensor &input = tensor(qkv), &c = tensor(cos), &s = tensor(sin);
    Heads made;
    if (!ours({input, c, s}) || !c.is_contiguous() || !s.is_contiguous()) {
      made = composed_rope(input, c, s, heads, kv);
    } else if (needs_graph({input})) {
      const auto all = Rope::apply(input.contiguous(), c, s, heads, kv);
      made = {all[0], all[1], all[2]};
    } else {
      made = rope(input.contiguous(), c, s, heads, kv);
    }
    *q = new Tensor(made.query);
    *k = new Tensor(made.key);
    *v = new Tensor(made.value);
  });
}

// The weighted loss; the logits become its gradient. No graph.
char* s1_cross_entropy(void* logits, void* targets, void* weights, void** loss) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    *loss = new Tensor(cross_entropy_(tensor(logits), tensor(targets), tensor(weights)));
  });
}

} // extern "C"
