/*
 * gateway/cut.c
 *		A body into records. What the function promises is in gateway/cut.h.
 */
#include "base/streamext.h"

#include "gateway/cut.h"
#include "source/journal/block.h"

static const char *
cut_blanks(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
		p++;
	return p;
}

/* Behind the string that begins at p; NULL: it does not end. */
static const char *
cut_string(const char *p, const char *end)
{
	for (p++; p < end; p++)
	{
		if (*p == '"')
			return p + 1;
		if (*p == '\\')
			p++;
	}
	return NULL;
}

/*
 * Behind the JSON value at p: the comma or bracket of the array around it, or the end. NULL: strings or brackets are left open, or one is closed
 * that was not opened.
 */
static const char *
cut_value(const char *p, const char *end, bool in_array)
{
	int64 depth = 0;

	while (p < end)
	{
		switch (*p)
		{
			case '"':
				p = cut_string(p, end);
				if (p == NULL)
					return NULL;
				continue;
			case '{':
			case '[':
				depth++;
				break;
			case ']':
				if (depth == 0)
					return in_array ? p : NULL;
				depth--;
				break;
			case '}':
				if (depth == 0)
					return NULL;
				depth--;
				break;
			case ',':
				if (depth == 0)
					return in_array ? p : NULL;
				break;
			default:
				break;
		}
		p++;
	}
	return depth == 0 && !in_array ? p : NULL;
}

/* One record of a value, whose blanks at the end are left out. False: it is empty. */
static bool
cut_put(StringInfo block, const char *p, const char *end)
{
	while (end > p && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\n' || end[-1] == '\r'))
		end--;
	if (end == p)
		return false;
	streamext_block_add(block, p, end - p, NULL, 0);
	return true;
}

static CutResult
cut_array(const char *p, const char *end, StringInfo block)
{
	CutResult result = { 0 };

	p = cut_blanks(p + 1, end);
	if (p < end && *p == ']')
		p++;
	else
		for (;;)
		{
			const char *next;

			p = cut_blanks(p, end);
			next = cut_value(p, end, true);
			if (next == NULL)
				result.error = "the JSON array is not closed";
			else if (!cut_put(block, p, next))
				result.error = "an element of the JSON array is empty";
			if (result.error != NULL)
				return result;
			result.records++;
			p = next + 1;
			if (*next == ']')
				break;
		}
	if (cut_blanks(p, end) != end)
		result.error = "something follows the JSON array";
	return result;
}

/* What no bracket or quote says is a value: words and, roughly, numbers. */
static bool
cut_is_scalar(const char *p, const char *end)
{
	static const char *const words[] = { "true", "false", "null" };

	while (end > p && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\n' || end[-1] == '\r'))
		end--;
	for (int i = 0; i < lengthof(words); i++)
		if (end - p == strlen(words[i]) && memcmp(p, words[i], end - p) == 0)
			return true;
	for (const char *q = p; q < end; q++)
		if (strchr("+-.eE0123456789", *q) == NULL || *q == '\0')
			return false;
	return end > p && strchr("-0123456789", *p) != NULL;
}

static CutResult
cut_json(const char *p, const char *end, StringInfo block)
{
	CutResult result = { 0 };

	p = cut_blanks(p, end);
	if (p < end && *p == '[')
		return cut_array(p, end, block);
	if (p == end)
		result.error = "the body is empty";
	else if ((*p != '{' && *p != '"' && !cut_is_scalar(p, end)) || cut_value(p, end, false) == NULL ||
			 !cut_put(block, p, end))
		result.error = "the body is no JSON value";
	else
		result.records = 1;
	return result;
}

static CutResult
cut_lines(const char *p, const char *end, StringInfo block)
{
	CutResult result = { 0 };

	while (p < end)
	{
		const char *next = memchr(p, '\n', end - p);

		if (next == NULL)
			next = end;
		p = cut_blanks(p, next);
		if (cut_put(block, p, next))
			result.records++;
		p = next + 1;
	}
	return result;
}

static CutResult
cut_csv(const char *p, const char *end, char quote, StringInfo block)
{
	CutResult result = { 0 };

	while (p < end)
	{
		const char *next = p;
		const char *last;
		bool		quoted = false;

		while (next < end && (quoted || *next != '\n'))
			if (*next++ == quote)
				quoted = !quoted;
		if (quoted)
		{
			result.error = "a quoted field of the last line does not end";
			return result;
		}
		last = next;
		if (last > p && last[-1] == '\r')
			last--;
		if (last > p)
		{
			streamext_block_add(block, p, last - p, NULL, 0);
			result.records++;
		}
		p = next + 1;
	}
	return result;
}

CutResult
streamext_cut(CutKind kind, const char *body, Size size, char quote, StringInfo block)
{
	const char *end = body + size;
	CutResult	result = { 0 };

	if (kind != CUT_RAW && size >= 3 && memcmp(body, "\xef\xbb\xbf", 3) == 0)
		body += 3;
	switch (kind)
	{
		case CUT_JSON:
			return cut_json(body, end, block);
		case CUT_LINES:
			return cut_lines(body, end, block);
		case CUT_CSV:
			return cut_csv(body, end, quote, block);
		case CUT_RAW:
			break;
	}
	if (size == 0)
		result.error = "the body is empty";
	else
	{
		streamext_block_add(block, body, size, NULL, 0);
		result.records = 1;
	}
	return result;
}
