// pare show: what a model is.
//
// The Spec says almost everything; the weights are only read for the integrity line (finite
// values), which --no-scan leaves out.
#include <algorithm>
#include <map>

#include "app/commands.h"
#include "model/integrity.h"

namespace pare {
namespace {

struct PartBytes {
  i64 parameters = 0, bytes = 0;
};

std::string part_of(const std::string& name) {
  if (name.starts_with("embed") || name.starts_with("positions")) return "embedding";
  if (name.starts_with("head")) return "head";
  if (name.find(".attn.") != std::string::npos && name.find("norm") == std::string::npos)
    return "attention";
  if (name.find(".ffn.") != std::string::npos) return "ffn";
  return "norms";
}

i64 elements(const Slot& slot) {
  i64 n = 1;
  for (i64 d : slot.shape) n *= d;
  return n;
}

i64 slot_bytes(const Slot& slot, const Model& model) {
  const auto it = model.weights.find(slot.name);
  const Scheme& scheme = it != model.weights.end() ? it->second.scheme : slot.scheme;
  return slot.shape.size() == 2 ? stored_bytes(scheme, slot.shape[0], slot.shape[1])
                                : stored_bytes(scheme, 1, elements(slot));
}

std::string shape_text(const std::vector<i64>& shape) {
  std::string text;
  for (i64 d : shape) text += (text.empty() ? "" : " x ") + std::to_string(d);
  return text;
}

std::string attention_kind(const Attention& a) {
  std::string kind = a.kv_from >= 0          ? fmt::format("shares block {}", a.kv_from)
                     : a.mla()               ? fmt::format("MLA {}", a.kv_rank)
                     : a.kv_heads == a.heads ? "MHA"
                     : a.kv_heads == 1       ? "MQA"
                                             : fmt::format("GQA {}", a.kv_heads);
  if (a.window > 0) kind += fmt::format(", window {}", a.window);
  if (a.sinks > 0) kind += fmt::format(", sinks {}", a.sinks);
  return kind;
}

const char* act_name(Act act) {
  static constexpr const char* names[] = {"silu", "gelu", "gelu_tanh", "relu", "relu2"};
  return names[static_cast<int>(act)];
}

// One line for each run of equal blocks.
std::string block_table(const Spec& spec) {
  Table table({"blocks", "attention", "heads", "head dim", "ffn", "scheme of q / down"});
  const i64 n = static_cast<i64>(spec.blocks.size());
  for (i64 begin = 0; begin < n;) {
    i64 end = begin + 1;
    const Block& b = spec.blocks[static_cast<std::size_t>(begin)];
    while (end < n && spec.blocks[static_cast<std::size_t>(end)] == b) end++;
    std::string scheme = to_string(b.attn.q.scheme) + " / " + to_string(b.ffn.down.scheme);
    if (b.ffn.down.activation.per != Activation::Per::none)
      scheme += " x " + to_string(b.ffn.down.activation);
    table.add(
        {end - begin == 1 ? std::to_string(begin) : fmt::format("{}-{}", begin, end - 1),
         attention_kind(b.attn) + (b.parallel ? ", parallel" : ""), std::to_string(b.attn.heads),
         std::to_string(b.attn.qk_dim),
         fmt::format("{} {}{}", b.ffn.up.out, act_name(b.ffn.act), b.ffn.gated ? " gated" : ""),
         scheme});
    begin = end;
  }
  return table.text(true);
}

Json group_json(const std::map<std::string, PartBytes>& groups) {
  Json result = Json::object();
  for (const auto& [name, g] : groups)
    result.set(name, Json::object({{"parameters", Json(g.parameters)}, {"bytes", Json(g.bytes)}}));
  return result;
}

std::string group_table(const std::map<std::string, PartBytes>& groups, const char* title,
                        i64 total) {
  Table table({title, "parameters", "bytes", "share"});
  for (const auto& [name, g] : groups)
    table.add({name, human_count(static_cast<double>(g.parameters)),
               human_bytes(static_cast<double>(g.bytes)),
               fmt::format("{:.1f} %",
                           100.0 * static_cast<double>(g.bytes) / static_cast<double>(total))});
  return table.text();
}

// The recipe's text is in --json.
std::string provenance_text(const Provenance& p) {
  const std::string data =
      p.data.empty() ? "" : fmt::format("; learnt from {}; seed {}", p.data, p.seed);
  return fmt::format("  from        model {} by pare {}{}\n", p.base, p.version, data);
}

}  // namespace

void command_show(const ShowOptions& o, const CommonOptions& common, const Output& out) {
  const Model model = load_model(o.model, {common.tokenizer});
  const Spec& spec = model.spec;
  std::map<std::string, PartBytes> parts, schemes;
  i64 total = 0;
  const std::vector<Slot> list = slots(spec);
  for (const Slot& slot : list) {
    const i64 bytes = slot_bytes(slot, model);
    const auto it = model.weights.find(slot.name);
    const std::string scheme =
        to_string(it != model.weights.end() ? it->second.scheme : slot.scheme);
    for (PartBytes* g : {&parts[part_of(slot.name)], &schemes[scheme]}) {
      g->parameters += elements(slot);
      g->bytes += bytes;
    }
    total += bytes;
  }
  const i64 count = parameters(spec);
  const double bits = 8.0 * static_cast<double>(total) / static_cast<double>(count);
  const KvScheme kv = o.kv.empty() ? default_kv(spec) : parse_kv_scheme(o.kv);
  const double kv_bytes = kv_bytes_per_token(spec, kv);

  std::optional<Integrity> integrity_report;
  if (o.scan) {
    Pool pool(common.threads);
    integrity_report = integrity(model, pool, out.log);
  }
  const i64 bad = integrity_report ? integrity_report->non_finite : 0;
  const std::string state = !integrity_report ? "names and shapes agree; values not read"
                            : bad == 0        ? "names and shapes agree; all values are finite"
                                       : fmt::format("{} values are not finite, first in {}", bad,
                                                     integrity_report->first_bad);
  if (out.json) {
    Json result = Json::object(
        {{"model", Json(o.model)},
         {"family", Json(model.family)},
         {"parameters", Json(count)},
         {"weight_bytes", Json(total)},
         {"bits_per_weight", Json(bits)},
         {"kv_code", Json(to_string(kv))},
         {"kv_bytes_per_token", Json(kv_bytes)},
         {"dim", Json(spec.dim)},
         {"blocks", Json(spec.blocks.size())},
         {"vocab", Json(spec.vocab)},
         {"max_positions", Json(spec.max_positions)},
         {"tied", Json(spec.tied)},
         {"by_part", group_json(parts)},
         {"by_scheme", group_json(schemes)},
         {"integrity", Json::object({{"structure", Json("ok")},
                                     {"scanned", Json(o.scan)},
                                     {"non_finite", integrity_report ? Json(bad) : Json()}})}});
    Json::Array history;
    for (const std::string& line : model.history) history.emplace_back(line);
    result.set("history", Json(std::move(history)));
    Json::Array provenance;
    for (const Provenance& p : model.provenance) provenance.push_back(to_json(p));
    result.set("provenance", Json(std::move(provenance)));
    if (o.tensors) {
      Json::Array tensors;
      for (const Slot& slot : list) {
        Json::Array shape;
        for (i64 d : slot.shape) shape.emplace_back(d);
        const auto it = model.weights.find(slot.name);
        tensors.push_back(Json::object(
            {{"name", Json(slot.name)},
             {"shape", Json(std::move(shape))},
             {"scheme",
              Json(to_string(it != model.weights.end() ? it->second.scheme : slot.scheme))},
             {"bytes", Json(slot_bytes(slot, model))}}));
      }
      result.set("tensors", Json(std::move(tensors)));
    }
    out.result("show", result);
  } else {
    std::string text = fmt::format(
        "{}\n  family      {}\n  parameters  {}\n  weights     {}, {:.2f} bits each\n"
        "  width       {}, {} blocks, vocabulary {}{}, context {}\n"
        "  cache       {} bytes a token in {}\n  integrity   {}\n",
        o.model, model.family, human_count(static_cast<double>(count)),
        human_bytes(static_cast<double>(total)), bits, spec.dim, spec.blocks.size(), spec.vocab,
        spec.tied ? " (head tied)" : "", spec.max_positions, kv_bytes, to_string(kv), state);
    for (const std::string& line : model.history) text += "  made by     " + line + "\n";
    for (const Provenance& p : model.provenance) text += provenance_text(p);
    text += "\n" + block_table(spec) + "\n" + group_table(parts, "part", total) + "\n" +
            group_table(schemes, "scheme", total);
    if (o.tensors) {
      Table table({"tensor", "shape", "scheme", "bytes"});
      for (const Slot& slot : list) {
        const auto it = model.weights.find(slot.name);
        table.add({slot.name, shape_text(slot.shape),
                   to_string(it != model.weights.end() ? it->second.scheme : slot.scheme),
                   std::to_string(slot_bytes(slot, model))});
      }
      text += "\n" + table.text();
    }
    out.text(text);
  }
  if (bad > 0)
    fail_input("MO-020", "the model has values that are not finite",
               {{"tensor", integrity_report->first_bad}, {"found", fmt::format("{} values", bad)}},
               "copy or download the file again");
}

}  // namespace pare
