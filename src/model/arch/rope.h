// Rotary positions in config.json: the keys of Transformers 4 (rope_theta, rope_scaling) and of 5
// (rope_parameters), read into one Rope and written back.
#pragma once

#include "model/arch/config.h"
#include "model/spec.h"

namespace pare::arch {

// What a family's config leaves unsaid.
struct RopeHints {
  i64 head_dim = 0;                   // rotated dimensions before a partial factor
  i64 max_positions = 0;              //
  Names theta_keys = {"rope_theta"};  // top-level spellings
  Names partial_keys = {};            // top-level spellings; empty: all of the head turns
  double partial = 1;                 // when absent
  bool interleaved = false;           //
  i64 original_positions = 0;         // class default of the top-level key (Phi-3); 0: none
  bool longrope_aliases = false;      // "su" and "yarn" are old names of longrope (Phi-3)
  bool mscale_in_scores = false;      // MLA: yarn's mscale_all_dim also scales the scores
};

struct RopeConfig {
  Rope rope;
  double score_factor = 1;  // multiplies the attention scale: m^2 of YaRN in MLA models
};

RopeConfig parse_rope(Keys&, const RopeHints&);

// Writes the keys that parse_rope reads; in the style that `config` has, else in that of 4.x, which
// every reader knows. A rope that the keys cannot say is found by reading them back.
void unparse_rope(Json& config, const RopeConfig&, const RopeHints&);

}  // namespace pare::arch
