#include "report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/unit_text.h"
#include "report/analysis_text.h"
#include "report/page.h"
#include "report/roofline.h"
#include "report/text.h"

namespace rooftree::report {
namespace {

struct Box {
  double x, y, w, h;
  [[nodiscard]] bool overlaps(const Box& o) const { return x < o.x + o.w && o.x < x + w && y < o.y + o.h && o.y < y + h; }
};

// Average advance of sans-serif digits and letters at 12 px; labels only need room, not exactness.
double text_width(std::string_view text) { return 6.6 * display_width(text); }

// Okabe and Ito's colours, as on the page.
std::string_view class_of(cost::Bound bound) {
  switch (bound) {
    case cost::Bound::kMemory:
      return "memory";
    case cost::Bound::kCompute:
      return "compute";
    case cost::Bound::kOnChip:
      return "chip";
    case cost::Bound::kHostLink:
    case cost::Bound::kDisk:
      return "link";
    case cost::Bound::kSpecial:
      return "special";
    case cost::Bound::kOverhead:
    case cost::Bound::kHost:
      break;
  }
  return "other";
}

std::string decade_text(int exponent, bool rate) {
  static constexpr std::string_view kPrefixes[] = {"", "k", "M", "G", "T", "P", "E"};
  if (rate && exponent >= 0 && exponent < 21) {
    return fmt::format("{}{}", static_cast<int>(std::lround(std::pow(10, exponent % 3))), kPrefixes[exponent / 3]);
  }
  if (exponent >= -3 && exponent <= 4) return number(std::pow(10, exponent), 1);
  return fmt::format("1e{}", exponent);
}

constexpr std::string_view kStyle = R"(<style>
text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; fill: #1c1b19; }
.title { font-size: 15px; font-weight: 600; } .faint { fill: #5e5b55; } .strong { font-weight: 600; }
.paper { fill: #ffffff; } .grid { stroke: #eceae4; } .roof { stroke: #3a3833; stroke-width: 2.4; fill: none; }
.thin { stroke: #a5a097; stroke-width: 1.1; stroke-dasharray: 4 4; fill: none; } .ring { fill: #ffffff; stroke: #3a3833; stroke-width: 2; }
.halo { paint-order: stroke; stroke: #ffffff; stroke-width: 4px; stroke-linejoin: round; }
.op { fill-opacity: .62; stroke-width: 1.2; }
.memory { fill: #0072b2; stroke: #0072b2; } .compute { fill: #c84b00; stroke: #c84b00; } .chip { fill: #00805e; stroke: #00805e; }
.link { fill: #a8407f; stroke: #a8407f; } .special { fill: #8a6d00; stroke: #8a6d00; } .other { fill: #6a6a6a; stroke: #6a6a6a; }
@media (prefers-color-scheme: dark) {
text { fill: #ecebe7; } .faint { fill: #a5a9b2; } .paper { fill: #1b1e24; } .grid { stroke: #262a32; } .roof { stroke: #d8d6d0; }
.thin { stroke: #6f7580; } .ring { fill: #1b1e24; stroke: #d8d6d0; } .halo { stroke: #1b1e24; }
.memory { fill: #56b4e9; stroke: #56b4e9; } .compute { fill: #ff9a52; stroke: #ff9a52; } .chip { fill: #35cfa2; stroke: #35cfa2; }
.link { fill: #ea9bca; stroke: #ea9bca; } .special { fill: #f0d34a; stroke: #f0d34a; } .other { fill: #a9a9a9; stroke: #a9a9a9; }
}
</style>
)";

}  // namespace

std::string roofline_svg(const Analysis& a, const SvgOptions& options) {
  const Roofline roofs = roofline(a.machine.chip(), a.estimate.arithmetic);
  const std::vector<RooflinePoint> dots = points(a);
  const double left = 60;
  const double right = options.width - 16.0;
  const double top = 44;
  const double bottom = options.height - 46.0;

  // The frame: around the ridge and every point, at most eight decades high.
  double low_x = roofs.ridge ? roofs.ridge->intensity.value() : 1;
  double high_x = low_x;
  double peak = 1;
  for (const ComputeRoof& roof : roofs.compute) peak = std::max(peak, roof.rate.value());
  double low_y = (roofs.ridge ? roofs.ridge->rate.value() : peak) / 100;
  for (const RooflinePoint& p : dots) {
    low_x = std::min(low_x, p.intensity);
    high_x = std::max(high_x, p.intensity);
    low_y = std::min(low_y, p.rate);
  }
  const double x0 = std::floor(std::log10(low_x) - 0.35);
  const double x1 = std::ceil(std::log10(high_x) + 0.45);
  const double y1 = std::log10(peak) + 0.5;
  const double y0 = std::max(std::floor(std::log10(low_y) - 0.1), std::floor(y1) - 8);
  const double per_x = (right - left) / (x1 - x0);
  const double per_y = (bottom - top) / (y1 - y0);
  const auto px = [&](double v) { return left + (std::log10(v) - x0) * per_x; };
  const auto py = [&](double v) { return bottom - (std::log10(v) - y0) * per_y; };

  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" role=\"img\" "
      "aria-label=\"{2}\">\n",
      options.width, options.height, escape_html(headline(a)));
  out += kStyle;
  out += fmt::format("<rect class=\"paper\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n", options.width, options.height);
  out +=
      fmt::format("<text class=\"title\" x=\"16\" y=\"26\">{}</text>\n", escape_html(shorten(headline(a), options.width / 9)));
  for (int e = static_cast<int>(x0); e <= static_cast<int>(x1); ++e) {
    const double x = px(std::pow(10, e));
    out += fmt::format("<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\"/>", x, top, bottom);
    out += fmt::format("<text class=\"faint\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n",
                       std::min(x, right - 12), bottom + 17, decade_text(e, false));
  }
  const int every = std::max(1, static_cast<int>(std::ceil(20 / per_y)));
  for (int e = static_cast<int>(std::ceil(y0)); e <= static_cast<int>(y1); ++e) {
    const double y = py(std::pow(10, e));
    out += fmt::format("<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>\n", left, right, y);
    if ((e - static_cast<int>(std::ceil(y0))) % every == 0) {
      out += fmt::format("<text class=\"faint\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n", left - 7, y + 4,
                         decade_text(e, true));
    }
  }
  out += fmt::format(
      "<text class=\"faint\" x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">arithmetic intensity, FLOP per byte</text>\n",
      (left + right) / 2, options.height - 10);
  out += fmt::format("<text class=\"faint\" x=\"{:.1f}\" y=\"{:.1f}\">FLOP/s</text>\n", left + 4, top + 10);

  // Roofs, clipped to the frame: dashed first, then the two that the plan uses.
  std::vector<Box> taken{{left, top - 4, 60, 18}};
  std::string labels;
  const double quickest = roofs.memory.empty() ? 1 : roofs.memory.front().bandwidth.value();
  const auto diagonal = [&](const MemoryRoof& roof, double until) {
    const double bandwidth = roof.bandwidth.value();
    const double from = std::max(std::pow(10, x0), std::pow(10, y0) / bandwidth);
    const double to = std::min(std::pow(10, x1), until / bandwidth);
    if (to <= from) return;
    out += fmt::format("<line class=\"{}\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n",
                       roof.main ? "roof" : "thin", px(from), py(bandwidth * from), px(to), py(bandwidth * to));
    const std::string text = fmt::format("{} {}", roof.name, to_text(roof.bandwidth));
    const double angle = std::atan2(per_y, per_x);
    const double length = std::hypot(px(to) - px(from), py(bandwidth * from) - py(bandwidth * to));
    const double width = text_width(text);
    for (const double along : {26.0, 90.0, 160.0, 230.0, length - width - 30}) {
      if (along < 0 || along + width > length - 6) continue;
      const double x = px(from) + std::cos(angle) * along - std::sin(angle) * 5;
      const double y = py(bandwidth * from) - std::sin(angle) * along - std::cos(angle) * 5;
      std::vector<Box> chain;
      for (double d = 0; d <= width; d += 12)
        chain.push_back({x + std::cos(angle) * d - 6, y - std::sin(angle) * d - 12, 12, 14});
      const auto blocked = [&](const Box& b) {
        return b.y < top || std::any_of(taken.begin(), taken.end(), [&](const Box& t) { return t.overlaps(b); });
      };
      if (std::any_of(chain.begin(), chain.end(), blocked)) continue;
      taken.insert(taken.end(), chain.begin(), chain.end());
      labels += fmt::format("<text class=\"halo{}\" transform=\"translate({:.1f} {:.1f}) rotate({:.2f})\">{}</text>\n",
                            roof.main ? " strong" : " faint", x, y, -angle * 180 / 3.14159265358979, escape_html(text));
      break;
    }
  };
  const double in_use = roofs.ridge ? roofs.ridge->rate.value() : peak;
  for (const RooflinePoint& p : dots) {
    const double r = std::max(4.0, std::sqrt(p.share) * 28);
    taken.push_back({px(p.intensity) - r, py(p.rate) - r, 2 * r, 2 * r});
  }
  const std::size_t points_end = taken.size();
  for (const ComputeRoof& roof : roofs.compute) {
    const double from = std::max(std::pow(10, x0), roof.rate.value() / quickest);
    out += fmt::format("<line class=\"thin\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n", px(from),
                       py(roof.rate.value()), right, py(roof.rate.value()));
  }
  for (const bool strong : {true, false}) {
    for (const ComputeRoof& roof : roofs.compute) {
      if (roof.in_use != strong) continue;
      const std::string text = fmt::format("{} {}", roof.name, to_text(roof.rate));
      const double width = text_width(text);
      const double y = py(roof.rate.value());
      for (const double baseline : {y - 6, y + 16}) {
        const Box box{right - width - 6, baseline - 12, width + 6, 15};
        if (box.y < top - 4 || std::any_of(taken.begin(), taken.end(), [&](const Box& t) { return t.overlaps(box); })) continue;
        taken.push_back(box);
        labels += fmt::format("<text class=\"halo{}\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n",
                              strong ? " strong" : " faint", right - 4, baseline, escape_html(text));
        break;
      }
    }
  }
  for (const bool main : {false, true}) {
    for (const MemoryRoof& roof : roofs.memory) {
      if (roof.main == main) diagonal(roof, main ? in_use : peak);
    }
  }
  if (roofs.ridge) {
    const double x = px(roofs.ridge->intensity.value());
    out += fmt::format("<line class=\"roof\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n", x, py(in_use), right,
                       py(in_use));
    labels += fmt::format(
        "<line class=\"thin\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\"/><circle class=\"ring\" "
        "cx=\"{0:.1f}\" cy=\"{1:.1f}\" r=\"4.5\"/>\n",
        x, py(in_use), bottom);
    const std::string text = fmt::format("ridge {}", number(roofs.ridge->intensity.value()));
    const bool flip = x + 8 + text_width(text) > right;
    const double tx = flip ? x - 8 - text_width(text) : x + 8;
    labels += fmt::format("<text class=\"halo\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", tx, bottom - 7, text);
    taken.push_back({tx, bottom - 20, text_width(text), 16});
  }
  out += labels;
  // Names keep off the two strong roofs.
  if (roofs.ridge && !roofs.memory.empty()) {
    constexpr double kStep = 8;
    for (double x = left; x < right; x += kStep) {
      const double intensity = std::pow(10, x0 + (x - left) / per_x);
      const double rate = std::min(in_use, intensity * in_use / roofs.ridge->intensity.value());
      if (py(rate) < bottom) taken.push_back({x - 3, py(rate) - 3, 6, 6});
    }
  }

  // Points, largest first; a name where there is room, one for points that lie on each other.
  std::vector<std::size_t> order(dots.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) { return dots[i].share > dots[j].share; });
  std::vector<bool> named(dots.size(), false);
  std::string names;
  for (const std::size_t i : order) {
    const RooflinePoint& p = dots[i];
    const double r = std::max(4.0, std::sqrt(p.share) * 28);
    const double x = px(p.intensity);
    const double y = std::min(py(p.rate), bottom - 4);
    const OperatorRow& row = a.operators[p.operator_index];
    out += fmt::format(
        "<circle class=\"op {}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\"><title>{}: {} of the time, bound by "
        "{}</title></circle>\n",
        class_of(p.bound), x, y, r, escape_html(row.name), escape_html(percent(p.share)), cost::name(p.bound));
    if (named[i] || p.share < 0.004) continue;
    std::vector<std::size_t> together;
    std::string text;
    int count = 0;
    for (const std::size_t j : order) {
      if (named[j] || std::hypot(px(dots[j].intensity) - x, py(dots[j].rate) - py(p.rate)) >= std::max(8.0, r)) continue;
      together.push_back(j);
      if (++count <= 3) text += (text.empty() ? "" : ", ") + a.operators[dots[j].operator_index].name;
    }
    if (count > 3) text += fmt::format(" +{}", count - 3);
    const double width = text_width(text);
    for (const auto& [tx, ty] : {std::pair{x + r + 5, y + 4}, std::pair{x - r - 5 - width, y + 4},
                                 std::pair{x - width / 2, y - r - 6}, std::pair{x - width / 2, y + r + 15}}) {
      const Box box{tx - 2, ty - 12, width + 4, 16};
      if (box.x < left || box.x + box.w > right || box.y < top || box.y + box.h > bottom) continue;
      bool free = true;
      for (std::size_t t = 0; t < taken.size() && free; ++t) {
        // Points of the same cluster may touch their own label.
        const bool own = t >= 1 && t < points_end && std::find(together.begin(), together.end(), t - 1) != together.end();
        free = own || !taken[t].overlaps(box);
      }
      if (!free) continue;
      taken.push_back(box);
      names += fmt::format("<text class=\"halo\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", tx, ty, escape_html(text));
      for (const std::size_t j : together) named[j] = true;
      break;
    }
  }
  return out + names + "</svg>\n";
}

}  // namespace rooftree::report
