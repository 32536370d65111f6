// What several commands share: reading ids and text, words for codes.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "app/commands.h"
#include "file/io.h"

namespace pare {

std::optional<KvScheme> parse_kv(const std::string& text) {
  if (text.empty()) return std::nullopt;
  return parse_kv_scheme(text);
}

// Standard input, pipes and devices are read to their end; regular files go through file/io.
std::string read_text_argument(const std::string& path) {
  constexpr std::size_t limit = std::size_t{4} << 30;
  std::error_code status;
  const bool stream = path == "-" || std::filesystem::is_fifo(path, status) ||
                      std::filesystem::is_character_file(path, status);
  if (!stream) return read_text_file(path, limit);
  const int descriptor = path == "-" ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0)
    fail_input("IO-001", "cannot open a file", {{"file", path}, {"found", system_reason(errno)}});
  std::string text;
  char buffer[65536];
  for (;;) {
    const ssize_t n = read(descriptor, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) {
      stop_if_interrupted();
      continue;
    }
    if (n < 0)
      fail_input("IO-004", "cannot read a file", {{"file", path}, {"found", system_reason(errno)}});
    if (n == 0) break;
    text.append(buffer, static_cast<std::size_t>(n));
    if (text.size() > limit)
      fail(Exit::resources, "CL-022", "the input is too long", {{"file", path}});
  }
  if (descriptor != STDIN_FILENO) close(descriptor);
  return text;
}

std::vector<Sequence> read_ids(const std::filesystem::path& path) {
  const std::string text = read_text_argument(path.string());
  std::vector<Sequence> sequences;
  std::size_t at = 0, number = 0;
  while (at < text.size()) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = std::string_view(text).substr(at, end - at);
    at = end + 1;
    number++;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    try {
      Sequence sequence;
      const Json list = parse_json(line, "the list of ids");
      for (const Json& id : list.as_array()) {
        const i64 value = id.as_int();
        if (value < 0 || value > 0x7fffffff)
          fail_input("CL-005", "a token id is out of range", {{"found", std::to_string(value)}});
        sequence.ids.push_back(static_cast<std::int32_t>(value));
      }
      if (sequence.ids.empty()) fail_input("CL-006", "the list of ids is empty");
      sequences.push_back(std::move(sequence));
    } catch (Error& e) {
      e.with("line", std::to_string(number)).with("file", path.string());
      throw;
    }
  }
  if (sequences.empty())
    fail_input("CL-007", "there are no token ids in the file", {{"file", path.string()}},
               "one JSON list a line: [1, 42, 7]");
  return sequences;
}

}  // namespace pare
