/*
 * base/path.c
 *		Where in a JSON payload a column's value is: the option path, step by step.
 *
 * What could never match is refused: there are no wildcards, ranges, filters and methods, and a payload is an object. What an
 * accessor means is kept simple: a key names a field of an object, an index an element of an array.
 */
#include "base/path.h"

#include <string.h>

#define PATH_INDEX_DIGITS 8
#define PATH_MAX_STEPS 64 /* STREAMEXT_MAX_DEPTH, which stands among PostgreSQL's things */

void
streamext_path_begin(PathReader *reader, const char *path)
{
	memset(reader, 0, sizeof(*reader));
	reader->at = path;
	reader->first = true;
}

static PathStep
path_fault(PathReader *reader, const char *fault)
{
	reader->fault = fault;
	return PATH_FAULT;
}

static int
path_hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Between min and max hexadecimal digits at *p, which moves behind them; -1: there are not as many. */
static long
path_hex(const char **p, int min, int max)
{
	long value = 0;
	int	 n = 0;

	for (; n < max && path_hex_digit(**p) >= 0; n++, (*p)++)
		value = value * 16 + path_hex_digit(**p);
	return n < min ? -1 : value;
}

/* UTF-8, never longer than the escape was. */
static size_t
path_put_character(char *to, long c)
{
	if (c < 0x80)
	{
		to[0] = (char) c;
		return 1;
	}
	if (c < 0x800)
	{
		to[0] = (char) (0xC0 | (c >> 6));
		to[1] = (char) (0x80 | (c & 0x3F));
		return 2;
	}
	if (c < 0x10000)
	{
		to[0] = (char) (0xE0 | (c >> 12));
		to[1] = (char) (0x80 | ((c >> 6) & 0x3F));
		to[2] = (char) (0x80 | (c & 0x3F));
		return 3;
	}
	to[0] = (char) (0xF0 | (c >> 18));
	to[1] = (char) (0x80 | ((c >> 12) & 0x3F));
	to[2] = (char) (0x80 | ((c >> 6) & 0x3F));
	to[3] = (char) (0x80 | (c & 0x3F));
	return 4;
}

/* The character of \uXXXX or \u{X...} at *p, behind the u; -1: it is none. */
static long
path_unicode(const char **p)
{
	long c;

	if (**p != '{')
		return path_hex(p, 4, 4);
	(*p)++;
	c = path_hex(p, 1, 6);
	return c >= 0 && *(*p)++ == '}' ? c : -1;
}

/* The character of the escape at *p, behind the backslash; -1: it stands for none. */
static long
path_escape(const char **p)
{
	char kind = *(*p)++;
	long c, low;

	switch (kind)
	{
		case 'b':
			return '\b';
		case 'f':
			return '\f';
		case 'n':
			return '\n';
		case 'r':
			return '\r';
		case 't':
			return '\t';
		case 'v':
			return '\v';
		case 'x':
			c = path_hex(p, 2, 2);
			return c > 0 ? c : -1;
		case 'u':
			c = path_unicode(p);
			if (c >= 0xD800 && c < 0xDC00 && (*p)[0] == '\\' && (*p)[1] == 'u')
			{
				*p += 2;
				low = path_unicode(p);
				return low >= 0xDC00 && low < 0xE000 ? 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00) : -1;
			}
			return c > 0 && c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF) ? c : -1;
		case '\0':
			(*p)--;
			return -1;
		default:
			return (unsigned char) kind;
	}
}

/* At the opening quote. */
static PathStep
path_quoted_key(PathReader *reader, char *key)
{
	const char *p = reader->at + 1;

	reader->size = 0;
	while (*p != '"')
	{
		long c;

		if (*p == '\0')
			return path_fault(reader, "A quoted key has no end.");
		if (*p != '\\')
		{
			key[reader->size++] = *p++;
			continue;
		}
		p++;
		if ((unsigned char) *p >= 0x80)
			continue; /* the backslash means nothing before any other character */
		if ((c = path_escape(&p)) < 0)
			return path_fault(reader, "A quoted key holds an escape that is no character.");
		reader->size += path_put_character(key + reader->size, c);
	}
	reader->at = p + 1;
	return PATH_KEY;
}

static PathStep
path_bare_key(PathReader *reader, char *key)
{
	const char *p = reader->at;
	size_t		size = strcspn(p, ".[");

	if (size == 0)
		return path_fault(reader, "A key is missing.");
	if (strcspn(p, "*()\"\\]") < size)
		return path_fault(
			reader,
			"There are no wildcards, filters and methods; a key that holds such characters is written in quotes.");
	if (p[0] == ' ' || p[size - 1] == ' ')
		return path_fault(reader, "A key that begins or ends with a space is written in quotes.");
	if (strncmp(p, "strict $", strlen("strict $")) == 0 || strncmp(p, "lax $", strlen("lax $")) == 0)
		return path_fault(reader, "There are no modes.");
	memcpy(key, p, size);
	reader->size = size;
	reader->at = p + size;
	return PATH_KEY;
}

/* At the opening bracket. */
static PathStep
path_index(PathReader *reader)
{
	const char *p = reader->at + 1;
	size_t		digits = strspn(p, "0123456789");

	if (digits == 0 || digits > PATH_INDEX_DIGITS || p[digits] != ']')
		return path_fault(reader, "An index is a number from 0 on; it cannot be negative, last, a range or *.");
	reader->index = 0;
	for (size_t i = 0; i < digits; i++)
		reader->index = reader->index * 10 + (p[i] - '0');
	reader->at = p + digits + 1;
	return PATH_INDEX;
}

PathStep
streamext_path_next(PathReader *reader, char *key)
{
	bool first = reader->first;

	reader->first = false;
	if (first && *reader->at == '\0')
		return path_fault(reader, "It is empty.");
	if (first && *reader->at == '$')
	{
		reader->at++;
		first = false;
		if (*reader->at == '[')
			return path_fault(reader, "A payload is an object, and has no elements.");
	}
	else if (first && *reader->at == '[')
		return path_fault(reader, "A payload is an object, and has no elements.");
	if (*reader->at == '\0')
		return PATH_END;
	if (++reader->steps > PATH_MAX_STEPS)
		return path_fault(reader, "A payload is nested 64 levels at most, and no path leads deeper.");
	if (*reader->at == '[')
		return path_index(reader);
	if (*reader->at == '.')
		reader->at++;
	else if (!first)
		return path_fault(reader, "A step begins with . or [.");
	return *reader->at == '"' ? path_quoted_key(reader, key) : path_bare_key(reader, key);
}
