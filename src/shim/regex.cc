// RE2 behind a C face. See regex.h.
#include "shim/regex.h"

#include <re2/re2.h>

#include <map>
#include <new>
#include <string>

struct regex {
    explicit regex(const re2::StringPiece &pattern, const RE2::Options &options) : re(pattern, options) {}
    RE2 re;
};

static RE2::Options regex_options(size_t memory_max)
{
    RE2::Options options;
    options.set_log_errors(false);
    options.set_dot_nl(true);
    options.set_max_mem(static_cast<int64_t>(memory_max));
    return options;
}

// Go refuses \C (a single byte), RE2 does not: look for it behind an even number of backslashes, and not in a
// quotation, \Q…\E.
static bool has_single_byte_class(struct slice pattern)
{
    for (size_t i = 0; i + 1 < pattern.len; i++)
        if (pattern.at[i] == '\\') {
            bool is_quotation = pattern.at[i + 1] == 'Q';
            if (pattern.at[i + 1] == 'C')
                return true;
            i++;
            while (is_quotation && i + 2 < pattern.len &&
                   !(pattern.at[i + 1] == '\\' && pattern.at[i + 2] == 'E'))
                i++;
        }
    return false;
}

extern "C" err regex_open(struct slice pattern, size_t memory_max, struct regex **out_regex,
                          struct err_at *at)
{
    if (pattern.len > REGEX_PATTERN_BYTES_MAX)
        return err_set(at, ERR_LIMIT, "regular expression longer than %d bytes", REGEX_PATTERN_BYTES_MAX);
    if (has_single_byte_class(pattern))
        return err_set(at, ERR_INPUT, "error parsing regexp: invalid escape sequence: `\\C`");
    re2::StringPiece text(reinterpret_cast<const char *>(pattern.at), pattern.len);
    struct regex *compiled = new (std::nothrow) regex(text, regex_options(memory_max));
    if (compiled == nullptr)
        return ERR_LIMIT;
    if (!compiled->re.ok()) {
        err e = compiled->re.error_code() == RE2::ErrorPatternTooLarge ? ERR_LIMIT : ERR_INPUT;
        e = err_set(at, e, "error parsing regexp: %s", compiled->re.error().c_str());
        delete compiled;
        return e;
    }
    *out_regex = compiled;
    return OK;
}

extern "C" void regex_close(struct regex *regex) { delete regex; }

extern "C" bool regex_full_match(const struct regex *regex, struct slice text)
{
    re2::StringPiece piece(reinterpret_cast<const char *>(text.at), text.len);
    return regex->re.Match(piece, 0, piece.size(), RE2::ANCHOR_BOTH, nullptr, 0);
}

extern "C" int regex_group_count(const struct regex *regex) { return regex->re.NumberOfCapturingGroups(); }

extern "C" struct slice regex_group_name(const struct regex *regex, int group)
{
    const std::map<int, std::string> &names = regex->re.CapturingGroupNames();
    auto found = names.find(group);
    if (found == names.end())
        return slice_of("", 0);
    return slice_of(found->second.data(), found->second.size());
}

extern "C" bool regex_full_match_groups(const struct regex *regex, struct slice text, struct slice *groups,
                                        int group_max)
{
    constexpr int pieces_max = 64;
    re2::StringPiece pieces[pieces_max];
    int count = group_max < pieces_max ? group_max : pieces_max;
    re2::StringPiece piece(reinterpret_cast<const char *>(text.at), text.len);
    if (!regex->re.Match(piece, 0, piece.size(), RE2::ANCHOR_BOTH, pieces, count))
        return false;
    for (int i = 0; i < group_max; i++) {
        if (i < count && pieces[i].data() != nullptr)
            groups[i] = slice_of(pieces[i].data(), pieces[i].size());
        else
            groups[i] = slice_of(nullptr, 0);
    }
    return true;
}
