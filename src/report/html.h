// Pieces of an HTML page that is read without scripts, fonts or network.
//
// Every function that takes text escapes it, except where a parameter is called `html`. Ids are of
// [a-z0-9-] and unique in the page by the caller.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "report/plots.h"

namespace pare {

// Words between backticks are set as code.
std::string paragraph(std::string_view text, std::string_view classes = {});

// The mark of a series; a list of marks with the names of the series, empty names left out.
std::string series_key(int series);
std::string series_legend(const std::vector<std::string>& names);

class HtmlTable {
 public:
  HtmlTable(std::string id, std::string caption, std::vector<std::string> header)
      : id_(std::move(id)), caption_(std::move(caption)), header_(std::move(header)) {}
  // The first cell heads its row.
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  std::size_t rows() const { return rows_.size(); }
  std::string html() const;  // in a region that scrolls sideways where it must

 private:
  std::string id_, caption_;
  std::vector<std::string> header_;
  std::vector<std::vector<std::string>> rows_;
};

// Names and values. A value of several lines keeps them.
std::string definitions(const std::vector<std::pair<std::string, std::string>>& items);
std::string details(std::string_view summary, const std::string& html, bool open = false);
// The same for a whole part of a section, in a frame.
std::string framed_details(std::string_view summary, const std::string& html, bool open = false);

// A plot in two sizes, of which the style shows the one that fits; the caption says how to read it.
using Draw = std::function<std::string(const PlotFrame&)>;
std::string figure(const std::string& id, std::string_view caption, PlotFrame wide,
                   PlotFrame narrow, const Draw& draw, const std::string& details_html = {});
// Several small plots side by side.
std::string figure_grid(std::string_view caption, const std::vector<std::string>& svgs,
                        const std::string& details_html = {}, bool large = false);

struct ReportSection {
  std::string id, title, html;
};
std::string page(const std::string& title, const std::string& subtitle,
                 const std::vector<ReportSection>& sections);

}  // namespace pare
