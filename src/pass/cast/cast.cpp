// Decode, round to the code, store plain.
//
// Exact when the code can hold the decoded values (f32 always); activations schemes are removed,
// since a plain product multiplies floats.
#include "pass/cast/cast.h"

#include "pass/promise.h"

namespace pare {
namespace {

Scheme plain(Code code) {
  Scheme scheme;
  scheme.code = code;
  return scheme;
}

Spec plan(Spec spec, Code code) {
  spec.embed = plain(code);
  for (auto& [name, linear] : linears(spec)) {
    linear->scheme = plain(code);
    linear->activation = {};
  }
  if (spec.tied) spec.head.scheme = spec.embed;
  return spec;
}

Model run(Model model, Code code, const std::string& line, Context& context) {
  const Spec planned = plan(model.spec, code);
  std::set<std::string, std::less<>> promised;
  for (const Slot& slot : slots(planned)) {
    if (slot.vector) continue;
    Weight& weight = model.weights.find(slot.name)->second;
    if (weight.scheme == slot.scheme) continue;
    model.evidence.push_back({"cast", slot.name, "bits per weight",
                              bits_per_weight(weight.scheme, slot.shape[0], slot.shape[1]),
                              static_cast<double>(bits(code))});
    weight.load = [load = weight.load, code] {
      const Tensor from = load();
      return plain_tensor(decode(from), from.shape, code);
    };
    weight.scheme = slot.scheme;
    promised.insert(slot.name);
  }
  model.spec = planned;
  keep_promises(model, promised, context);
  model.history.push_back(line);
  return model;
}

}  // namespace

Code parse_float_code(const std::string& word) {
  for (Code code : {Code::f32, Code::f16, Code::bf16})
    if (info(code).name == word) return code;
  fail(Exit::usage, "CL-012", fmt::format("{} is not a plain float code", pare::quoted(word)),
       {{"need", "f32, f16 or bf16"}});
}

Pass cast_pass(Code code) {
  const std::string line = fmt::format("cast to={}", info(code).name);
  return {"cast", line, [code](Spec spec) { return plan(std::move(spec), code); },
          [code, line](Model model, Context& context) {
            return run(std::move(model), code, line, context);
          }};
}

}  // namespace pare
