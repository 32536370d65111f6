// libFuzzer target: what parses as a scheme prints to text that parses to the same scheme.
#include <cstdint>
#include <cstdlib>

#include "number/kv_scheme.h"
#include "number/scheme.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const pare::Scheme scheme = pare::parse_scheme(text);
    if (!(pare::parse_scheme(pare::to_string(scheme)) == scheme)) std::abort();
  } catch (const pare::Error&) {
  }
  try {
    const pare::Activation activation = pare::parse_activation(text);
    if (!(pare::parse_activation(pare::to_string(activation)) == activation)) std::abort();
  } catch (const pare::Error&) {
  }
  try {
    const pare::KvScheme scheme = pare::parse_kv_scheme(text);
    if (!(pare::parse_kv_scheme(pare::to_string(scheme)) == scheme)) std::abort();
  } catch (const pare::Error&) {
  }
  return 0;
}
