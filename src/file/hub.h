// MODEL arguments: a path, or org/name[@revision] in the local Hugging Face cache. Nothing is
// downloaded.
#pragma once

#include <filesystem>
#include <string>

namespace pare {

// An existing path as it is; else org/name (or a name alone) looked up in HF_HUB_CACHE,
// $HF_HOME/hub or ~/.cache/huggingface/hub (models--org--name/snapshots/<revision>, the revision
// from refs/, by default refs/main). Errors: HB-001 no such path (with the nearest name beside it),
// HB-002 not in the cache either, HB-003 no such revision, HB-004 a damaged cache entry.
std::filesystem::path resolve_model(const std::string& argument);

// Where the cache lies by the environment; empty when there is no home folder.
std::filesystem::path hub_cache_folder();

}  // namespace pare
