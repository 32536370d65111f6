// Reading one safetensors file.
//
// Every number of the header is checked before it is used, and the tensors must tile the data
// buffer exactly, so there is no byte that two readers could understand differently. Cost: one pass
// over the header, one sort of its entries; no tensor is touched.
#include "file/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/json.h"

namespace pare {
namespace {

struct DtypeRow {
  const char* name;
  int bits;
};
constexpr DtypeRow dtypes[] = {
    {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
    {"I64", 64},        {"U64", 64}};

constexpr std::uint64_t header_limit = 100'000'000;
constexpr std::size_t tensor_limit = 1u << 20, name_limit = 4096, rank_limit = 8;
// An entry has at most its object, dtype, shape with 8 numbers, offsets with 2: 14 values, and no
// entry takes fewer than 4 bytes a value. More is an attempt to fill the memory.
constexpr std::size_t value_limit = 14 * tensor_limit;

[[noreturn]] void bad(std::string_view code, const std::string& what, std::string message,
                      std::vector<Fact> facts = {}, std::string hint = {}) {
  facts.insert(facts.begin(), {"file", what});
  fail_input(code, std::move(message), std::move(facts), std::move(hint));
}

i64 natural(const Json& value, const std::string& what, const std::string& tensor,
            const char* field) {
  if (!value.is_int() || value.as_int() < 0)
    bad("ST-005", what, fmt::format("{} of a tensor is not a natural number", field),
        {{"tensor", pare::quoted(tensor)},
         {"found", value.is_number() || value.is_string() ? value.dump() : value.type_name()}});
  return value.as_int();
}

void check_name(const std::string& name, const std::string& what) {
  const bool control =
      std::any_of(name.begin(), name.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  if (name.empty() || name.size() > name_limit || control)
    bad("ST-004", what, "a tensor has an unusable name",
        {{"tensor", pare::quoted(name)}, {"need", "1 to 4096 bytes, no control characters"}});
}

struct Entry {
  StoredTensor tensor;
  std::uint64_t begin = 0, end = 0;
};

Entry parse_entry(const std::string& name, const Json& value, const std::string& what) {
  check_name(name, what);
  Entry e;
  e.tensor.name = name;
  const Json *dtype = value.find("dtype"), *shape = value.find("shape"),
             *offsets = value.find("data_offsets");
  if (dtype == nullptr || shape == nullptr || offsets == nullptr || !dtype->is_string() ||
      !shape->is_array() || !offsets->is_array() || offsets->as_array().size() != 2)
    bad("ST-005", what, "a tensor's entry is incomplete",
        {{"tensor", pare::quoted(name)}, {"need", "dtype, shape and data_offsets [begin, end]"}});
  const std::optional<Dtype> known = find_dtype(dtype->as_string());
  if (!known) {
    std::string list;
    for (const DtypeRow& row : dtypes) list += std::string(list.empty() ? "" : " ") + row.name;
    bad("ST-006", what, "a tensor has an unknown dtype",
        {{"tensor", pare::quoted(name)},
         {"found", pare::quoted(dtype->as_string())},
         {"need", list}});
  }
  e.tensor.dtype = *known;
  if (shape->as_array().size() > rank_limit)
    bad("ST-007", what, "a tensor has too many axes",
        {{"tensor", pare::quoted(name)},
         {"found", std::to_string(shape->as_array().size())},
         {"need", "at most 8"}});
  for (const Json& d : shape->as_array()) e.tensor.shape.push_back(natural(d, what, name, "shape"));
  e.begin = static_cast<std::uint64_t>(natural(offsets->as_array()[0], what, name, "data_offsets"));
  e.end = static_cast<std::uint64_t>(natural(offsets->as_array()[1], what, name, "data_offsets"));
  return e;
}

// shape x dtype in bytes; fails on overflow and on sub-byte tensors that end inside a byte. Axes of
// length 0 make the tensor empty but hide no overflow of the others, so whoever multiplies a shape
// later, in any order, stays within i64.
std::uint64_t bytes_of(const Entry& e, const std::string& what) {
  std::uint64_t bits = static_cast<std::uint64_t>(dtype_bits(e.tensor.dtype));
  bool good = true, empty = false;
  for (i64 d : e.tensor.shape) {
    good = good && mul_ok(bits, static_cast<std::uint64_t>(std::max<i64>(d, 1)), bits);
    empty = empty || d == 0;
  }
  if (!good || bits > static_cast<std::uint64_t>(std::numeric_limits<i64>::max()))
    bad("ST-008", what, "a tensor's shape overflows", {{"tensor", pare::quoted(e.tensor.name)}});
  if (empty) return 0;
  if (bits % 8 != 0)
    bad("ST-009", what, "a tensor ends inside a byte",
        {{"tensor", pare::quoted(e.tensor.name)}, {"found", fmt::format("{} bits", bits)}});
  return bits / 8;
}

void tile(std::vector<Entry>& entries, const Blob& data, const std::string& what) {
  std::vector<Entry*> order;
  for (Entry& e : entries) order.push_back(&e);
  std::stable_sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  std::uint64_t at = 0;
  for (Entry* e : order) {
    const auto range = fmt::format("data_offsets [{}, {}]", e->begin, e->end);
    if (e->begin != at || e->end < e->begin)
      bad("ST-010", what,
          e->begin < at ? "tensors overlap or run backwards" : "there is a hole between tensors",
          {{"tensor", pare::quoted(e->tensor.name)},
           {"found", range},
           {"need", fmt::format("begin {}", at)}});
    const std::uint64_t need = bytes_of(*e, what);
    if (e->end - e->begin != need)
      bad("ST-011", what, "a tensor's bytes do not fit its shape and dtype",
          {{"tensor", pare::quoted(e->tensor.name)},
           {"found", fmt::format("{} bytes", e->end - e->begin)},
           {"need", fmt::format("{} bytes", need)}});
    if (e->end > data.size())
      bad("ST-012", what, "a tensor ends after the end of the file",
          {{"tensor", pare::quoted(e->tensor.name)},
           {"found", range},
           {"need", fmt::format("{} more bytes", e->end - data.size())}},
          "the file is cut short; copy or download it again");
    e->tensor.bytes = data.slice(e->begin, need);
    at = e->end;
  }
  if (at != data.size())
    bad("ST-013", what, "bytes follow the last tensor",
        {{"found", fmt::format("{} bytes of data", data.size())}, {"need", fmt::format("{}", at)}});
}

}  // namespace

std::string_view dtype_name(Dtype d) { return dtypes[static_cast<std::size_t>(d)].name; }
int dtype_bits(Dtype d) { return dtypes[static_cast<std::size_t>(d)].bits; }
std::optional<Dtype> find_dtype(std::string_view name) {
  for (std::size_t i = 0; i < std::size(dtypes); i++)
    if (name == dtypes[i].name) return static_cast<Dtype>(i);
  return std::nullopt;
}

namespace {

// The header's text, once its length is known to be plausible.
std::string_view header_text(const Blob& file, const std::string& what) {
  const std::string short_hint = "the file is cut short; copy or download it again";
  if (file.size() < 8)
    bad("ST-001", what, "too short for a safetensors file",
        {{"found", fmt::format("{} bytes", file.size())}, {"need", "8 and more"}}, short_hint);
  touch(file.slice(0, 8), "the header of " + what);
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  if (length < 2 || length > header_limit)
    bad("ST-002", what, "the header's length is not plausible",
        {{"found", fmt::format("{} bytes", length)},
         {"need", fmt::format("2 to {}", header_limit)}},
        "this is not a safetensors file, or it is damaged");
  if (length > file.size() - 8)
    bad("ST-003", what, "the header ends after the end of the file",
        {{"found", fmt::format("{} bytes", file.size())},
         {"need", fmt::format("{} and more", length + 8)}},
        short_hint);
  touch(file.slice(8, length), "the header of " + what);
  return {reinterpret_cast<const char*>(file.data()) + 8, length};
}

Json parse_header(std::string_view text, const std::string& what) {
  JsonLimits limits;
  limits.depth = 4;
  limits.values = std::min<std::size_t>(value_limit, text.size() / 4 + 16);
  Json header;
  try {
    header = parse_json(text, "the header", limits);
  } catch (Error& e) {
    e.with("file", what);
    throw;
  }
  if (!header.is_object())
    bad("ST-004", what, "the header is not an object", {{"found", header.type_name()}});
  return header;
}

std::vector<std::pair<std::string, std::string>> parse_metadata(const Json& value,
                                                                const std::string& what) {
  if (!value.is_object())
    bad("ST-014", what, "__metadata__ is not an object", {{"found", value.type_name()}});
  std::vector<std::pair<std::string, std::string>> metadata;
  for (const Json::Member& item : value.as_object()) {
    if (!item.second.is_string())
      bad("ST-014", what, "a value of __metadata__ is not a string",
          {{"key", pare::quoted(item.first)}, {"found", item.second.type_name()}});
    metadata.emplace_back(item.first, item.second.as_string());
  }
  return metadata;
}

}  // namespace

Safetensors parse_safetensors(const Blob& file, const std::string& what) {
  const std::string_view text = header_text(file, what);
  const Json header = parse_header(text, what);
  Safetensors result;
  std::vector<Entry> entries;
  for (const Json::Member& m : header.as_object()) {
    if (m.first != "__metadata__") {
      entries.push_back(parse_entry(m.first, m.second, what));
      continue;
    }
    result.metadata = parse_metadata(m.second, what);
  }
  if (entries.size() > tensor_limit)
    bad("ST-015", what, "too many tensors", {{"found", std::to_string(entries.size())}});
  const std::size_t front = 8 + text.size();
  tile(entries, file.slice(front, file.size() - front), what);
  for (Entry& e : entries) result.tensors.push_back(std::move(e.tensor));
  return result;
}

}  // namespace pare
