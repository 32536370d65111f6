// The list of families, and which of them a config.json belongs to.
//
// model_type decides. Files without it (very old ones) name a class in `architectures`. A family of
// experts is refused in one sentence, because the answer to "when?" differs from "what is that?".
#include "model/arch/families.h"

#include <array>

#include "model/arch/config.h"

namespace pare {
namespace {

const std::array<Family, 13>& table() {
  static const std::array<Family, 13> rows = {
      arch::llama,    arch::mistral,     arch::qwen2,       arch::qwen3,    arch::gemma2,
      arch::phi3,     arch::gpt2,        arch::gptj,        arch::gpt_neox, arch::falcon,
      arch::minicpm3, arch::deepseek_v2, arch::deepseek_v3,
  };
  return rows;
}

bool mentions_experts(std::string_view type) {
  return type.find("moe") != std::string_view::npos || type == "mixtral" || type == "dbrx" ||
         type == "gpt_oss" || type == "jamba" || type == "llama4_text";
}

[[noreturn]] void unknown(const Json& config, const std::string& type) {
  if (mentions_experts(type)) arch::refuse_experts("model_type", quoted(type));
  for (const auto& [key, value] : config.as_object())
    if (arch::expert_key(key) && !value.is_null()) arch::refuse_experts(key, arch::shown(value));
  std::vector<std::string> names;
  std::string list;
  for (const Family& family : families()) {
    names.emplace_back(family.name);
    list += (list.empty() ? "" : ", ") + names.back();
  }
  const std::string near = nearest(type, names);
  fail_input("AR-001", "this model belongs to a family that is not supported",
             {{"key", "model_type"}, {"found", quoted(type)}, {"need", "one of " + list}},
             near.empty() ? "" : "the nearest supported family is " + near);
}

}  // namespace

std::span<const Family> families() { return table(); }

const Family* find_family(std::string_view name) {
  for (const Family& family : families())
    if (family.name == name) return &family;
  return nullptr;
}

const Family& family_of(const Json& config) {
  arch::Keys keys(config);
  if (const auto type = keys.word({"model_type"})) {
    if (const Family* family = find_family(*type)) return *family;
    unknown(config, *type);
  }
  const Json* classes = keys.find("architectures");
  const bool named = classes != nullptr && classes->is_array() && !classes->as_array().empty() &&
                     classes->as_array().front().is_string();
  if (!named)
    fail_input("AR-001", "config.json says neither model_type nor architectures",
               {{"need", "model_type"}}, "is this the config.json of a language model?");
  const std::string& name = classes->as_array().front().as_string();
  for (const Family& family : families())
    if (family.architecture == name) return family;
  unknown(config, name);
}

}  // namespace pare
