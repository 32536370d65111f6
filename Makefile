# Two commands: `make demo` (installs what is missing, builds, shows the program at work on the embedded
# model) and `make test` (all tests). The rest is for those who work on Pare.

PARE := build/release/pare
JOBS ?= $(shell nproc)

.PHONY: demo test build bootstrap unit cli checks sanitize fuzz fuzz-short bench format apart

demo: build
	$(PARE) show models/pare-tales
	$(PARE) run models/pare-tales "Once upon a time" --tokens 80 --greedy
	$(PARE) compare models/pare-tales --text models/heldout.txt \
	  --recipe int8:channel --recipe int8:channel+int8:token --recipe int4:g128 --recipe int4:g32 \
	  --recipe nf4:g64 --recipe e4m3:channel --recipe int3:g128

test: build checks unit cli

bootstrap:
	tools/bootstrap

build: bootstrap
	cmake --preset release >/dev/null
	cmake --build --preset release --parallel $(JOBS)

# Every unit test, and those that touch kernels again for each ISA of this machine.
unit:
	tools/run_unit_tests build/release

cli:
	tools/run_cli_tests.py --pare $(PARE)
	tools/run_doc_commands.py --pare $(PARE)
	tools/check_resume.py --pare $(PARE) --kills 3 --tokens 512 --apply tests/recipes/two-steps.toml

checks:
	tools/check_layers.py
	tools/check_isa_objects.sh build/release
	clang-format --dry-run --Werror $$(git ls-files 'src/*.cpp' 'src/*.h' 'src/*.inl' 'tests/*.h')

sanitize: bootstrap
	cmake --preset asan >/dev/null && cmake --build build/asan --parallel $(JOBS) --target tests
	tools/run_unit_tests build/asan
	cmake --preset tsan >/dev/null && cmake --build build/tsan --parallel $(JOBS) --target test_base test_kernel test_engine
	tools/run_unit_tests build/tsan base kernel engine

fuzz-short: bootstrap
	tools/run_fuzzers 5

fuzz: bootstrap
	tools/run_fuzzers 3600

bench: build
	for b in build/release/bench_*; do $$b || exit 1; done

# Every file by itself: does it include what it uses?
apart: bootstrap
	cmake --preset release -B build/apart -DPARE_UNITE=OFF -DCMAKE_CXX_FLAGS_RELEASE=-O0 >/dev/null
	cmake --build build/apart --parallel $(JOBS)

format:
	clang-format -i $$(git ls-files 'src/*.cpp' 'src/*.h' 'src/*.inl' 'tests/*.h')
