#include "cli/input.hpp"

#include "core/json_text.hpp"
#include "core/record.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace callboard::cli {
namespace {

constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";

failure unusable(std::string message) {
  return {errc::invalid_argument, std::move(message)};
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
}

std::string_view without_edges(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos)
    return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

char ascii_lower(char letter) {
  return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter | 0x20)
                                        : letter;
}

bool same_letters(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    return ascii_lower(x) == ascii_lower(y);
  });
}

bool is_utf8(std::string_view text) {
  return json_text::valid_utf8(text, json_text::surrogates::refused);
}

/// Builds a JSON object of strings.
class object_writer {
public:
  void add(std::string_view name, std::string_view value) {
    text_ += text_.empty() ? "{" : ", ";
    text_ += json_text::encode_string(name);
    text_ += ": ";
    text_ += json_text::encode_string(value);
  }
  std::string finish() && { return std::move(text_) + "}"; }

private:
  std::string text_;
};

class jsonl_parser : public input_parser {
public:
  std::optional<parsed_record> finish() override { return std::nullopt; }

private:
  std::optional<parsed_record> take(std::string_view line) override {
    if (is_blank(line))
      return std::nullopt;
    return parsed_record{line_number(), parse(line)};
  }

  std::optional<parsed_record> take_unreadable() override {
    return parsed_record{line_number(), unusable("the line is too long")};
  }

  static result<input_record> parse(std::string_view line) {
    std::optional<std::string> id;
    std::optional<std::string> content;
    const auto look = [&](std::string_view key, std::string_view value,
                          std::string_view) -> result<void> {
      auto* target = key == "id" ? &id : key == "content" ? &content : nullptr;
      if (target == nullptr)
        return {};
      if (json_text::kind_of(value) != json_text::value_kind::string)
        return unusable(printable(key) + " is not a string");
      CALLBOARD_TRY_ASSIGN(*target, json_text::decode_string(value));
      return {};
    };
    CALLBOARD_TRY(json_text::for_each_member(
        line, look,
        {.depth_max = record_depth_max, .error = errc::invalid_argument}));
    if (!content)
      return unusable("the object has no \"content\"");
    if (is_blank(*content))
      return unusable("the \"content\" is empty");
    if (!id)
      id = chunk_id(*content);
    CALLBOARD_TRY(check_id(*id));
    return input_record{std::move(*id), std::string(line)};
  }
};

/// For formats whose records are separated by blank lines.
class paragraph_parser : public input_parser {
public:
  std::optional<parsed_record> finish() override {
    auto lines = std::exchange(lines_, {});
    const auto first = std::exchange(first_line_, 0);
    const bool is_too_long = bytes_ > record_bytes_max;
    bytes_ = 0;
    if (first == 0)
      return std::nullopt;
    if (is_too_long)
      return parsed_record{first, unusable("the paragraph is too long")};
    if (!std::all_of(lines.begin(), lines.end(), is_utf8))
      return parsed_record{first, unusable("the paragraph is not UTF-8")};
    return parsed_record{first, parse(lines)};
  }

private:
  virtual result<input_record>
  parse(const std::vector<std::string>& lines) const = 0;

  virtual bool is_comment(std::string_view) const { return false; }

  std::optional<parsed_record> take(std::string_view line) override {
    if (is_comment(line))
      return std::nullopt;
    if (is_blank(line))
      return finish();
    begin();
    bytes_ += line.size() + 1;
    if (bytes_ <= record_bytes_max)
      lines_.emplace_back(line);
    else
      lines_.clear();
    return std::nullopt;
  }

  std::optional<parsed_record> take_unreadable() override {
    begin();
    bytes_ = record_bytes_max + 1;
    lines_.clear();
    return std::nullopt;
  }

  void begin() {
    if (first_line_ == 0)
      first_line_ = line_number();
  }

  std::vector<std::string> lines_;
  /// 0: outside of paragraphs.
  std::uint64_t first_line_ = 0;
  std::size_t bytes_ = 0;
};

class text_parser : public paragraph_parser {
public:
  explicit text_parser(std::string name) : name_(std::move(name)) {}

private:
  result<input_record>
  parse(const std::vector<std::string>& lines) const override {
    std::string content;
    for (const auto& line : lines) {
      if (!content.empty())
        content += '\n';
      content += line;
    }
    object_writer record;
    record.add("full_doc_id", name_.substr(name_.find_last_of('/') + 1));
    record.add("content", content);
    record.add("file_path", name_);
    return input_record{chunk_id(content), std::move(record).finish()};
  }

  std::string name_;
};

struct control_field {
  std::string_view name;
  /// Lines of the value, without what marks a continuation.
  std::vector<std::string_view> lines;
};

result<std::vector<control_field>>
control_fields(const std::vector<std::string>& lines) {
  std::vector<control_field> fields;
  for (const std::string_view line : lines) {
    if (line.front() == ' ' || line.front() == '\t') {
      if (fields.empty())
        return unusable("the paragraph begins with a continuation line");
      fields.back().lines.push_back(line.substr(1));
      continue;
    }
    const auto colon = line.find(':');
    if (colon == std::string_view::npos || colon == 0)
      return unusable("not a \"Field: value\" line: " + printable(line));
    fields.push_back(
        {line.substr(0, colon), {without_edges(line.substr(colon + 1))}});
  }
  return fields;
}

/// The text of a value: lines that are only "." are empty ones.
std::string value_text(const control_field& field) {
  std::string text;
  for (std::size_t i = 0; i < field.lines.size(); ++i) {
    if (i > 0)
      text += '\n';
    if (i == 0 || without_edges(field.lines[i]) != ".")
      text += field.lines[i];
  }
  return text;
}

class deb822_parser : public paragraph_parser {
public:
  explicit deb822_parser(std::vector<std::string> fields)
      : fields_(std::move(fields)) {}

private:
  bool is_comment(std::string_view line) const override {
    return line.starts_with('#');
  }

  result<input_record>
  parse(const std::vector<std::string>& lines) const override {
    CALLBOARD_TRY_ASSIGN(const auto fields, control_fields(lines));
    const auto value = [&](std::string_view name) {
      const auto found = std::find_if(fields.begin(), fields.end(),
                                      [&](const control_field& field) {
                                        return same_letters(field.name, name);
                                      });
      return found == fields.end() ? std::string() : value_text(*found);
    };
    const auto package = value("Package");
    if (package.empty())
      return unusable("the paragraph has no \"Package\"");
    const std::string where = "the package " + printable(package);
    // Some lists have only the synopsis under one of the two names.
    const auto description =
        std::max(value("Description"), value("Description-en"),
                 [](const std::string& a, const std::string& b) {
                   return a.size() < b.size();
                 });
    if (is_blank(description))
      return unusable(where + " has no \"Description\"");
    CALLBOARD_TRY(check_id(package));

    object_writer record;
    record.add("content", package + ": " + description);
    record.add("file_path", package);
    for (const auto& name : fields_) {
      if (auto text = value(name); !text.empty())
        record.add(name, text);
    }
    return input_record{package, std::move(record).finish()};
  }

  std::vector<std::string> fields_;
};

} // namespace

std::optional<parsed_record> input_parser::add_line(std::string_view line) {
  if (++line_number_ == 1 && line.starts_with(byte_order_mark))
    line.remove_prefix(byte_order_mark.size());
  if (line.ends_with('\r'))
    line.remove_suffix(1);
  return take(line);
}

std::optional<parsed_record> input_parser::add_unreadable_line() {
  ++line_number_;
  return take_unreadable();
}

input_format guess_format(std::string_view name, std::string_view first_line) {
  constexpr std::array<std::pair<std::string_view, input_format>, 5>
      extensions = {{{".jsonl", input_format::jsonl},
                     {".ndjson", input_format::jsonl},
                     {".md", input_format::text},
                     {".deb822", input_format::deb822},
                     {".control", input_format::deb822}}};
  for (const auto& [extension, format] : extensions) {
    if (name.ends_with(extension))
      return format;
  }
  if (first_line.starts_with(byte_order_mark))
    first_line.remove_prefix(byte_order_mark.size());
  const auto begin = without_edges(first_line);
  if (begin.starts_with('{'))
    return input_format::jsonl;
  if (same_letters(begin.substr(0, 8), "Package:"))
    return input_format::deb822;
  return input_format::text;
}

std::unique_ptr<input_parser> make_parser(input_format format, std::string name,
                                          std::vector<std::string> fields) {
  switch (format) {
  case input_format::jsonl:
    return std::make_unique<jsonl_parser>();
  case input_format::deb822:
    return std::make_unique<deb822_parser>(std::move(fields));
  case input_format::text:
    break;
  }
  return std::make_unique<text_parser>(std::move(name));
}

} // namespace callboard::cli
