// One scale of a packed matrix as a float; for files that include a kernel/simd_*.h.

// k = row * groups + group
float scale_of(const Packed& w, std::int64_t k) {
  switch (w.scale_kind) {
    case Packed::scale_f32:
      return static_cast<const float*>(w.scales)[k];
    case Packed::scale_f16:
      return half_to_float(static_cast<const std::uint16_t*>(w.scales)[k]);
    case Packed::scale_bf16:
      return bf16_to_float(static_cast<const std::uint16_t*>(w.scales)[k]);
    default:
      return 1.0f;
  }
}
