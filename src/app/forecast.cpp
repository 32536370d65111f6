// The same load, said to the cost model.
//
// A decode step is predicted in the middle of those that are timed, because its cache grows with
// each. Shares are taken of the same bandwidth and peak as the measured ones, so that an error of a
// share is an error of time or of bytes and of nothing else.
#include "app/forecast.h"

namespace pare {

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
  f.mfu = p.prefill.count.flops / p.prefill.seconds / peak_flops(roof, main_code(spec));
  use.context = std::max(o.context, o.prompt) + o.generate;
  f.memory_bytes = predict_memory(spec, use, std::min(chunk_tokens, o.batch * o.prompt)).total();
  return f;
}

}  // namespace pare
