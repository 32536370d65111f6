// One constant a family file; model/arch/families.cpp lists them.
#pragma once

#include "model/arch.h"

namespace pare::arch {

extern const Family llama, mistral, qwen2, qwen3, gemma2, phi3, gpt2, gpt_neox, gptj, falcon,
    deepseek_v2, deepseek_v3, minicpm3;

}  // namespace pare::arch
