// Proofs from any bytes: an Error or a proof that survives its own form, never a crash.
#include "recipe/proof.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const pare::Json json =
        pare::parse_json({reinterpret_cast<const char*>(data), size}, "fuzz.json");
    const std::string once = pare::to_json(pare::parse_proof(json, "fuzz.json")).dump();
    const pare::Proof again = pare::parse_proof(pare::parse_json(once, "again"), "again");
    PARE_CHECK(pare::to_json(again).dump() == once);
  } catch (const pare::Error&) {
  }
  return 0;
}
