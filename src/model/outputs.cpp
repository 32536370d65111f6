// From slots to checkpoint tensors.
//
// A fused tensor holds rows of several slots, in runs or interleaved head by head; the families say
// which. Parts that each have one scale for the whole matrix keep their values: the fused matrix
// gets one scale a row, with the part's scale repeated.
#include "model/outputs.h"

#include <algorithm>
#include <map>

namespace pare {
namespace {

Scheme per_row(Scheme s) {
  if (s.grouping == Grouping::tensor) s.grouping = Grouping::channel;
  return s;
}

Tensor expand_scale(Tensor t) {
  if (t.scheme.grouping != Grouping::tensor) return t;
  const std::size_t rows = static_cast<std::size_t>(t.rows());
  const auto repeat = [&](Blob& plane) {
    std::vector<std::byte> out;
    out.reserve(plane.size() * rows);
    for (std::size_t r = 0; r < rows; r++)
      out.insert(out.end(), plane.bytes.begin(), plane.bytes.end());
    plane = blob_of(std::move(out));
  };
  for (Blob* plane : {&t.scales, &t.zeros, &t.mins})
    if (plane->size() > 0) repeat(*plane);
  t.scheme = per_row(t.scheme);
  return t;
}

bool has_companions(const Linear& l) {
  return l.rank > 0 || l.outliers > 0 || l.input_scaled || l.rotation > 0;
}

void add_slot(Output& o, const Slot& slot, const Source& source, const Weight& weight) {
  const Activation activation = slot.linear != nullptr ? slot.linear->activation : Activation{};
  if (o.parts.empty()) {
    o.name = source.name;
    o.transposed = source.transposed && slot.shape.size() == 2;
    o.linear = slot.linear != nullptr;
    o.scheme = weight.scheme;
    o.activation = activation;
    o.shape = slot.shape;
    o.shape[0] = 0;
  }
  o.permuted = o.permuted || (slot.linear != nullptr && slot.linear->permuted);
  o.companions = o.companions || (slot.linear != nullptr && has_companions(*slot.linear));
  o.uniform = o.uniform && o.scheme == weight.scheme && o.activation == activation;
  o.shape[0] += slot.shape[0];
  o.parts.push_back({slot.name, source.rows});
}

}  // namespace

std::optional<std::vector<Output>> outputs_of(const Model& m, const Family& family) {
  std::vector<Output> list;
  std::map<std::string, std::size_t> index;
  try {
    for (const Slot& slot : slots(m.spec)) {
      if (slot.name.ends_with(".static_scale") || slot.name.ends_with(".permutation")) continue;
      const Source source = family.source(slot, m.spec, m.config);
      const auto [it, fresh] = index.try_emplace(source.name, list.size());
      if (fresh) list.emplace_back();
      add_slot(list[it->second], slot, source, m.weights.find(slot.name)->second);
    }
  } catch (const Error& e) {
    if (e.code == "AR-007") return std::nullopt;
    throw;
  }
  for (Output& o : list)
    if (o.parts.size() > 1 && o.uniform) o.scheme = per_row(o.scheme);
  return list;
}

Tensor build(const Model& m, const Output& o) {
  std::vector<Tensor> parts;
  struct Piece {
    i64 begin, from, count;  // rows of the output, and where they are among the parts
  };
  std::vector<Piece> pieces;
  i64 offset = 0;
  for (const Output::Part& p : o.parts) {
    Tensor t = m.weights.find(p.slot)->second.load();
    if (o.parts.size() > 1) t = expand_scale(std::move(t));
    i64 at = 0;
    for (const RowRange& r : p.rows) {
      pieces.push_back({r.begin, offset + at, r.count});
      at += r.count;
    }
    offset += t.shape[0];
    parts.push_back(std::move(t));
  }
  Tensor whole = parts.size() == 1 ? std::move(parts[0]) : concat_rows(parts);
  parts.clear();
  if (!pieces.empty()) {
    std::sort(pieces.begin(), pieces.end(),
              [](const Piece& a, const Piece& b) { return a.begin < b.begin; });
    std::vector<RowRange> order;  // runs that follow each other are one
    for (const Piece& p : pieces)
      if (!order.empty() && order.back().begin + order.back().count == p.from)
        order.back().count += p.count;
      else
        order.push_back({p.from, p.count});
    whole = select_rows(whole, order);
  }
  return o.transposed ? transpose(whole) : whole;
}

std::string tied_head_module(const Model& m, const Family& family) {
  Spec untied = m.spec;
  untied.tied = false;
  for (const Slot& slot : slots(untied))
    if (slot.name == "head.weight") {
      const std::string name = family.source(slot, untied, m.config).name;
      return name.substr(0, name.rfind('.'));
    }
  return {};
}

}  // namespace pare
