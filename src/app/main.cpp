#include "app/app.h"

int main(int argc, char** argv) { return pare::run_app(argc, argv); }
