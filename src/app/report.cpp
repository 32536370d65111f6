// pare report: one HTML file about finished models.
//
// Models are opened for their schemes, notes and identity; nothing is measured here.
#include "report/report.h"

#include "app/commands.h"
#include "app/hardware.h"
#include "file/io.h"
#include "file/publish.h"

namespace pare {
namespace {

ReportModel read_model(const std::string& path, const CommonOptions& common, const Output& out) {
  const Model model = load_model(path, {common.tokenizer});
  return collect(model, path, identity(model, out.log));
}

Json summary_of(const ReportModel& m) {
  return Json::object(
      {{"name", Json(m.name)},
       {"path", Json(m.path)},
       {"weight_bytes", Json(m.weight_bytes)},
       {"identity", Json(m.identity)},
       {"proved", Json(m.proof.has_value())},
       {"proof_problem", Json(m.proof_problem)},
       {"matrices_with_errors",
        Json(std::count_if(m.evidence.begin(), m.evidence.end(), [](const Evidence& e) {
          return e.metric == "relative output error";
        }))}});
}

}  // namespace

void command_report(const ReportOptions& o, const CommonOptions& common, const Output& out) {
  Publisher publisher(o.out, o.force);
  Report report;
  for (const std::string& path : o.models) {
    stop_if_interrupted();
    report.models.push_back(read_model(path, common, out));
    if (const ReportModel& m = report.models.back(); !m.proof_problem.empty())
      out.log.warning(fmt::format("{}: {}", m.path, m.proof_problem));
  }
  name_models(report.models);
  if (!o.base.empty()) report.base = read_model(o.base, common, out);
  report.title = !o.title.empty() ? o.title
                 : report.models.size() == 1
                     ? fmt::format("What {} costs and keeps", report.models[0].name)
                     : fmt::format("{} models compared", report.models.size());
  if (!o.hardware.empty())
    report.machine =
        machine_of(choose_hardware(hardware_rows("", common.threads), o.hardware), report);
  const std::string html = report_html(report);
  write_file(publisher.path(), html);
  publisher.commit();
  if (out.json) {
    Json::Array models;
    for (const ReportModel& m : report.models) models.push_back(summary_of(m));
    return out.result("report", Json::object({{"report", Json(o.out)},
                                              {"bytes", Json(html.size())},
                                              {"models", Json(std::move(models))}}));
  }
  std::string text = fmt::format(
      "{}: {} of {}\n", o.out, human_bytes(static_cast<double>(html.size())),
      report.models.size() == 1 ? "one model" : fmt::format("{} models", report.models.size()));
  for (const ReportModel& m : report.models)
    if (!m.proof)
      text += fmt::format("  {} is not proved: `pare prove {} {}`\n", m.name,
                          o.base.empty() ? "BASE" : o.base, m.path);
  out.text(text);
}

}  // namespace pare
