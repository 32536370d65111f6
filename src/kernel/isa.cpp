// Asking the processor, once.
//
// CPUID says what the processor has, XGETBV what the operating system saves, and for AMX the kernel
// must also grant the tile state to the process (arch_prctl). A class is only reported when all of
// it is there.
#include "kernel/isa.h"

#include <cstdlib>
#include <cstring>

#include "base/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace pare {
namespace {

#if defined(__x86_64__)
unsigned long long saved_state() {
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<unsigned long long>(high) << 32) | low;
}

bool amx_granted() {
  constexpr long request_permission = 0x1023, tile_data = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

unsigned detect() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return isa_scalar;
  const bool fma = (c >> 12) & 1, osxsave = (c >> 27) & 1, f16c = (c >> 29) & 1;
  if (!osxsave) return isa_scalar;
  const unsigned long long state = saved_state();
  unsigned b7 = 0, c7 = 0, d7 = 0, a71 = 0, b71 = 0, c71 = 0, d71 = 0;
  if (__get_cpuid_count(7, 0, &a, &b7, &c7, &d7) == 0) return isa_scalar;
  __get_cpuid_count(7, 1, &a71, &b71, &c71, &d71);
  const auto bit = [](unsigned word, int k) { return ((word >> k) & 1) != 0; };
  unsigned isa = isa_scalar;
  if ((state & 6) != 6 || !fma || !f16c || !bit(b7, 5) || !bit(b7, 3) || !bit(b7, 8)) return isa;
  isa |= isa_avx2;
  const bool avx512 = bit(b7, 16) && bit(b7, 17) && bit(b7, 30) && bit(b7, 31) && bit(c7, 11) &&
                      bit(c7, 1) && bit(a71, 5);
  if ((state & 0xe6) != 0xe6 || !avx512) return isa;
  isa |= isa_avx512;
  const bool amx = bit(d7, 24) && bit(d7, 25) && bit(d7, 22) && (state & 0x60000) == 0x60000;
  if (amx && amx_granted()) isa |= isa_amx;
  return isa;
}
#else
unsigned detect() { return isa_scalar; }
#endif

struct Word {
  const char* name;
  unsigned allowed;
};
constexpr Word words[] = {{"scalar", isa_scalar},
                          {"avx2", isa_avx2},
                          {"avx512", isa_avx2 | isa_avx512},
                          {"amx", isa_avx2 | isa_avx512 | isa_amx}};

}  // namespace

unsigned isa_here() {
  static const unsigned found = detect();
  const char* wanted = std::getenv("PARE_ISA");
  if (wanted == nullptr || *wanted == '\0') return found;
  for (const Word& w : words) {
    if (std::strcmp(wanted, w.name) != 0) continue;
    if ((w.allowed & ~found) != 0)
      fail(Exit::usage, "CL-011", "PARE_ISA asks for instructions that this machine lacks",
           {{"found", wanted}, {"need", "at most " + isa_name(found)}});
    return w.allowed;
  }
  fail(Exit::usage, "CL-011", "PARE_ISA is not a known instruction set",
       {{"found", pare::quoted(wanted)}, {"need", "scalar, avx2, avx512 or amx"}});
}

std::string isa_name(unsigned isa) {
  if (isa & isa_amx) return "amx";
  if (isa & isa_avx512) return "avx512";
  return isa & isa_avx2 ? "avx2" : "scalar";
}

}  // namespace pare
