// The parts of `pare search` that its files share.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "app/commands.h"
#include "choose/agreement.h"
#include "choose/search.h"

namespace pare {

// A recipe of the front, and what was measured of it.
struct Candidate {
  Proposal proposal;
  std::optional<double> measured;  // KL on held-out tokens, nats
};

// What a search was asked and found.
struct SearchResult {
  Axis axis = Axis::bytes;
  Limits limits;
  Hardware hardware;
  Use use;
  std::string method;    // of the recipes
  std::string held_out;  // "1900 tokens of story.txt"
  i64 parameters = 0;
  Proposal base;                 // the model as it is
  std::vector<Candidate> front;  // cost rising
  std::size_t chosen = 0;        // of the front; its size: none
  Agreement agreement;           // of those measured
  double scale = 1;              // by which predicted losses are multiplied
};

// The loss that is believed: measured, else predicted and scaled.
double believed(const SearchResult&, const Candidate&);

void print_search(const SearchOptions&, const SearchResult&, const Sensitivities&, const Output&);

}  // namespace pare
