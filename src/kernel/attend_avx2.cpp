// Attention (kernel/attend.inl) for this ISA class.
#include "kernel/attend_job.h"
#include "kernel/simd_avx2.h"
#include "kernel/unrolled.h"

namespace pare {
namespace {

#include "kernel/attend.inl"

}  // namespace

void attend_job_avx2(const AttendJob& job) { attend_job(job); }

}  // namespace pare
