// What qwen2 and qwen3 share: use_sliding_window, sliding_window, max_window_layers, layer_types.
#pragma once

#include "model/arch/common.h"

namespace pare::arch {

void read_qwen_windows(Keys&, Spec&);
void put_qwen_windows(Json&, const Spec&);

}  // namespace pare::arch
