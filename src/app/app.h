// The command line program.
#pragma once

namespace pare {
int run_app(int argc, char** argv);
}
