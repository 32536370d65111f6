// Typed, complete reading of config.json.
//
// The danger with configurations is silence: a key that a reader does not know is skipped, and the
// model runs with slightly wrong mathematics that no check can see. So the reader keeps account of
// every key that was asked for and refuses what remains, except keys that are known to concern
// training, generation, tokenizers or bookkeeping. Those are listed here by name; there is no
// guessing from a value.
#include "model/arch/config.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace pare::arch {
namespace {

constexpr auto harmless = std::to_array<std::string_view>({
    // bookkeeping
    "architectures",
    "model_type",
    "transformers_version",
    "auto_map",
    "name_or_path",
    "dtype",
    "torch_dtype",
    "quantization_config",
    "compression_config",
    "unsloth_version",
    "unsloth_fixed",
    "use_cache",
    "cache_implementation",
    "attn_implementation",
    "torchscript",
    "use_bfloat16",
    "use_flash_attn",
    "gradient_checkpointing",
    "pretraining_tp",
    "keys_to_ignore_at_inference",
    "transformers.js_config",
    "is_llama_config",
    "model_max_length",
    "max_sequence_length",
    "seq_length",
    // outputs of training frameworks
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_router_logits",
    "return_dict",
    "return_dict_in_generate",
    "output_scores",
    "problem_type",
    "finetuning_task",
    "task_specific_params",
    "id2label",
    "label2id",
    "num_labels",
    "classifier_dropout",
    "initializer_range",
    "initializer_factor",
    "initializer_cutoff_factor",
    "embedding_dropout",
    "chunk_size_feed_forward",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "is_decoder",
    "cross_attention_hidden_size",
    // tokenizers
    "tokenizer_class",
    "prefix",
    // generation
    "max_length",
    "max_new_tokens",
    "min_length",
    "do_sample",
    "early_stopping",
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "num_return_sequences",
    "remove_invalid_values",
    "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
});

constexpr auto experts = std::to_array<std::string_view>({
    "num_local_experts",
    "num_experts",
    "n_routed_experts",
    "n_shared_experts",
    "num_shared_experts",
    "num_experts_per_tok",
    "num_experts_per_token",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "moe_num_experts",
    "moe_top_k",
    "decoder_sparse_step",
    "mlp_only_layers",
    "moe_layers",
    "moe_layer_freq",
    "ffn_config",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "norm_topk_prob",
});

template <std::size_t n>
bool contains(const std::array<std::string_view, n>& list, std::string_view key) {
  return std::find(list.begin(), list.end(), key) != list.end();
}

std::string plain_number(double value) {
  return std::abs(value) < 1e15 && value == std::floor(value) ? fmt::format("{:.0f}", value)
                                                              : fmt::format("{}", value);
}

}  // namespace

std::string shown(const Json& value) {
  if (value.is_string()) return quoted(value.as_string());
  const std::string text = value.dump();
  return text.size() <= 80 ? text : text.substr(0, 80) + "...";
}

bool harmless_key(std::string_view key) {
  return key.starts_with('_') || key.starts_with("summary_") || key.ends_with("_dropout") ||
         key.ends_with("_pdrop") || key.ends_with("_dropout_prob") || key.ends_with("_token_id") ||
         contains(harmless, key);
}

bool expert_key(std::string_view key) { return contains(experts, key); }

void refuse_experts(std::string_view key, std::string_view found) {
  fail_input("AR-004", "mixture-of-experts models are not supported yet",
             {{"key", std::string(key)}, {"found", std::string(found)}},
             "use a dense model of the same family");
}

Keys::Keys(const Json& object, std::string path) : object_(object), path_(std::move(path)) {
  if (object.is_object()) return;
  std::string what = path_.empty() ? "config.json" : path_.substr(0, path_.size() - 1);
  fail_input("AR-002", fmt::format("{} must be a JSON object", what),
             {{"key", what}, {"found", shown(object)}, {"need", "an object"}});
}

void Keys::wrong(std::string_view key, const Json& found, std::string_view need) const {
  fail_input("AR-002", fmt::format("{}{} in config.json has a value that cannot be", path_, key),
             {{"key", fmt::format("{}{}", path_, key)},
              {"found", shown(found)},
              {"need", std::string(need)}});
}

void Keys::unsupported(std::string_view key, std::string_view need) const {
  const Json* value = object_.find(key);
  fail_input(
      "AR-005",
      fmt::format("{}{} in config.json asks for something that is not supported", path_, key),
      {{"key", fmt::format("{}{}", path_, key)},
       {"found", value != nullptr ? shown(*value) : "nothing"},
       {"need", std::string(need)}});
}

void Keys::contradiction(std::string_view key, std::string_view why) const {
  const Json* value = object_.find(key);
  fail_input("AR-006", fmt::format("{}{} in config.json contradicts other keys", path_, key),
             {{"key", fmt::format("{}{}", path_, key)},
              {"found", value != nullptr ? shown(*value) : "nothing"},
              {"need", std::string(why)}});
}

bool Keys::present(std::string_view key) const { return object_.find(key) != nullptr; }

const Json* Keys::find(std::string_view key) {
  known_.emplace(key);
  const Json* value = object_.find(key);
  return value != nullptr && !value->is_null() ? value : nullptr;
}

const Json* Keys::one_of(const Names& names, std::string_view& used) {
  const Json* result = nullptr;
  for (std::string_view name : names) {
    const Json* value = find(name);
    if (value == nullptr) continue;
    if (result != nullptr && !(*value == *result))
      contradiction(name, fmt::format("{} as {} says, which means the same", shown(*result), used));
    if (result == nullptr) used = name;
    result = value;
  }
  return result;
}

std::optional<i64> Keys::integer(const Names& names, i64 low, i64 high) {
  std::string_view used;
  const Json* value = one_of(names, used);
  if (value == nullptr) return std::nullopt;
  if (!value->is_int() || value->as_int() < low || value->as_int() > high)
    wrong(used, *value, fmt::format("an integer from {} to {}", low, high));
  return value->as_int();
}

i64 Keys::required(const Names& names, i64 low, i64 high) {
  const std::optional<i64> value = integer(names, low, high);
  if (!value)
    fail_input("AR-008", fmt::format("config.json lacks {}{}", path_, *names.begin()),
               {{"key", fmt::format("{}{}", path_, *names.begin())},
                {"need", fmt::format("an integer from {} to {}", low, high)}});
  return *value;
}

std::optional<double> Keys::number(const Names& names, double low, double high) {
  std::string_view used;
  const Json* value = one_of(names, used);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number() || !(value->as_number() >= low && value->as_number() <= high))
    wrong(used, *value,
          fmt::format("a number from {} to {}", plain_number(low), plain_number(high)));
  return value->as_number();
}

std::optional<bool> Keys::boolean(const Names& names) {
  std::string_view used;
  const Json* value = one_of(names, used);
  if (value == nullptr) return std::nullopt;
  if (!value->is_bool()) wrong(used, *value, "true or false");
  return value->as_bool();
}

std::optional<std::string> Keys::word(const Names& names) {
  std::string_view used;
  const Json* value = one_of(names, used);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) wrong(used, *value, "a string");
  return value->as_string();
}

std::optional<std::vector<double>> Keys::numbers(std::string_view key, i64 count, double low,
                                                 double high) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  const std::string need =
      fmt::format("{} numbers from {} to {}", count, plain_number(low), plain_number(high));
  if (!value->is_array() || static_cast<i64>(value->as_array().size()) != count)
    wrong(key, *value, need);
  std::vector<double> result;
  for (const Json& item : value->as_array()) {
    if (!item.is_number() || !(item.as_number() >= low && item.as_number() <= high))
      wrong(key, item, need);
    result.push_back(item.as_number());
  }
  return result;
}

std::optional<std::vector<std::string>> Keys::words(std::string_view key, i64 count) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  const std::string need = fmt::format("{} strings", count);
  if (!value->is_array() || static_cast<i64>(value->as_array().size()) != count)
    wrong(key, *value, need);
  std::vector<std::string> result;
  for (const Json& item : value->as_array()) {
    if (!item.is_string()) wrong(key, item, need);
    result.push_back(item.as_string());
  }
  return result;
}

void Keys::only(std::string_view key, const Json& value, std::string_view meaning) {
  const Json* found = find(key);
  if (found == nullptr || *found == value) return;
  if (found->is_number() && value.is_number() && found->as_number() == value.as_number()) return;
  unsupported(key, fmt::format("{} ({})", shown(value), meaning));
}

void Keys::known(const Names& names) {
  for (std::string_view name : names) known_.emplace(name);
}

void Keys::finish(std::string_view what) const {
  for (const auto& [key, value] : object_.as_object()) {
    if (value.is_null() || known_.contains(key)) continue;
    if (expert_key(key)) refuse_experts(path_ + key, shown(value));
    if (path_.empty() && harmless_key(key)) continue;
    fail_input("AR-003",
               fmt::format("config.json has the key {}, whose meaning for {} is not known",
                           quoted(path_ + key), what),
               {{"key", quoted(path_ + key)}, {"found", shown(value)}},
               "running the model without it could compute something else; remove the key if it "
               "does not matter");
  }
}

}  // namespace pare::arch
