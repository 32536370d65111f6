// Quantization that learns from data: the walk over the blocks that all such methods share.
//
// Calibration sequences go through the model block by block. In each block every matrix is solved
// the moment its input is known, and what follows is computed with the stored codes: the inputs
// that a matrix is fitted to are those that it will see. Scales (AWQ, SmoothQuant) are chosen
// before that from the inputs that the block's own floats give. With a file of statistics instead
// of sequences nothing is run, and every matrix is fitted to the inputs of the original model.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/statistics.h"
#include "pass/pass.h"
#include "pass/quantize/solver.h"

namespace pare {

enum class Method : std::uint8_t {
  rtn,          // round to nearest, importances E[x^2]
  gptq,         // solver.h
  awq,          // scales and clipping, then nearest
  smoothquant,  // scales for quantized inputs, then nearest
  llm_int8,     // outlier columns in 16 bits, then nearest
  hqq,          // zero points without data
  automatic,    // AWQ's scales, then for each matrix GPTQ or nearest, whichever gives less error
};
Method parse_method(
    const std::string& text);  // "rtn", "gptq", ..., "llm-int8", "auto"; Error QU-020
std::string to_string(Method);
bool needs_data(Method);

// What is learnt from: sequences of tokens, or statistics.
struct Calibration {
  std::vector<std::vector<std::int32_t>> sequences;
  std::shared_ptr<const StatisticsFile> statistics;
  std::string source;  // "story.txt, 128 sequences of 512 tokens", for the record
};

struct MethodOptions {
  Method method = Method::rtn;
  GptqOptions gptq;
  HqqOptions hqq;
  double alpha = -1;             // of SmoothQuant; below 0: searched for each group
  double outlier_threshold = 6;  // of LLM.int8()
  bool clip = true;              // AWQ's clipping
  bool strict = false;           // a method that gives way to another is an Error QU-021
  std::shared_ptr<const Calibration> data;
  std::map<std::string, std::vector<std::int32_t>, std::less<>>
      outliers;  // columns by input; llm_int8
};

// " method=gptq damping=0.01 ...": all that decides the result.
std::string describe(const MethodOptions&);

// What was done to one matrix; `seconds` is for people and never written into a model.
struct MatrixReport {
  std::string name, scheme;
  double nearest_error = 0;  // relative error of the outputs, rounding to nearest without data
  double error = 0;          // of what is stored
  double seconds = 0;
  std::vector<std::string> notes;
};

// Inputs of all matrices of a model on sequences, in the order of the model; nothing is changed.
// `visit` gets an input when it is complete; `kv` the ranges of a block that caches.
void collect_statistics(const Model&, const Calibration&, bool gram, Context&,
                        const std::function<void(const std::string& input, InputStatistics)>& visit,
                        const std::function<void(i64 block, KvStatistics)>& kv = {});

// One matrix and what becomes of it.
struct Target {
  std::string name;
  Scheme scheme;
  Activation activation;
  FitOptions fit;
};

// Changes the weights of `targets`; `planned` is the Spec that results.
Model quantize_calibrated(Model, const Spec& planned, const std::vector<Target>& targets,
                          const MethodOptions&, Context&);

}  // namespace pare
