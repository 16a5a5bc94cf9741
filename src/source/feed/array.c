/*
 * source/feed/array.c
 *		Framing array: one JSON array that goes on, each element of it a record. Behind its end another one may begin.
 *
 * Only what separates elements is looked at here: brackets, commas and strings. Whether an element is JSON is the decoder's to say.
 */
#include "base/streamext.h"

#include "source/feed/cutter.h"

enum
{
	ARRAY_OUTSIDE, /* before [ */
	ARRAY_FIRST,   /* behind [ */
	ARRAY_NEXT,	   /* behind a comma */
	ARRAY_WITHIN,  /* an element has begun */
	ARRAY_BEHIND   /* an element in brackets or quotes has ended */
};

static bool
array_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* An element's bytes, without the blanks behind it. */
static bool
array_record(FeedCutter *cutter, const char *data, size_t size)
{
	while (size > 0 && array_blank(data[size - 1]))
		size--;
	return streamext_feed_cut_emit(cutter, data, size);
}

/* One byte within an element; true: it is the element's last (`*included`), or stands behind it. */
static bool
array_ends(FeedCutter *cutter, char c, bool *included)
{
	*included = false;
	if (cutter->string)
	{
		if (cutter->escaped)
			cutter->escaped = false;
		else if (c == '\\')
			cutter->escaped = true;
		else if (c == '"')
			cutter->string = false;
		return false;
	}
	switch (c)
	{
		case '"':
			cutter->string = true;
			return false;
		case '{':
		case '[':
			cutter->depth++;
			return false;
		case '}':
			if (cutter->depth == 0)
				return false; /* the decoder says what it is */
			*included = --cutter->depth == 0;
			return *included;
		case ']':
			if (cutter->depth == 0)
				return true;
			*included = --cutter->depth == 0;
			return *included;
		case ',':
			return cutter->depth == 0;
	}
	return false;
}

/* A byte between elements. */
static bool
array_between(FeedCutter *cutter, char c)
{
	if (array_blank(c))
		return true;
	if (cutter->state == ARRAY_OUTSIDE)
	{
		if (c != '[')
			return streamext_feed_cut_fault(cutter, "the answer is not a JSON array");
		cutter->state = ARRAY_FIRST;
		return true;
	}
	if (c == ']' && cutter->state != ARRAY_NEXT)
		cutter->state = ARRAY_OUTSIDE;
	else if (c == ',' && cutter->state == ARRAY_BEHIND)
		cutter->state = ARRAY_NEXT;
	else
		return streamext_feed_cut_fault(cutter, "a comma is missing or too many in the JSON array");
	return true;
}

bool
streamext_feed_cut_array(FeedCutter *cutter, const char *data, size_t size)
{
	const char *end = data + size, *begin = data;

	for (const char *p = data; p < end; p++)
	{
		bool included;

		if (cutter->state != ARRAY_WITHIN)
		{
			bool opens = (cutter->state == ARRAY_FIRST || cutter->state == ARRAY_NEXT) && !array_blank(*p) &&
						 *p != ',' && *p != ']';

			if (!opens)
			{
				if (!array_between(cutter, *p))
					return false;
				continue;
			}
			cutter->state = ARRAY_WITHIN;
			begin = p;
		}
		if (!array_ends(cutter, *p, &included))
			continue;
		if (!streamext_feed_cut_rest(cutter, begin, p - begin + (included ? 1 : 0), array_record))
			return false;
		cutter->state = included ? ARRAY_BEHIND : *p == ',' ? ARRAY_NEXT : ARRAY_OUTSIDE;
		begin = p + 1;
	}
	if (cutter->state != ARRAY_WITHIN)
		return true;
	return streamext_feed_cut_some(cutter, begin, end - begin, array_record);
}
