// MODEL arguments: a path, or org/name[@revision] in the local Hugging Face cache. Nothing is
// downloaded.
#pragma once

#include <filesystem>
#include <string>

namespace pare {

// An existing path as it is; else org/name looked up in HF_HUB_CACHE, $HF_HOME/hub or
// ~/.cache/huggingface/hub (models--org--name/snapshots/<revision>, the revision from refs/).
// Errors: HB-001 no such path (with the nearest name beside it), HB-002 not in the cache, HB-003 no
// such revision.
std::filesystem::path resolve_model(const std::string& argument);

}  // namespace pare
