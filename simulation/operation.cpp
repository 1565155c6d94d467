#include "simulation/operation.hpp"

#include <array>
#include <charconv>
#include <iterator>

namespace callboard::simulation {

std::string_view to_string(operation_kind kind) noexcept {
  static constexpr std::string_view names[] = {
      "open_file",      "create_file", "open_directory", "create_directory",
      "read_at",        "write_at",    "append",         "truncate",
      "sync_data",      "sync",        "set_mode",       "map",
      "lock",           "unlock",      "close",          "status",
      "list",           "rename",      "link",           "remove",
      "sync_directory", "announce",    "poison",         "clear_poison",
      "pause"};
  const auto index = static_cast<std::size_t>(kind);
  return index < std::size(names) ? names[index] : "unknown";
}

bool is_mutation(operation_kind kind) noexcept {
  using k = operation_kind;
  switch (kind) {
  case k::create_file:
  case k::create_directory:
  case k::write_at:
  case k::append:
  case k::truncate:
  case k::sync_data:
  case k::sync:
  case k::set_mode:
  case k::rename:
  case k::link:
  case k::remove:
  case k::sync_directory:
  case k::announce:
  case k::poison:
  case k::clear_poison:
    return true;
  default:
    return false;
  }
}

namespace {

std::string joined(std::string_view directory, std::string_view name) {
  auto out = std::string(directory);
  if (name.empty())
    return out;
  if (!out.ends_with('/'))
    out += '/';
  return out += name;
}

std::string octal(std::uint32_t number) {
  std::array<char, 16> text{};
  const auto end =
      std::to_chars(text.data(), text.data() + text.size(), number, 8).ptr;
  return {text.data(), end};
}

} // namespace

std::string operation::path() const {
  return joined(directory, name);
}

std::string to_string(const operation& what) {
  auto out = '#' + std::to_string(what.index) + " process "
             + std::to_string(what.process) + ": "
             + std::string(to_string(what.kind)) + ' ' + what.path();
  if (!what.target_name.empty())
    out += " to " + joined(what.target_directory, what.target_name);
  if (what.offset != 0)
    out += " at " + std::to_string(what.offset);
  if (what.size_bytes != 0)
    out += ", " + std::to_string(what.size_bytes) + " bytes";
  if (what.kind == operation_kind::set_mode)
    out += ", mode " + octal(what.mode);
  return out;
}

std::ostream& operator<<(std::ostream& out, const operation& what) {
  return out << to_string(what);
}

std::string to_string(const fault& injected) {
  const auto when = [&]() -> std::string {
    switch (injected.when) {
    case moment::before:
      return " before it";
    case moment::half:
      return " half through it";
    case moment::after:
      return " after it";
    }
    return "";
  };
  switch (injected.what) {
  case fault::action::none:
    return "is done";
  case fault::action::fail:
    return "fails with " + std::string(to_string(injected.code));
  case fault::action::cut_short:
    return "is cut short after " + std::to_string(injected.bytes) + " bytes";
  case fault::action::kill:
    return "kills its process" + when();
  case fault::action::lose_power:
    return "loses the power" + when() + ", "
           + std::string(to_string(injected.model));
  }
  return "";
}

fault fault::fail(errc code) noexcept {
  fault out;
  out.what = action::fail;
  out.code = code;
  return out;
}

fault fault::cut_short(std::size_t bytes) noexcept {
  fault out;
  out.what = action::cut_short;
  out.code = errc::no_space;
  out.bytes = bytes;
  return out;
}

fault fault::kill(moment when) noexcept {
  fault out;
  out.what = action::kill;
  out.when = when;
  return out;
}

fault fault::lose_power(moment when, loss_model model) noexcept {
  fault out;
  out.what = action::lose_power;
  out.when = when;
  out.model = model;
  return out;
}

} // namespace callboard::simulation
