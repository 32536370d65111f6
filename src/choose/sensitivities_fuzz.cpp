// Sensitivities from any bytes: an Error or a document that reads back as itself, never a crash.
#include "choose/sensitivities.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const pare::Sensitivities s =
        pare::parse_sensitivities({reinterpret_cast<const char*>(data), size}, "fuzz.json");
    const pare::Json json = pare::to_json(s);
    PARE_CHECK(pare::to_json(pare::parse_sensitivities(json.dump(), "again.json")) == json);
  } catch (const pare::Error&) {
  }
  return 0;
}
