// Reading GGUF.
//
// Every count is compared with the bytes that remain before anything is allocated, keys and names
// go through hash sets (a file may hold a million), and offsets must be the running sum of padded
// sizes, as ggml demands. The metadata of a mapped file is made readable a piece at a time, so a
// file that is cut meanwhile is an Error and the tensors behind it are not read in.
#include "file/gguf.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <unordered_set>

#include "file/io.h"

namespace pare {
namespace {

constexpr GgmlType ggml_types[] = {
    {0, "F32", 1, 4},         {1, "F16", 1, 2},         {2, "Q4_0", 32, 18},
    {3, "Q4_1", 32, 20},      {6, "Q5_0", 32, 22},      {7, "Q5_1", 32, 24},
    {8, "Q8_0", 32, 34},      {9, "Q8_1", 32, 36},      {10, "Q2_K", 256, 84},
    {11, "Q3_K", 256, 110},   {12, "Q4_K", 256, 144},   {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210},   {15, "Q8_K", 256, 292},   {16, "IQ2_XXS", 256, 66},
    {17, "IQ2_XS", 256, 74},  {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50},
    {20, "IQ4_NL", 32, 18},   {21, "IQ3_S", 256, 110},  {22, "IQ2_S", 256, 82},
    {23, "IQ4_XS", 256, 136}, {24, "I8", 1, 1},         {25, "I16", 1, 2},
    {26, "I32", 1, 4},        {27, "I64", 1, 8},        {28, "F64", 1, 8},
    {29, "IQ1_M", 256, 56},   {30, "BF16", 1, 2},       {34, "TQ1_0", 256, 54},
    {35, "TQ2_0", 256, 66},   {39, "MXFP4", 32, 17},    {40, "NVFP4", 64, 36},
    {41, "Q1_0", 128, 18},    {42, "Q2_0", 64, 18}};

constexpr std::uint64_t string_limit = 64u << 20;
constexpr int scalar_bytes[13] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
enum ValueType : std::uint32_t {
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  string,
  array,
  u64,
  i64_type,
  f64
};

class Reader {
 public:
  Reader(const Blob& file, const std::string& what) : file_(file), what_(what) {}

  Gguf read() {
    const std::uint32_t magic = take<std::uint32_t>(), version = take<std::uint32_t>();
    if (magic != 0x46554747)
      bad("GG-001", "this is not a GGUF file", {{"need", "the letters GGUF at the front"}});
    if ((version & 0xffff) == 0) bad("GG-002", "a GGUF file of the other byte order");
    if (version != 2 && version != 3)
      bad("GG-002", "a GGUF version that is not supported",
          {{"found", std::to_string(version)}, {"need", "2 or 3"}});
    const std::uint64_t tensors = take<std::uint64_t>(), keys = take<std::uint64_t>();
    // The least a tensor or a key can occupy: lengths, types and one character.
    if (tensors > left() / 25 || keys > left() / 14)
      bad("GG-003", "the counts do not fit the file",
          {{"found", fmt::format("{} tensors, {} keys", tensors, keys)}});
    Gguf g;
    g.metadata.reserve(keys);
    for (std::uint64_t k = 0; k < keys; k++) read_key(g);
    read_tensors(g, tensors);
    return g;
  }

 private:
  [[noreturn]] void bad(std::string_view code, std::string message,
                        std::vector<Fact> facts = {}) const {
    facts.insert(facts.begin(), {"file", what_});
    facts.push_back({"offset", fmt::format("byte {}", at_)});
    fail_input(code, std::move(message), std::move(facts));
  }

  std::uint64_t left() const { return file_.size() - at_; }

  // Makes the next bytes readable; the caller knows that the file has them.
  void reach(std::uint64_t bytes) {
    constexpr std::uint64_t piece = 1u << 20;
    if (at_ + bytes <= touched_) return;
    const std::uint64_t end = std::min<std::uint64_t>(file_.size(), at_ + bytes + piece);
    touch(file_.slice(touched_, end - touched_), what_);
    touched_ = end;
  }

  template <class T>
  T take() {
    if (left() < sizeof(T)) bad("GG-004", "the file ends early");
    reach(sizeof(T));
    T value;
    std::memcpy(&value, file_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

  std::string take_string() {
    const std::uint64_t length = take<std::uint64_t>();
    if (length > left() || length > string_limit)
      bad("GG-005", "a string is longer than the file",
          {{"found", fmt::format("{} bytes", length)}});
    reach(length);
    std::string text(reinterpret_cast<const char*>(file_.data()) + at_, length);
    at_ += length;
    return text;
  }

  GgufValue take_scalar(std::uint32_t type) {
    switch (type) {
      case u8:
        return pare::i64{take<std::uint8_t>()};
      case i8:
        return pare::i64{take<std::int8_t>()};
      case u16:
        return pare::i64{take<std::uint16_t>()};
      case i16:
        return pare::i64{take<std::int16_t>()};
      case u32:
        return pare::i64{take<std::uint32_t>()};
      case i32:
        return pare::i64{take<std::int32_t>()};
      case f32:
        return static_cast<double>(take<float>());
      case boolean: {
        const std::uint8_t b = take<std::uint8_t>();
        if (b > 1) bad("GG-006", "a boolean is neither 0 nor 1", {{"found", std::to_string(b)}});
        return b == 1;
      }
      case string:
        return take_string();
      case u64: {
        const std::uint64_t v = take<std::uint64_t>();
        if (v > 0x7fffffffffffffffu)
          bad("GG-006", "an integer is too large", {{"found", std::to_string(v)}});
        return static_cast<pare::i64>(v);
      }
      case i64_type:
        return pare::i64{take<std::int64_t>()};
      case f64:
        return take<double>();
      default:
        bad("GG-006", "a value has an unknown type", {{"found", std::to_string(type)}});
    }
  }

  template <class T, class From>
  GgufValue take_list(std::uint32_t type, std::uint64_t count) {
    std::vector<T> list;
    list.reserve(count);
    for (std::uint64_t i = 0; i < count; i++) {
      GgufValue value = take_scalar(type);
      list.push_back(static_cast<T>(std::get<From>(std::move(value))));
    }
    return list;
  }

  GgufValue take_array() {
    const std::uint32_t type = take<std::uint32_t>();
    const std::uint64_t count = take<std::uint64_t>();
    if (type == array) bad("GG-007", "an array of arrays");
    if (type > f64)
      bad("GG-006", "an array has an unknown type", {{"found", std::to_string(type)}});
    const std::uint64_t least = type == string ? 8 : static_cast<std::uint64_t>(scalar_bytes[type]);
    if (count > left() / least)
      bad("GG-007", "an array is longer than the file",
          {{"found", fmt::format("{} elements", count)}});
    if (type == string) return take_list<std::string, std::string>(type, count);
    if (type == f32 || type == f64) return take_list<double, double>(type, count);
    if (type == boolean) return take_list<pare::i64, bool>(type, count);
    return take_list<pare::i64, pare::i64>(type, count);
  }

  void read_key(Gguf& g) {
    const std::string key = take_string();
    if (key.empty() || key.size() > 65535 || !is_clean_text(key))
      bad("GG-008", "a key is empty, too long or no plain text", {{"key", pare::quoted(key)}});
    const std::uint32_t type = take<std::uint32_t>();
    GgufValue value = type == array ? take_array() : take_scalar(type);
    if (!g.metadata.try_emplace(key, std::move(value)).second)
      bad("GG-009", "a key occurs twice", {{"key", pare::quoted(key)}});
    if (key == "general.alignment") {
      const GgufValue& stored = g.metadata.at(key);
      const pare::i64* a = std::get_if<pare::i64>(&stored);
      if (type != u32 || a == nullptr || *a < 1 || *a > 65536 || (*a & (*a - 1)) != 0)
        bad("GG-010", "the alignment is not a power of two up to 65536");
      alignment_ = static_cast<std::uint64_t>(*a);
    }
  }

  struct Info {
    GgufTensor tensor;
    std::uint64_t offset = 0, bytes = 0;
  };

  Info read_info() {
    Info info;
    GgufTensor& t = info.tensor;
    t.name = take_string();
    if (t.name.empty() || t.name.size() > 63 || !is_clean_text(t.name))
      bad("GG-011", "a tensor's name is empty, longer than 63 bytes or no plain text",
          {{"tensor", pare::quoted(t.name)}});
    const std::uint32_t axes = take<std::uint32_t>();
    if (axes > 4)
      bad("GG-012", "a tensor has more than 4 axes",
          {{"tensor", pare::quoted(t.name)}, {"found", std::to_string(axes)}});
    std::uint64_t count = 1;
    t.shape.resize(axes);
    for (std::uint32_t d = 0; d < axes; d++) {
      const std::int64_t n = take<std::int64_t>();
      if (n < 1 || !mul_ok(count, static_cast<std::uint64_t>(n), count) ||
          count > (std::uint64_t{1} << 48))
        bad("GG-012", "a tensor's shape is empty, negative or overflows",
            {{"tensor", pare::quoted(t.name)}, {"found", std::to_string(n)}});
      t.shape[axes - 1 - d] = n;
    }
    t.type = take<std::uint32_t>();
    const GgmlType* type = find_ggml_type(t.type);
    if (type == nullptr)
      bad("GG-013", "a tensor has an unknown or removed type",
          {{"tensor", pare::quoted(t.name)}, {"found", std::to_string(t.type)}});
    if ((t.shape.empty() ? 1 : t.shape.back()) % type->block != 0)
      bad("GG-014", fmt::format("a {} tensor's rows are not whole blocks", type->name),
          {{"tensor", pare::quoted(t.name)}});
    info.bytes =
        count / static_cast<std::uint64_t>(type->block) * static_cast<std::uint64_t>(type->bytes);
    info.offset = take<std::uint64_t>();
    return info;
  }

  void read_tensors(Gguf& g, std::uint64_t count) {
    std::vector<Info> infos;
    std::unordered_set<std::string_view> names;  // of infos, which does not move
    infos.reserve(count);
    names.reserve(count);
    for (std::uint64_t i = 0; i < count; i++) {
      infos.push_back(read_info());
      if (!names.insert(infos.back().tensor.name).second)
        bad("GG-009", "a tensor occurs twice",
            {{"tensor", pare::quoted(infos.back().tensor.name)}});
    }
    if (count == 0) return;
    const std::uint64_t data = (at_ + alignment_ - 1) / alignment_ * alignment_;
    std::uint64_t running = 0;
    g.tensors.reserve(count);
    for (Info& info : infos) {
      std::uint64_t end = 0;
      if (info.offset != running)
        bad("GG-015", "a tensor is not where the sizes before it say",
            {{"tensor", pare::quoted(info.tensor.name)},
             {"found", std::to_string(info.offset)},
             {"need", std::to_string(running)}});
      if (!add_ok(data, running, end) || !add_ok(end, info.bytes, end) || end > file_.size())
        bad("GG-016", "a tensor ends after the end of the file",
            {{"tensor", pare::quoted(info.tensor.name)},
             {"found", fmt::format("{} bytes", file_.size())},
             {"need", fmt::format("{} bytes", end)}});
      info.tensor.bytes = file_.slice(data + running, info.bytes);
      running += (info.bytes + alignment_ - 1) / alignment_ * alignment_;
      g.tensors.push_back(std::move(info.tensor));
    }
  }

  const Blob& file_;
  const std::string& what_;
  std::uint64_t at_ = 0, touched_ = 0, alignment_ = 32;
};

[[noreturn]] void wrong_type(const std::string& key, const char* need) {
  fail_input("GG-020", "a metadata value has the wrong type",
             {{"key", pare::quoted(key)}, {"need", need}});
}

template <class T>
const T* typed(const Gguf& g, const std::string& key, const char* need) {
  const auto it = g.metadata.find(key);
  if (it == g.metadata.end()) return nullptr;
  const T* value = std::get_if<T>(&it->second);
  if (value == nullptr) wrong_type(key, need);
  return value;
}

}  // namespace

const GgmlType* find_ggml_type(std::uint32_t id) {
  for (const GgmlType& t : ggml_types)
    if (t.id == id) return &t;
  return nullptr;
}

const std::string* Gguf::text(const std::string& key) const {
  return typed<std::string>(*this, key, "a string");
}
std::optional<i64> Gguf::integer(const std::string& key) const {
  const pare::i64* value = typed<pare::i64>(*this, key, "an integer");
  return value == nullptr ? std::nullopt : std::optional(*value);
}
std::optional<bool> Gguf::boolean(const std::string& key) const {
  const bool* value = typed<bool>(*this, key, "a boolean");
  return value == nullptr ? std::nullopt : std::optional(*value);
}
std::optional<double> Gguf::number(const std::string& key) const {
  const auto it = metadata.find(key);
  if (it == metadata.end()) return std::nullopt;
  if (const pare::i64* value = std::get_if<pare::i64>(&it->second))
    return static_cast<double>(*value);
  const double* value = std::get_if<double>(&it->second);
  if (value == nullptr) wrong_type(key, "a number");
  return *value;
}
const std::vector<std::string>* Gguf::texts(const std::string& key) const {
  return typed<std::vector<std::string>>(*this, key, "a list of strings");
}
const std::vector<double>* Gguf::numbers(const std::string& key) const {
  return typed<std::vector<double>>(*this, key, "a list of floats");
}
const std::vector<i64>* Gguf::integers(const std::string& key) const {
  return typed<std::vector<pare::i64>>(*this, key, "a list of integers");
}
const GgufTensor* Gguf::tensor(std::string_view name) const {
  for (const GgufTensor& t : tensors)
    if (t.name == name) return &t;
  return nullptr;
}

Gguf parse_gguf(const Blob& file, const std::string& what) { return Reader(file, what).read(); }

namespace {

[[noreturn]] void bad_split(const std::filesystem::path& file, std::string message,
                            const std::string& found, const std::string& need,
                            std::string hint = {}) {
  fail_input("GG-017", std::move(message),
             {{"file", file.string()}, {"found", found}, {"need", need}}, std::move(hint));
}

std::string shown(const std::optional<i64>& value) {
  return value ? std::to_string(*value) : "nothing";
}

// The tensors of part `number` (from 0) of `count`.
std::vector<GgufTensor> open_part(const std::filesystem::path& path, i64 number, i64 count) {
  std::error_code status;
  if (!std::filesystem::exists(path, status))
    bad_split(path, "a part of a split GGUF file is missing", "no such file",
              fmt::format("{} parts", count), "copy or download all parts into one folder");
  Gguf part = parse_gguf(map_file(path), path.string());
  if (const auto no = part.integer("split.no"); no != number)
    bad_split(path, "a part of a split GGUF file has the wrong number", shown(no),
              std::to_string(number));
  if (const auto all = part.integer("split.count"); all != count)
    bad_split(path, "a part belongs to another split GGUF file", shown(all) + " parts",
              fmt::format("{} parts", count));
  return std::move(part.tensors);
}

}  // namespace

Gguf open_gguf(const std::filesystem::path& path) {
  Gguf whole = parse_gguf(map_file(path), path.string());
  const auto count = whole.integer("split.count");
  if (!count || (*count <= 1 && *count >= 0)) return whole;
  if (*count < 0 || *count > 65535)
    bad_split(path, "the number of parts is not plausible", std::to_string(*count), "1 to 65535");
  const std::string name = path.filename().string(),
                    first = fmt::format("-00001-of-{:05}.gguf", *count);
  if (whole.integer("split.no") != 0 || !name.ends_with(first))
    bad_split(path, "a split GGUF file is opened by its first part", name,
              "a name that ends with " + first);
  std::unordered_set<std::string> names;
  for (const GgufTensor& t : whole.tensors) names.insert(t.name);
  const std::string prefix = name.substr(0, name.size() - first.size());
  for (i64 k = 1; k < *count; k++) {
    const std::filesystem::path part =
        path.parent_path() / fmt::format("{}-{:05}-of-{:05}.gguf", prefix, k + 1, *count);
    for (GgufTensor& t : open_part(part, k, *count)) {
      if (!names.insert(t.name).second)
        fail_input("GG-009", "a tensor occurs in two parts",
                   {{"file", part.string()}, {"tensor", pare::quoted(t.name)}});
      whole.tensors.push_back(std::move(t));
    }
  }
  if (const auto total = whole.integer("split.tensors.count");
      total && *total != static_cast<i64>(whole.tensors.size()))
    bad_split(path, "the parts do not hold all tensors", std::to_string(whole.tensors.size()),
              std::to_string(*total));
  return whole;
}

}  // namespace pare
