// Storing matrices as plain floats of one code: the way back from any quantized form.
#pragma once

#include <string>

#include "pass/pass.h"

namespace pare {

// Every matrix becomes plain f32, f16 or bf16; vectors stay as they are.
Pass cast_pass(Code code);

Code parse_float_code(const std::string& word);  // Error CL-012 lists f32, f16, bf16

}  // namespace pare
