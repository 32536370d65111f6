#!/bin/sh
# Fail when an object of an ISA file defines a symbol that the linker could share with other files (weak or
# unique): such a copy could be picked for machines that lack the instructions.
#     tools/check_isa_objects.sh BUILD_DIR
set -eu
objects=$(find "$1" -name '*_avx2.cpp.o' -o -name '*_avx512.cpp.o' -o -name '*_amx.cpp.o')
[ -n "$objects" ] || { echo "there are no ISA objects in $1" >&2; exit 1; }
bad=0
for object in $objects; do
  shared=$(nm -C "$object" | grep -E ' [WVu] ' || true)
  if [ -n "$shared" ]; then
    bad=1
    echo "$object:"
    echo "$shared"
  fi
done
[ "$bad" = 0 ] && echo "ISA objects: nothing shareable in $(echo "$objects" | wc -l) objects"
exit "$bad"
