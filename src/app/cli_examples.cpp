// Examples shown by --help; tools/run_doc_commands.py runs them.
#include <map>

#include "app/cli.h"

namespace pare {
namespace {

const std::map<std::string_view, const char*> examples = {
    {"show", "pare show models/pare-tales\npare show model.gguf --tensors --json"},
    {"run",
     "pare run models/pare-tales \"Once upon a time\" --tokens 60 --greedy\n"
     "pare run MODEL --ids prompts.jsonl --tokens 40 --greedy --json"},
    {"tokenize",
     "pare tokenize models/pare-tales \"The old boat.\"\n"
     "pare tokenize models/pare-tales --file models/heldout.txt --json\n"
     "pare tokenize models/pare-tales --file models/heldout.txt --speed\n"
     "echo '[12, 55]' | pare tokenize models/pare-tales --file - --decode"},
    {"convert",
     "pare convert stories260K.bin --tokenizer tok512.bin -o stories\n"
     "pare convert model-q8_0.gguf -o folder --to bf16"},
    {"quantize",
     "pare quantize models/pare-tales -o out --weights int4:g128\n"
     "pare quantize models/pare-tales -o out --weights int8:channel --activations int8:token\n"
     "pare quantize models/pare-tales -o out --weights int4:g32 --skip 'blocks.0.*' --head "
     "int8:channel\n"
     "pare quantize models/pare-tales -o out --weights int4:g128 --method gptq --text "
     "models/heldout.txt"},
    {"calibrate",
     "pare calibrate models/pare-tales --text models/heldout.txt -o tales.stats\n"
     "pare quantize models/pare-tales -o out --weights int4:g128 --method awq --stats tales.stats"},
    {"apply",
     "pare apply models/pare-tales w4 -o small\n"
     "pare apply models/pare-tales w4-best -o best --text models/heldout.txt --tokens 512"},
    {"recipe",
     "pare recipe list\n"
     "pare recipe show w4-best\n"
     "pare recipe check mixed.toml models/pare-tales"},
    {"choose",
     "pare choose bits models/pare-tales --budget 4.25 --tokens 128 "
     "--candidates int3:g64,int4:g64,int8:channel -o mixed.toml\n"
     "pare quantize models/pare-tales --recipe mixed.toml -o out"},
    {"search",
     "pare search models/pare-tales --max-bytes 2.5e6 --tokens 128 --points 8 --verify 4 "
     "--candidates int3:g64,int4:g64,int8:channel --kv none --hardware h100 -o small.toml"},
    {"export",
     "pare export models/pare-tales -o tales.gguf --format gguf:Q4_K_M\n"
     "pare export out -o folder --format dense:f16\n"
     "pare quantize models/pare-tales -o w4 --weights int4:g128:s=f16\n"
     "pare export w4 -o gptq --format gptq"},
    {"verify", "pare verify models/pare-tales\npare verify out --json"},
    {"eval",
     "pare eval models/pare-tales --text models/heldout.txt\n"
     "pare eval out --text models/heldout.txt --against models/pare-tales --json\n"
     "pare eval models/pare-tales --tasks pairs.jsonl"},
    {"bench", "pare bench models/pare-tales --prompt 256 --generate 64 --batch 1"},
    {"roof", "pare roof\npare roof --seconds 0.1 --json"},
    {"compare",
     "pare compare models/pare-tales --text models/heldout.txt --recipe int8:channel "
     "--recipe int8:channel+int8:token --recipe int4:g32"},
    {"prove",
     "pare prove models/pare-tales out --text models/heldout.txt --repeats 2\n"
     "pare prove models/pare-tales out --tokens 256 --repeats 2 --max-kl 5 --json"},
    {"runs",
     "pare runs\npare runs --model tales --limit 5 --json\npare runs show 1\n"
     "pare runs compare 1 2\npare runs errors\npare runs export\npare runs remove 1"},
    {"report", "pare report out -o report.html --base models/pare-tales"},
    {"hardware", "pare hardware\npare hardware h100 --json\npare hardware h100 h200 mi300x"},
    {"plan",
     "pare plan llama-3-70b --compare w8,w4,w8a8,w4+kv8 --hardware h100 h200 --batch 16\n"
     "pare plan models/pare-tales --weights int4:g128 --kv int8 --plot\n"
     "pare plan llama-3-8b --compare w4 --hardware l4 --context 8192 --will-it-fit"},
    {"random",
     "pare random --like smollm2-135m -o random-135m --weights int4:g32\n"
     "pare random --like models/pare-tales -o random-tales --seed 7"},
};

}  // namespace

std::string examples_of(std::string_view command) {
  const auto it = examples.find(command);
  return it != examples.end() ? it->second : "";
}

}  // namespace pare
