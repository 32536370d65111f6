// The page.
//
// One file: the style is inside and named by its hash in the content security policy, which allows
// nothing else, so even markup that slipped in could neither run, nor load, nor restyle. There is
// no style attribute anywhere, because the policy would refuse it. Plots come in two sizes: text in
// a plot that is scaled down to a telephone cannot be read.
#include "report/html.h"

#include <fmt/format.h>

#include <array>
#include <span>

#include "base/sha256.h"
#include "report/style.h"
#include "report/svg.h"

namespace pare {
namespace {

std::string base64(const std::vector<unsigned char>& bytes) {
  static constexpr char letters[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    unsigned group = 0;
    for (std::size_t i = 0; i < 3; i++)
      group = group << 8 | (at + i < bytes.size() ? bytes[at + i] : 0u);
    for (std::size_t i = 0; i < 4; i++)
      out += at + i <= bytes.size() ? letters[group >> (18 - 6 * i) & 63] : '=';
  }
  return out;
}

std::string policy_hash(const std::string& text) {
  const std::string hex = sha256(std::as_bytes(std::span(text)));
  std::vector<unsigned char> bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    bytes.push_back(static_cast<unsigned char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return "sha256-" + base64(bytes);
}

// Words between backticks are code.
std::string with_code(std::string_view text) {
  std::string out;
  for (;;) {
    const std::size_t open = text.find('`');
    const std::size_t close = open == std::string_view::npos ? open : text.find('`', open + 1);
    if (close == std::string_view::npos) return out + escape_markup(text);
    out += escape_markup(text.substr(0, open)) + "<code>" +
           escape_markup(text.substr(open + 1, close - open - 1)) + "</code>";
    text.remove_prefix(close + 1);
  }
}

bool is_figure(const std::string& cell) {
  return !cell.empty() &&
         (cell[0] == '-' || cell[0] == '+' || cell[0] == '.' || (cell[0] >= '0' && cell[0] <= '9'));
}

}  // namespace

std::string paragraph(std::string_view text, std::string_view classes) {
  const std::string attribute =
      classes.empty() ? "" : fmt::format(" class=\"{}\"", escape_markup(classes));
  return fmt::format("<p{}>{}</p>\n", attribute, with_code(text));
}

std::string series_key(int series) {
  return fmt::format(
      "<svg class=\"plot key\" viewBox=\"0 0 16 16\" width=\"16\" height=\"16\" "
      "aria-hidden=\"true\">{}</svg>",
      marker_svg(series, 8, 8, 5.5, series == 0 ? Look::hollow : Look::solid));
}

std::string series_legend(const std::vector<std::string>& names) {
  std::string out = "<ul class=\"legend\">\n";
  for (std::size_t s = 0; s < names.size(); s++)
    if (!names[s].empty())
      out +=
          fmt::format("<li>{}{}</li>\n", series_key(static_cast<int>(s)), escape_markup(names[s]));
  return out + "</ul>\n";
}

std::string HtmlTable::html() const {
  // A column of figures is set right, its head with it.
  std::vector<bool> right(header_.size(), !rows_.empty());
  for (const auto& row : rows_)
    for (std::size_t c = 0; c < right.size(); c++)
      if (c == 0 || c >= row.size() ||
          (!row[c].empty() && row[c] != "\u2013" && !is_figure(row[c])))
        right[c] = false;
  const auto classes = [&](std::size_t c) { return right[c] ? " class=\"num\"" : ""; };
  std::string out = fmt::format(
      "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-labelledby=\"{0}\">\n<table>\n"
      "<caption id=\"{0}\"><span>{1}</span></caption>\n<thead><tr>",
      id_, with_code(caption_));
  for (std::size_t c = 0; c < header_.size(); c++)
    out += fmt::format("<th scope=\"col\"{}>{}</th>", classes(c), escape_markup(header_[c]));
  out += "</tr></thead>\n<tbody>\n";
  for (const auto& row : rows_) {
    out += "<tr>";
    for (std::size_t c = 0; c < header_.size(); c++) {
      const std::string cell = c < row.size() ? escape_markup(row[c]) : "";
      out += c == 0 ? fmt::format("<th scope=\"row\">{}</th>", cell)
                    : fmt::format("<td{}>{}</td>", classes(c), cell);
    }
    out += "</tr>\n";
  }
  return out + "</tbody>\n</table>\n</div>\n";
}

std::string definitions(const std::vector<std::pair<std::string, std::string>>& items) {
  std::string out = "<dl class=\"facts\">\n";
  for (const auto& [name, value] : items) {
    const bool lines = value.find('\n') != std::string::npos;
    const std::string text = escape_markup(value);
    out +=
        fmt::format("<div><dt>{}</dt><dd>{}</dd></div>\n", escape_markup(name),
                    lines ? fmt::format("<pre tabindex=\"0\">{}</pre>", text) : with_code(value));
  }
  return out + "</dl>\n";
}

std::string details(std::string_view summary, const std::string& html, bool open) {
  return fmt::format("<details{}><summary>{}</summary>\n{}</details>\n", open ? " open" : "",
                     escape_markup(summary), html);
}

std::string framed_details(std::string_view summary, const std::string& html, bool open) {
  return fmt::format(
      "<details class=\"framed\"{}><summary>{}</summary>\n<div "
      "class=\"inner\">{}</div></details>\n",
      open ? " open" : "", escape_markup(summary), html);
}

std::string figure(const std::string& id, std::string_view caption, PlotFrame wide,
                   PlotFrame narrow, const Draw& draw, const std::string& details_html) {
  wide.id = id + "-w";
  narrow.id = id + "-n";
  return fmt::format(
      "<figure>\n<div class=\"wide\">{}</div>\n<div "
      "class=\"narrow\">{}</div>\n<figcaption>{}</figcaption>\n"
      "{}</figure>\n",
      draw(wide), draw(narrow), escape_markup(caption), details_html);
}

std::string figure_grid(std::string_view caption, const std::vector<std::string>& svgs,
                        const std::string& details_html, bool large) {
  std::string out = fmt::format("<figure>\n<div class=\"grid{}\">\n", large ? " large" : "");
  for (const std::string& svg : svgs) out += "<div>" + svg + "</div>\n";
  return out + fmt::format("</div>\n<figcaption>{}</figcaption>\n{}</figure>\n",
                           escape_markup(caption), details_html);
}

std::string page(const std::string& title, const std::string& subtitle,
                 const std::vector<ReportSection>& sections) {
  const std::string style = palette_style() + page_style() + plot_style();
  std::string nav, main;
  for (const ReportSection& s : sections) {
    nav += fmt::format("<li><a href=\"#{}\">{}</a></li>\n", s.id, escape_markup(s.title));
    main +=
        fmt::format("<section aria-labelledby=\"{0}\">\n<h2 id=\"{0}\">{1}</h2>\n{2}</section>\n",
                    s.id, escape_markup(s.title), s.html);
  }
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src '{0}'; "
      "img-src data:; "
      "base-uri 'none'; form-action 'none'\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"generator\" "
      "content=\"Pare {1}\">\n"
      "<link rel=\"icon\" "
      "href=\"data:,\">\n<title>{2}</title>\n<style>{3}</style>\n</head>\n<body>\n"
      "<a class=\"skip\" href=\"#main\">Skip to the report</a>\n"
      "<header>\n<h1>{2}</h1>\n<p class=\"sub\">{4}</p>\n<nav "
      "aria-label=\"Sections\">\n<ul>\n{5}</ul>\n</nav>\n"
      "</header>\n<main id=\"main\" tabindex=\"-1\">\n{6}</main>\n"
      "<footer>\n<p>Made by Pare {1}. The file is complete: it loads nothing and runs "
      "nothing.</p>\n</footer>\n"
      "</body>\n</html>\n",
      policy_hash(style), PARE_VERSION, escape_markup(title), style, escape_markup(subtitle), nav,
      main);
}

}  // namespace pare
