/*
 * sink/row_jsonb.c
 *		The jsonb of a row's text. What the function promises is in sink/row_jsonb.h.
 *
 * Most rows are flat: names with numbers, plain texts, booleans and NULLs. Of those the jsonb is put together here, since names are in its order
 * already and numbers are short: a third of what the parser takes. All others (what is nested or has an escape) take jsonb_in.
 *
 * An object of n pairs is a header, 2n entries (all names, then all values) and their bytes in the same order; numbers begin at a multiple
 * of four. An entry holds its length, each JB_OFFSET_STRIDEth its end (utils/jsonb.h).
 */
#include "base/streamext.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "sink/row_jsonb.h"

#define ROW_JSONB_PAIRS 128	 /* of a row that is put together here */
#define ROW_JSONB_DIGITS 18	 /* of a number that fits an int64 */
#define ROW_JSONB_NUMERIC 32 /* bytes of its numeric, and more */
#define ROW_JSONB_SIZE (1024 * 1024)

typedef struct RowPiece
{
	const char *data;
	uint32		size;
	uint32		type; /* JENTRY_IS… */
} RowPiece;

typedef struct RowPairs
{
	const char *at, *end;
	int			n;
	RowPiece	names[ROW_JSONB_PAIRS], values[ROW_JSONB_PAIRS];
} RowPairs;

static bool
row_take(RowPairs *row, const char *text, int size)
{
	if (row->end - row->at < size || memcmp(row->at, text, size) != 0)
		return false;
	row->at += size;
	return true;
}

/* False: one with an escape. */
static bool
row_take_string(RowPairs *row, RowPiece *piece)
{
	const char *from = row->at + 1;
	const char *p = from;

	while (p < row->end && *p != '"' && *p != '\\')
		p++;
	if (p == row->end || *p == '\\')
		return false;
	*piece = (RowPiece){ from, p - from, JENTRY_ISSTRING };
	row->at = p + 1;
	return true;
}

static Numeric
row_long_number(const char *digits, int size)
{
	char *terminated = pnstrdup(digits, size);

	return DatumGetNumeric(
		DirectFunctionCall3(numeric_in, CStringGetDatum(terminated), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

/* Digits with a sign and a point perhaps; false: something else. */
static bool
row_take_number(RowPairs *row, RowPiece *piece)
{
	const char *from = row->at;
	const char *p = from + (*from == '-');
	const char *point = NULL;
	int			ndigits = 0;
	int64		value = 0;
	Numeric		number;

	for (; p < row->end && ((*p >= '0' && *p <= '9') || (*p == '.' && point == NULL)); p++)
	{
		if (*p == '.')
			point = p;
		else if (++ndigits <= ROW_JSONB_DIGITS)
			value = value * 10 + (*p - '0');
	}
	if (ndigits == 0)
		return false;
	if (ndigits > ROW_JSONB_DIGITS)
		number = row_long_number(from, p - from);
	else if (point == NULL)
		number = int64_to_numeric(*from == '-' ? -value : value);
	else
		number = int64_div_fast_to_numeric(*from == '-' ? -value : value, p - point - 1);
	*piece = (RowPiece){ (const char *) number, VARSIZE_ANY(number), JENTRY_ISNUMERIC };
	row->at = p;
	return true;
}

static bool
row_take_value(RowPairs *row, RowPiece *piece)
{
	if (row->at == row->end)
		return false;
	piece->data = NULL;
	piece->size = 0;
	switch (*row->at)
	{
		case '"':
			return row_take_string(row, piece);
		case 't':
			piece->type = JENTRY_ISBOOL_TRUE;
			return row_take(row, "true", 4);
		case 'f':
			piece->type = JENTRY_ISBOOL_FALSE;
			return row_take(row, "false", 5);
		case 'n':
			piece->type = JENTRY_ISNULL;
			return row_take(row, "null", 4);
		default:
			return row_take_number(row, piece);
	}
}

/* False: it is not flat. */
static bool
row_take_pairs(RowPairs *row)
{
	if (!row_take(row, "{\"", 2))
		return false;
	do
	{
		row->at--;
		if (row->n == ROW_JSONB_PAIRS || !row_take_string(row, &row->names[row->n]) || !row_take(row, ": ", 2) ||
			!row_take_value(row, &row->values[row->n]))
			return false;
		row->n++;
	} while (row_take(row, ", \"", 3));
	return row_take(row, "}", 1) && row->at == row->end;
}

/* Puts one piece's bytes and its entry, number i. */
static void
row_put(Jsonb *json, const RowPiece *piece, int i, char *base, uint32 *used)
{
	uint32 start = *used;

	if (piece->type == JENTRY_ISNUMERIC)
		while ((base + *used - (char *) json) % sizeof(int32) != 0)
			base[(*used)++] = '\0';
	if (piece->size > 0)
		memcpy(base + *used, piece->data, piece->size);
	*used += piece->size;
	json->root.children[i] =
		piece->type | (i % JB_OFFSET_STRIDE == 0 ? *used | JENTRY_HAS_OFF : (uint32) (*used - start));
}

static Jsonb *
row_put_all(const RowPairs *row, uint32 text_size)
{
	Size   head = offsetof(Jsonb, root.children) + 2 * row->n * sizeof(JEntry);
	Jsonb *json = palloc(head + text_size + row->n * ROW_JSONB_NUMERIC);
	char  *base = (char *) json + head;
	uint32 used = 0;

	json->root.header = row->n | JB_FOBJECT;
	for (int i = 0; i < row->n; i++)
		row_put(json, &row->names[i], i, base, &used);
	for (int i = 0; i < row->n; i++)
		row_put(json, &row->values[i], row->n + i, base, &used);
	SET_VARSIZE(json, head + used);
	return json;
}

Jsonb *
streamext_row_jsonb(const char *text, uint32 size)
{
	RowPairs row;

	row.at = text;
	row.end = text + size;
	row.n = 0;
	if (size <= ROW_JSONB_SIZE && row_take_pairs(&row))
		return row_put_all(&row, size);
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(pnstrdup(text, size))));
}
