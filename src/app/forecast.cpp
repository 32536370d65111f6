// The same load, said to the cost model.
//
// A decode step is predicted in the middle of those that are timed, because its cache grows with
// each. Shares are taken of the same bandwidth and peak as the measured ones, so that an error of a
// share is an error of time or of bytes and of nothing else.
#include "app/forecast.h"

#include <unistd.h>

namespace pare {

Hardware hardware_of(const Roof& roof) {
  Hardware h;
  h.name = roof.processor;
  h.kind = "cpu";
  h.note = "measured by pare roof";
  h.memory_bytes =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  h.bytes_per_second = roof.read_bytes_per_second;
  h.rate["f32"] = peak_flops(roof, false);  // Pare multiplies 16-bit and coded weights as floats
  h.rate["int8"] = peak_flops(roof, true);
  if (const auto measured = rates_here()) {
    auto rates = std::make_shared<EngineRates>(*measured);
    for (TeamRates& team : rates->teams) {
      if (team.threads == 1) team.bytes_per_second = roof.read_bytes_per_second_single;
      if (team.threads == roof.threads) team.bytes_per_second = roof.read_bytes_per_second;
    }
    h.engine = std::move(rates);
  }
  return h;
}

std::string predictor_of(const Hardware& h) {
  return h.engine != nullptr ? "measured kernels" : "limits of the roof";
}

Forecast forecast(const Spec& spec, const Hardware& hardware, const Roof& roof,
                  const SpeedOptions& o, int threads) {
  Use use;
  use.batch = o.batch;
  use.prompt = o.prompt;
  use.context = std::max(o.context, o.prompt) + o.generate / 2;
  use.threads = threads;
  const Prediction p = predict(spec, hardware, use);
  Forecast f;
  f.decode_tokens_per_second = p.decode_tokens_per_second;
  f.prefill_tokens_per_second = p.prefill_tokens_per_second;
  f.decode_seconds = p.decode.seconds;
  f.prefill_seconds = p.prefill.seconds;
  f.mbu = (p.decode.count.weight_bytes + p.decode.count.kv_read_bytes) / p.decode.seconds /
          roof.read_bytes_per_second;
  f.mfu = p.prefill.count.flops / p.prefill.seconds / peak_flops(roof, integer_activations(spec));
  use.context = std::max(o.context, o.prompt) + o.generate;
  f.memory_bytes = predict_memory(spec, use, std::min<i64>(512, o.batch * o.prompt)).total();
  return f;
}

}  // namespace pare
