// Parts of the report that the page needs from one another; nothing for others.
#pragma once

#include <string>
#include <vector>

#include "report/html.h"
#include "report/report.h"

namespace pare {

constexpr const char* no_figure = "\u2013";

// A figure of a proof as people read it, by its unit; a dash without one.
std::string value_text(const std::optional<double>& value, const std::string& unit);
// "perplexity" -> "Perplexity", as tables head it.
std::string heading_of(const std::string& metric);
// "Not proved yet: run ..." or why the proof is not used; empty with a proof.
std::string proof_state(const Report&, const ReportModel&);

// Roofline, errors of the matrices, predictions, provenance.
std::vector<ReportSection> detail_sections(const Report&);

}  // namespace pare
