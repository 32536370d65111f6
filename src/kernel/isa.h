// What this machine can execute, asked once.
#pragma once

#include <string>

namespace pare {

// Classes of machine, not single features; each includes those before it.
enum Isa : unsigned {
  isa_scalar = 0,
  isa_avx2 = 1,    // with FMA, F16C, BMI2: Haswell and later
  isa_avx512 = 2,  // F BW DQ VL VNNI BF16 VBMI: Zen 4, Sapphire Rapids and later
  isa_amx = 4,     // tiles, int8 and bf16, with the kernel's permission
};

// The classes present, narrowed by PARE_ISA (scalar, avx2, avx512, amx); Error CL-011 for another
// word or for an ISA this machine lacks.
unsigned isa_here();
std::string isa_name(unsigned isa);  // "scalar", "avx2", "avx512", "amx": the highest bit

}  // namespace pare
